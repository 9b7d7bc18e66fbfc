"""The train x test matrix: the best model of each training subset, on each evaluation subset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.metrics.few_clusters import FEW_CLUSTERS, few_clusters_note
from harness.study.trials import TrialSummary

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Cell:
    """Balanced accuracy of one model on the validation windows of one subset, with its 95 % interval.

    `clusters` is K, the independent groups of windows on which the interval rests.
    """

    value: float
    low: float
    high: float
    windows: int
    clusters: int

    @property
    def few_clusters(self) -> bool:
        """Whether the interval rests on too few clusters to count as evidence."""
        return self.clusters < FEW_CLUSTERS

    def __str__(self) -> str:
        few = few_clusters_note(self.clusters)
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] K = {self.clusters}{few}"


@dataclass(frozen=True)
class MatrixRow:
    """The best trial of one training subset; `cells` are by column, None where it was not scored there."""

    subset: str
    trial: int
    name: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Matrix:
    """Rows: training subsets, columns: evaluation subsets, both sorted by name."""

    rows: tuple[MatrixRow, ...]
    columns: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The content of matrix.json; a row has no entry for a column on which it was not scored."""
        rows = []
        for row in self.rows:
            cells = {
                column: _cell_json(cell)
                for column, cell in zip(self.columns, row.cells, strict=True)
                if cell is not None
            }
            rows.append({"train": row.subset, "trial": row.trial, "name": row.name, "test": cells})
        return {"columns": list(self.columns), "rows": rows}


def matrix_of(trials: Sequence[TrialSummary]) -> Matrix | None:
    """The matrix of a study's complete trials; None where there is but one training and one evaluation subset.

    ::

                       evaluated on
        trained on   clean   other   ami
        clean         .94     .90    .75     <- the best trial that was trained on clean
        other         .93     .92    .78

    All of the trials must have been judged on the same windows: that is the caller's business.
    """
    finalists: dict[str, TrialSummary] = {}
    for trial in sorted(trials, key=lambda one: (-(one.score or 0.0), one.number)):
        if trial.state == "complete" and trial.outcome.get("by_subset"):
            finalists.setdefault(str(trial.config.get("data", {}).get("subset", "?")), trial)
    columns = tuple(sorted({name for trial in finalists.values() for name in trial.outcome["by_subset"]}))
    if len(columns) < 2 and len(finalists) < 2:
        return None  # one number is no matrix
    rows = tuple(
        MatrixRow(
            subset,
            trial.number,
            trial.name,
            tuple(_cell(trial.outcome["by_subset"], name) for name in columns),
        )
        for subset, trial in sorted(finalists.items())
    )
    return Matrix(rows, columns)


def _cell(by_subset: dict[str, dict[str, Any]], name: str) -> Cell | None:
    if name not in by_subset:
        return None
    found = by_subset[name]
    return Cell(
        found["balanced_accuracy"], found["low"], found["high"], int(found["windows"]), int(found["clusters"])
    )


def _cell_json(cell: Cell) -> dict[str, Any]:
    return {
        "balanced_accuracy": cell.value,
        "low": cell.low,
        "high": cell.high,
        "windows": cell.windows,
        "clusters": cell.clusters,
        "few_clusters": cell.few_clusters,
    }
