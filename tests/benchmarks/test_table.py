"""Laws of the rows: judged by their target alone, kept from run to run, drawn as they are stored."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import table
from tests.benchmarks.__main__ import HERE, run_alone, updated
from tests.benchmarks.registry import MODULES
from tests.benchmarks.result import Result, judged, not_measured, reaches
from tests.benchmarks.rounds import Estimate
from tests.benchmarks.scale import QUICK

MACHINE = {
    "cpu": "a CPU", "cores": 2, "memory_gb": 8.0, "gpu": None, "system": "Linux", "python": "3.11",
    "versions": {"torch": "2"}, "date": "2025-01-31", "canary_ms": 50.0, "load": 0.1,
}  # fmt: skip


def row(name: str, value: float = 2.0, **named: str) -> Result:
    return judged(name, f"what {name} is", value, unit="x", **{"target": ">= 1", **named})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "target", "holds"),
    [
        (0.95, ">= 0.95", True), (0.949, ">= 0.95", False), (60, "<= 60 ms", True), (60.1, "<= 60 ms", False),
        (1.0, "== 1", True), (1.001, "== 1", False), (math.nan, ">= 0", False), (math.nan, "<= 9", False),
    ],
)  # fmt: skip
def test_a_value_reaches_its_target_or_not(value: float, target: str, holds: bool) -> None:
    assert reaches(value, target) is holds
    assert judged("B1", "what", value, unit="x", target=target).holds is holds


def test_a_target_that_nobody_can_reach_is_an_error() -> None:
    with pytest.raises(ValueError, match="about 3"):
        reaches(3, "about 3")


def test_an_estimate_brings_its_interval_and_what_was_not_measured_holds_nothing() -> None:
    assert judged("B1", "w", Estimate(2, 1, 3), unit="x", target=">= 1").interval == (1, 3)
    assert judged("B1", "w", Estimate(2, math.nan, math.nan), unit="x").interval is None
    assert judged("B1", "w", 2, unit="x").holds is None
    absent = not_measured("B6", "w", "no GPU here", target=">= 0.25")
    assert (absent.value, absent.holds) == (None, None)
    assert "no GPU here" in absent.notes[0]


def test_rows_that_did_not_run_stay_and_all_are_in_order(tmp_path: Path) -> None:
    first = table.merged({}, [row("B10"), row("B2 naive"), row("B2"), row("B1")], MACHINE)
    table.write(tmp_path, first)
    again = table.merged(table.read(tmp_path), [row("B2", 7.0)], {**MACHINE, "cpu": "another"})
    table.write(tmp_path, again)
    kept = table.read(tmp_path)
    assert list(kept) == ["B1", "B2", "B2 naive", "B10"]
    assert {name: kept[name]["value"] for name in kept} == {"B1": 2.0, "B2": 7.0, "B2 naive": 2.0, "B10": 2.0}
    assert kept["B1"] == json.loads(json.dumps(first["B1"]))
    drawn = (tmp_path / table.README).read_text("utf-8")
    assert "B1, B2 naive, B10: measured on 2 cores of a CPU" in drawn
    assert "B2: measured on 2 cores of another" in drawn


def test_the_table_has_a_row_for_each_id_and_the_text_around_it_stays(tmp_path: Path) -> None:
    (tmp_path / table.README).write_text(
        f"before\n{table.BEGIN}\nstale line\n{table.END}\nafter\n", encoding="utf-8"
    )
    rows = table.merged({}, [row(name) for name in MODULES], MACHINE)
    table.write(tmp_path, rows)
    text = (tmp_path / table.README).read_text("utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "stale line" not in text
    assert [f"| {name} | what {name} is | 2.00 x |" in text for name in MODULES] == [True] * len(MODULES)
    assert table.with_table(text, table.read(tmp_path)) == text


def test_a_readme_without_markers_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / table.README).write_text("no table here", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks the markers"):
        table.write(tmp_path, {})
    assert (tmp_path / table.README).read_text("utf-8") == "no table here"


def test_json_holds_no_nan() -> None:
    rows = table.merged(
        {}, [judged("B1", "w", 1.0, unit="x", details={"low": [math.nan, {"a": math.inf}]})], MACHINE
    )
    assert rows["B1"]["details"] == {"low": [None, {"a": None}]}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0123, "0.0123"),
        (1.8549, "1.85"),
        (60, "60.0"),
        (136.4, "136"),
        (12345.6, "12,346"),
        (-2.5, "-2.50"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert table.number(value) == text


def test_the_repositorys_table_is_what_its_results_say() -> None:
    text = (HERE / table.README).read_text("utf-8")
    assert table.with_table(text, table.read(HERE)) == text
    for name in MODULES:
        assert f"| {name} " in text.partition(table.END)[2]  # and what it measures is explained
    measured = {name.partition(" ")[0] for name in table.read(HERE)}
    assert measured in (set(), set(MODULES))


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    program = (
        "import sys, tests.benchmarks.__main__\n"
        "print([m for m in sys.modules if m.startswith('tests.benchmarks.b') or m in ('torch', 'mlflow', 'optuna')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=HERE.parents[1]
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_every_benchmark_of_the_table_has_its_module() -> None:
    assert [module for module in MODULES.values() if not (HERE / f"{module}.py").exists()] == []


def test_a_benchmark_that_fails_is_no_row_of_its_own(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(HERE.parents[1])
    assert run_alone("B99", QUICK) == []
    assert "B99" in capfd.readouterr().err


def test_what_a_run_did_not_measure_stays_and_what_it_no_longer_has_goes() -> None:
    gpu = row("B12 GPU mfcc")
    rows = table.merged({}, [row("B12"), row("B12 int8"), row("B6 raw"), gpu], MACHINE)
    noisy = updated(rows, "B12", [not_measured("B12", "inference", "no quiet round")], MACHINE)
    assert noisy == rows
    nowhere = updated(rows, "B6", [not_measured("B6 raw", "floor", "no GPU here")], MACHINE)
    assert nowhere == rows
    again = updated(rows, "B12", [row("B12", 5.0)], MACHINE)
    assert set(again) == {"B12", "B6 raw", "B12 GPU mfcc"}
    assert again["B12"]["value"] == 5.0
    fresh = updated({}, "B6", [not_measured("B6 raw", "floor", "no GPU here")], MACHINE)
    assert fresh["B6 raw"]["value"] is None
