"""What `harness doctor` looks at in a record: found, left as it is, and with --fix put right once."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from filelock import FileLock

from harness.config.sweep import Sweep
from harness.core.settings import Settings
from harness.maintenance.doctor import doctor, record_checks
from harness.maintenance.leftovers import find_leftovers, remove_leftovers
from harness.study.storage.mlflow_schema import known_revisions
from harness.study.storage.record import Record
from harness.study.study import open_study
from tests.harness.places.doctor_findings import problems_in


@pytest.fixture
def made(tmp_path: Path, new_record: Callable[[Path], Record]) -> Record:
    """An empty record with MLflow's database."""
    return new_record(tmp_path / "mlruns")


def set_schema(record: Record, revision: str) -> None:
    with sqlite3.connect(record.database) as database:
        database.execute("update alembic_version set version_num = ?", (revision,))
    database.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_looking_at_a_record_changes_no_byte_and_leaves_no_file(made: Record) -> None:
    before = contents(made.root)
    for check in (record_checks.layout, record_checks.database, record_checks.journal, record_checks.locks):
        assert problems_in(check(made)) == []
    assert contents(made.root) == before


@pytest.mark.parametrize("age", ["older", "newer"])
def test_a_database_of_another_schema_names_what_to_do(made: Record, age: str) -> None:
    newest, known = known_revisions()
    set_schema(made, min(known - {newest}) if age == "older" else "ffffffffffff")
    before = contents(made.root)
    (found,) = problems_in(record_checks.database(made))
    assert found.level == "problem"
    assert ("mlflow db upgrade sqlite:///" in found.fix) == (age == "older")
    assert contents(made.root) == before


def test_a_damaged_database_is_found(made: Record) -> None:
    size = made.database.stat().st_size
    with made.database.open("rb+") as file:
        for at in range(4096, size, 4096 * 3):
            file.seek(at)
            file.write(b"\xa5" * 512)
    (found,) = problems_in(record_checks.database(made))
    assert "is damaged" in found.message
    assert "harness restore" in found.fix
    made.database.write_bytes(b"no database" * 1000)
    (found,) = problems_in(record_checks.database(made))
    assert "is damaged" in found.message


def test_a_damaged_line_of_the_journal_is_found_and_a_torn_last_one_is_not_one(record: Record) -> None:
    study = optuna.create_study(study_name="x", storage=record.storage())
    study.tell(study.ask(), 0.5)
    whole = record.journal.read_bytes()
    record.journal.write_bytes(whole + b'{"op_code": 6, "wor')
    assert problems_in(record_checks.journal(record)) == []
    record.journal.write_bytes(whole.replace(b'"op_code"', b'"op_co', 1))
    (found,) = problems_in(record_checks.journal(record))
    assert f"line 1 of {record.journal}" in found.message


def test_a_layout_of_another_version_is_a_problem(record: Record) -> None:
    (record.root / "VERSION").write_text("99\n")
    (found,) = problems_in(record_checks.layout(record))
    assert "has layout 99" in found.message


def test_a_record_that_others_can_read_is_closed_once(record: Record) -> None:
    record.root.chmod(0o755)
    (found,) = problems_in(record_checks.permissions(record))
    assert found.level == "warn"
    assert len(list(record_checks.repair_permissions(record))) == 1
    assert list(record_checks.repair_permissions(record)) == []
    assert problems_in(record_checks.permissions(record)) == []


@pytest.fixture
def holder(record: Record) -> Iterator["subprocess.Popen[str]"]:
    """Another process that runs study x."""
    program = (
        "import sys; from pathlib import Path; from harness.study.storage.record import Record\n"
        "lock = Record(Path(sys.argv[1])).lock_study('x'); print('held', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(record.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_who_runs_a_study_is_told_and_left_alone(record: Record, holder: "subprocess.Popen[str]") -> None:
    record.root.chmod(0o755)
    left = record.spool / "x" / "00000"
    left.mkdir(parents=True)
    (left / f".verdict.json.{dead_process()}").write_text("{")
    (found,) = record_checks.locks(record)
    assert f"study x is being run by process {holder.pid}" in found.message
    assert list(record_checks.repair_permissions(record)) == []
    assert find_leftovers(record, record.root / "no-cache") == []
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert list(record_checks.locks(record)) == []
    assert [path.parent for path in find_leftovers(record, record.root / "no-cache")] == [left]


def dead_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_what_killed_processes_left_is_removed_once_and_nothing_else(record: Record, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    spool = record.spool / "x" / "00003"
    spool.mkdir(parents=True)
    left = [
        record.root / ".creating-abc",
        cache / "windows" / ".1234.aside",
        spool / f".outcome.json.{dead_process()}",
    ]
    kept = [
        cache / "windows" / "5678",
        cache / "windows" / ".5678.lock",
        spool / f".trial.json.{os.getpid()}",
        spool / "trial.json",
    ]
    for path in (*left[:2], kept[0]):
        path.mkdir(parents=True)
    (left[0] / "mlflow.db").write_text("half")
    for path in (left[2], *kept[1:]):
        path.write_text("{}")
    assert find_leftovers(record, cache) == sorted(left)
    assert list(remove_leftovers(record, cache)) == sorted(left)
    assert find_leftovers(record, cache) == list(remove_leftovers(record, cache)) == []
    assert all(path.exists() for path in kept)


def test_what_a_writer_leaves_when_it_is_killed_is_found(record: Record, tmp_path: Path) -> None:
    spool = record.spool / "x" / "00003"
    program = (
        "import os, signal, sys; from pathlib import Path; from harness.core.files import write_text_atomic\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_text_atomic(Path(sys.argv[1], 'trial.json'), '{}')\n"
    )
    spool.mkdir(parents=True)
    killed = subprocess.run([sys.executable, "-c", program, str(spool)], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert find_leftovers(record, tmp_path / "cache") == list(spool.iterdir()) != []


def test_what_a_living_process_makes_is_left(record: Record, tmp_path: Path) -> None:
    (record.root / ".creating-abc").mkdir()
    (tmp_path / "cache" / ".1234.aside").mkdir(parents=True)
    with FileLock(record.locks / "record.lock"), FileLock(tmp_path / "cache" / ".1234.lock"):
        assert find_leftovers(record, tmp_path / "cache") == []
        assert list(remove_leftovers(record, tmp_path / "cache")) == []


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(record: Record) -> None:
    record.journal.write_text('{"op_code": 77, "worker_id": "x"}\n')  # whole lines of no meaning
    found = list(doctor._guarded("stale", lambda: record_checks.stale(record)))
    assert [finding.level for finding in problems_in(found)] == ["problem"]
    assert "this could not be looked at" in found[0].message


def test_what_a_killed_sweep_left_is_told_and_put_right_once(record: Record) -> None:
    study = open_study(record, Sweep.model_validate({"name": "left", "parameters": {"width": [0.125, 0.25]}}))
    study.optuna_study.ask()  # and killed before it began
    assert problems_in(record_checks.stale(record)) == []  # it is being run
    assert record_checks.idle_studies(record) == []
    study.release()
    (found,) = problems_in(record_checks.stale(record))
    assert found.message == "study left: trial 0: asked for and never begun, given up"
    before = record.journal.read_bytes()
    assert [*record_checks.stale(record)] == [found]
    assert record.journal.read_bytes() == before
    record.root.chmod(0o700)
    where = Settings(record.root, record.root.parent / "cache")
    assert doctor.repair(where) == ([found.message], [])
    assert doctor.repair(where) == ([], [])
    assert problems_in(record_checks.stale(record)) == []
