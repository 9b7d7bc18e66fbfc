import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.study.storage.journal import repair_tail
from harness.study.storage.record import Record, RecordError

optuna.logging.set_verbosity(optuna.logging.ERROR)


def child(program: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# The database; that many may meet it empty, and that its making may be killed, is in tests/faults/test_first_use.py


@pytest.mark.slow
def test_opening_again_changes_nothing(new_record: Callable[[Path], Record], tmp_path: Path) -> None:
    opened = new_record(tmp_path / "mlruns")
    with sqlite3.connect(opened.database) as database:
        assert database.execute("SELECT artifact_location FROM experiments").fetchone() == (
            "mlflow-artifacts:/0",
        )
    database.close()
    before = opened.database.read_bytes()
    assert opened.open().require() is opened
    assert opened.database.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot be made"):
        Record(tmp_path / "file" / "mlruns").open()


def test_a_full_disk_is_said_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.study.storage.record.MIN_FREE_BYTES", 10**18)
    with pytest.raises(RecordError, match="GB free; a sweep needs"):
        Record(tmp_path / "mlruns").open()
    assert not Record(tmp_path / "mlruns").exists


# The journal


@given(
    head=st.lists(st.binary(max_size=50).map(lambda line: line.replace(b"\n", b"")), max_size=5),
    tail=st.binary(max_size=50),
)
def test_repair_keeps_the_whole_lines_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, head: list[bytes], tail: bytes
) -> None:
    journal = tmp_path_factory.mktemp("journal") / "optuna.journal"
    whole = b"".join(line + b"\n" for line in head)
    torn = tail.replace(b"\n", b"")
    journal.write_bytes(whole + torn)
    assert repair_tail(journal) == len(torn)
    assert journal.read_bytes() == whole
    assert repair_tail(journal) == 0


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("head", [b"", b"x\n"])
def test_repair_finds_the_line_end_before_a_long_torn_line(tmp_path: Path, size: int, head: bytes) -> None:
    journal = tmp_path / "optuna.journal"
    journal.write_bytes(head + b"y" * size)
    assert repair_tail(journal) == size
    assert journal.read_bytes() == head


def test_no_journal_needs_no_repair(tmp_path: Path) -> None:
    assert repair_tail(tmp_path / "none") == 0


@pytest.fixture
def record(tmp_path: Path) -> Record:
    record = Record(tmp_path / "mlruns")
    record.locks.mkdir(parents=True)
    return record


def test_a_study_with_a_torn_last_line_goes_on(record: Record) -> None:
    study = optuna.create_study(study_name="x", storage=record.storage())
    study.tell(study.ask(), 0.5)
    with record.journal.open("ab") as journal:
        journal.write(b'{"op_code": 6, "wor')
    again = optuna.load_study(study_name="x", storage=record.storage())
    again.tell(again.ask(), 0.7)
    final = optuna.load_study(study_name="x", storage=record.storage())
    assert [trial.value for trial in final.trials] == [0.5, 0.7]


def test_a_line_that_another_process_tore_is_cut_off_by_who_goes_on(record: Record) -> None:
    one = optuna.create_study(study_name="x", storage=record.storage())
    other = optuna.create_study(study_name="y", storage=record.storage())
    other.tell(other.ask(), 0.1)
    with record.journal.open("ab") as journal:  # a third, killed in the middle of its line
        journal.write(b'{"op_code": 6, "wor')
    one.tell(one.ask(), 0.5)
    other.tell(other.ask(), 0.2)
    assert [trial.value for trial in one.trials] == [0.5]
    fresh = record.storage()
    assert [trial.value for trial in optuna.load_study(study_name="x", storage=fresh).trials] == [0.5]
    assert [trial.value for trial in optuna.load_study(study_name="y", storage=fresh).trials] == [0.1, 0.2]


def test_the_journals_lock_dies_with_its_holder(record: Record) -> None:
    program = (
        "import sys, time; from pathlib import Path; from filelock import FileLock; from harness.study.storage.record import Record\n"
        "lock = FileLock(Record(Path(sys.argv[1])).locks / 'journal.lock'); lock.acquire()\n"
        "print('held', flush=True); time.sleep(60)\n"
    )
    holder = child(program, record.root)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    began = time.monotonic()
    optuna.create_study(study_name="x", storage=record.storage())
    assert time.monotonic() - began < 20  # seconds; a dead holder is waited for 30


def test_a_study_that_a_bystander_asks_about_can_be_locked(record: Record) -> None:
    asking = Event()

    def ask() -> None:
        while not asking.is_set():
            record.is_run("x")

    bystander = Thread(target=ask)
    bystander.start()
    try:
        for _ in range(100):
            record.lock_study("x").release()
    finally:
        asking.set()
        bystander.join()
    with record.lock_study("x"):
        assert record.is_run("x")
        with pytest.raises(RecordError, match="study x is being run by process"):
            record.lock_study("x")


def test_two_processes_write_one_journal(record: Record) -> None:
    program = (
        "import sys; from pathlib import Path; import optuna; from harness.study.storage.record import Record\n"
        "optuna.logging.set_verbosity(optuna.logging.ERROR)\n"
        "study = optuna.create_study(study_name='x', storage=Record(Path(sys.argv[1])).storage(), load_if_exists=True)\n"
        "for k in range(20): study.tell(study.ask(), k)\n"
    )
    children = [child(program, record.root) for _ in range(2)]
    said = [one.communicate(timeout=60) for one in children]
    assert [one.returncode for one in children] == [0, 0], said
    trials = optuna.load_study(study_name="x", storage=record.storage()).trials
    assert [trial.number for trial in trials] == list(range(40))
    assert sorted(str(trial.value) for trial in trials) == sorted([f"{k}.0" for k in range(20)] * 2)


# Moving, locks, spools


def test_a_record_moves(record: Record, tmp_path: Path) -> None:
    study = optuna.create_study(study_name="x", storage=record.storage())
    study.tell(study.ask(), 0.5)
    record.database.touch()
    elsewhere = tmp_path / "an other" / "réc"
    elsewhere.parent.mkdir()
    record.root.rename(elsewhere)
    moved = Record(elsewhere).require()
    again = optuna.load_study(study_name="x", storage=moved.storage())
    again.tell(again.ask(), 0.7)
    assert [trial.value for trial in again.trials] == [0.5, 0.7]
    assert not record.root.exists()


def test_a_study_has_one_owner_who_is_named(record: Record) -> None:
    program = (
        "import sys, time; from pathlib import Path; from harness.study.storage.record import Record\n"
        "lock = Record(Path(sys.argv[1])).lock_study('x'); print('held', flush=True); time.sleep(60)\n"
    )
    holder = child(program, record.root)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RecordError, match=f"study x is being run by process {holder.pid} already"):
        record.lock_study("x")
    record.lock_study("y").release()
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    record.lock_study("x").release()


def test_spools_come_in_trial_order(record: Record) -> None:
    assert list(record.spooled("x")) == []
    for name in ("00010", "00002"):
        (record.spool / "x" / name).mkdir(parents=True)
    (record.spool / "x" / "stray.txt").write_text("")
    assert [folder.name for folder in record.spooled("x")] == ["00002", "00010"]
