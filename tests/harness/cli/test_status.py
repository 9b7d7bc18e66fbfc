"""`harness status`: of no record, of a study that nobody sweeps now, of one that is longer than anybody reads."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from filelock import FileLock

from harness.cli.commands.status import SHOWN
from harness.cli.main import cli
from harness.config.files.sweep_loader import load_sweep
from harness.study.storage.record import Record
from harness.study.study import Study, load_study, open_study
from tests.harness.places.command_line import run
from tests.harness.places.untrained_study import finished_study, outcome


def test_a_long_study_shows_its_best_and_json_has_them_all(
    tmp_path: Path, new_record: Callable[[Path], Record]
) -> None:
    record = new_record(tmp_path / "mlruns")
    count = SHOWN + 7
    finished_study(
        record, [({"feature": "mfcc", "width": 0.125}, outcome(0.5 + at / 1000)) for at in range(count)]
    )
    place = ("--record", str(record.root))
    shown = CliRunner().invoke(cli, ["status", "told", *place])
    assert shown.exit_code == 0, shown.output
    rows = [line.split()[0] for line in shown.output.splitlines() if " complete " in line]
    assert rows == [str(number) for number in reversed(range(7, count))]
    assert f"{SHOWN} of {count} trials; --json has them all" in shown.output
    everything = json.loads(CliRunner().invoke(cli, ["status", "told", "--json", *place]).stdout)
    assert len(everything["trials"]) == count


def test_status_without_a_record_says_what_to_do(elsewhere: Path) -> None:
    result = run("status")
    assert result.exit_code == 2
    assert "no record at" in result.stderr
    assert "harness sweep FILE" in result.stderr
    assert list(elsewhere.iterdir()) == []


def test_status_of_an_empty_record_is_empty(elsewhere: Path) -> None:
    record = Record(elsewhere / "there")
    record.locks.mkdir(parents=True)
    record.database.touch()
    assert json.loads(run("status", "--json", "--record", "there").stdout) == {"studies": []}
    assert json.loads(run("status", "--json", HARNESS_RECORD="there").stdout) == {"studies": []}
    unknown = run("status", "x", "--record", "there")
    assert unknown.exit_code == 2
    assert "no study is called 'x'" in unknown.stderr


@pytest.fixture
def left(elsewhere: Path) -> Study:
    """A study whose coordinator died: one trial runs, one was never started."""
    (elsewhere / "s.yaml").write_text("name: x\n")
    record = Record(elsewhere / "there")
    record.locks.mkdir(parents=True)
    record.database.touch()
    study = open_study(record, load_sweep(elsewhere / "s.yaml"))
    running = study.optuna_study.ask()
    running.set_user_attr("name", "1000 mfcc lr 0.01")
    running.set_user_attr("fingerprint", "f")
    study.optuna_study.ask().set_user_attr("state", "abandoned")
    return load_study(record, "x")


def states(*words: str) -> list[str]:
    document = json.loads(run("status", "x", "--json", "--record", "there", *words).stdout)
    return [trial["state"] for trial in document["trials"]]


def test_a_trial_that_nobody_runs_was_interrupted(left: Study, elsewhere: Path) -> None:
    lock = FileLock(elsewhere / "there" / "locks" / "study-x.lock")
    assert states() == ["interrupted"]
    with lock:
        assert states() == ["running"]
    assert states() == ["interrupted"]
    with lock.acquire(timeout=0):
        pass  # `status` let go of it
    row = json.loads(run("status", "--json", "--record", "there").stdout)["studies"][0]
    assert (row["trials"], row["interrupted"], row["running"]) == (1, 1, 0)
    shown = run("status", "x", "--record", "there").stdout
    assert "mfcc lr 0.01" in shown
    assert "1000" not in shown


def test_a_plugin_that_does_not_import_is_one_error_of_a_study_too(left: Study) -> None:
    shown = run("status", "x", "--record", "there", HARNESS_PLUGINS="no_such_module")
    assert shown.exit_code == 2
    assert shown.stderr.startswith("error: HARNESS_PLUGINS names 'no_such_module', which cannot be imported")
