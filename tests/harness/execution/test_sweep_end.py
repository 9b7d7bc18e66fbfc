"""What `harness sweep` prints at its end: how to go on, compare and export, with the options that were given."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from harness.execution.launch import Launch
from harness.study.trials import TrialSummary
from tests.harness.places.command_line import run

pytestmark = pytest.mark.usefixtures("elsewhere")


def trial(number: int = 0, state: str = "complete") -> TrialSummary:
    interval = {"low": 0.8, "high": 0.9, "windows": 96, "clusters": 96}
    return TrialSummary(
        number, state, f"{number:03} mfcc", 0.85 if state == "complete" else None, 5, "", {},
        {"interval": interval}, {}, f"fingerprint {number}",
    )  # fmt: skip


def ended(monkeypatch: pytest.MonkeyPatch, *words: str, **fields: Any) -> Result:
    """`harness sweep s.yaml WORDS` of a launch that ended so."""
    Path("s.yaml").write_text("name: x\n")
    plain = {
        "study": "x", "resumed": True, "trials": [trial()], "new_trials": 0, "inspections": [], "seconds": 1.0,
        "signal": None, "exhausted": False, "out_of_time": False, "unstored": [], "problem": None, "budget": 2,
    }  # fmt: skip
    monkeypatch.setattr("harness.execution.launch.launch", lambda *_: Launch(**{**plain, **fields}))
    return run("sweep", "s.yaml", *words, HARNESS_CACHE="from the environment")


GIVEN = ["--set", "seed=1", "--set", "description=a b", "--name", "x", "--trials", "2", "--record", "my record",
         "--data-root", "d", "--workers", "1", "--device", "cpu"]  # fmt: skip
SAME = "--set seed=1 --set 'description=a b' --name x{} --record 'my record' --data-root d --workers 1 --device cpu\n"


def test_what_is_printed_goes_on_with_this_very_study(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = ended(monkeypatch, *GIVEN, signal=15)
    assert stopped.exit_code == 143
    assert "stopped. To go on: harness sweep s.yaml " + SAME.format(" --trials 2") in stopped.stdout
    spent = ended(monkeypatch, *GIVEN, trials=[trial(0), trial(1)])
    assert "the budget of 2 trials is spent. For more: harness sweep s.yaml " in spent.stdout
    assert SAME.format(" --trials 4") in spent.stdout
    assert "compare: harness ui --record 'my record'\n" in spent.stdout
    assert "export:  harness promote x --record 'my record' --data-root d\n" in spent.stdout


def test_what_is_printed_stays_short_where_little_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ended(monkeypatch, trials=[trial(0), trial(1)]).stdout.splitlines()
    assert "the budget of 2 trials is spent. For more: harness sweep s.yaml --trials 4" in lines
    assert lines[-2:] == ["compare: harness ui", "export:  harness promote x"]


def test_a_launch_out_of_time_claims_no_spent_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = ended(monkeypatch, out_of_time=True).stdout
    assert "stopped after budget.hours; to go on: harness sweep s.yaml\n" in shown
    assert "is spent" not in shown


def test_a_stopped_sweep_still_prints_its_document(monkeypatch: pytest.MonkeyPatch) -> None:
    result = ended(monkeypatch, "--json", signal=2)
    assert result.exit_code == 130
    assert json.loads(result.stdout)["interrupted"] is True
