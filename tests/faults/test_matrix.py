"""The published figures are whole, true to their form, and what README.md shows."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterator

import pytest

from tests.faults.matrix import FIGURES, HERE, README, RESULTS, ROWS, remembered, rows_of, with_table

# While the figures are measured anew, the old ones need not hold.
published = pytest.mark.skipif(
    os.environ.get("HARNESS_FAULTS") == "full", reason="the figures are being measured"
)


@published
def test_the_table_shows_the_figures_of_the_tests() -> None:
    rows = rows_of(json.loads(FIGURES.read_text("utf-8")))
    assert json.loads(RESULTS.read_text("utf-8")) == rows
    assert all(set(row) == {"id", "fault", "figure", "holds"} for row in rows)
    assert [row["id"] for row in rows if not row["holds"]] == []
    text = README.read_text("utf-8")
    assert with_table(text, rows) == text


def marked_tests() -> Iterator[tuple[str, int]]:
    """Each test here that carries a row of the matrix, and the row."""
    for path in sorted(HERE.glob("test_*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
            for mark in function.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.row":
                    yield f"{path.name}::{function.name}", ast.literal_eval(mark.args[0])


@published
def test_every_row_and_every_test_of_one_was_measured_in_full() -> None:
    figures = json.loads(FIGURES.read_text("utf-8"))
    marked = set(marked_tests())
    assert {row for _, row in marked} == {row.id for row in ROWS}
    assert {(test, part["id"]) for test, parts in figures.items() for part in parts} == marked
    assert [row["id"] for row in rows_of(figures)] == [row.id for row in ROWS]


def test_a_row_holds_only_where_all_its_parts_do() -> None:
    this = "test_matrix.py::test_a_row_holds_only_where_all_its_parts_do"
    other = "test_matrix.py::test_the_table_shows_the_figures_of_the_tests"
    before = {
        this: [{"id": 1, "figure": "old", "holds": True}],
        other: [{"id": 2, "figure": "9 of 9", "holds": True}],
        "test_gone.py::test_gone": [{"id": 3, "figure": "gone", "holds": True}],
    }
    part = {"id": 2, "test": f"tests/faults/{this}[seed7]", "figure": "1 of 3", "holds": False}
    (row,) = rows_of(remembered(before, [part]))
    assert (row["id"], row["figure"], row["holds"]) == (2, "1 of 3; 9 of 9", False)
