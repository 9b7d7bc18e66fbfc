"""The train x test matrix as a table for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.reporting.train_test_matrix import Cell, Matrix

if TYPE_CHECKING:
    from rich.table import Table


def matrix_text(matrix: Matrix) -> str:
    """The matrix for a terminal or a log, as wide as it needs to be."""
    from io import StringIO

    from rich.console import Console

    console = Console(file=StringIO(), width=40 + 60 * len(matrix.columns))
    console.print(matrix_table(matrix))
    caption = "trained on (rows) x evaluated on (columns), best trial of each row, validation:"
    return "\n".join([caption, *(line.rstrip() for line in console.file.getvalue().rstrip().splitlines())])  # type: ignore[attr-defined]


def matrix_table(matrix: Matrix) -> Table:
    """The matrix as a table of rich; cells of few clusters, which claim nothing, are dim."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    table.add_column("train", style="bold")
    for column in matrix.columns:
        table.add_column(column, justify="left", no_wrap=True)
    for row in matrix.rows:
        cells = [Text("" if cell is None else str(cell), style=_style(cell)) for cell in row.cells]
        table.add_row(Text(row.subset), *cells)
    return table


def _style(cell: Cell | None) -> str:
    return "dim" if cell is None or cell.few_clusters else ""
