"""Nothing of a server outlives its owner, whoever of the family is killed first."""

import http.server
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from harness.maintenance.doctor import record_checks
from harness.maintenance.snapshot.record_copy import copy_record
from harness.maintenance.snapshot.restore_target import (
    RestoreRefusedError,
    lock_unused_record,
    restore_target,
)
from harness.study.storage.record import Record, RecordError
from harness.tracking.experiment import connect
from harness.tracking.server.server import ServerError, TrackingServer, free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, new_record: Callable[[Path], Record]) -> Record:
    return new_record(tmp_path_factory.mktemp("server") / "mlruns")


def group(pid: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while group(pid):
        assert time.monotonic() < deadline, f"{group(pid)} live on"
        time.sleep(0.05)


def test_the_whole_group_goes_with_the_mlflow_process(record: Record) -> None:
    with TrackingServer(record) as server:
        assert server.uri.startswith("http://127.0.0.1:")
        supervisor = server._process.pid
        [mlflow] = psutil.Process(supervisor).children()
        mlflow.send_signal(signal.SIGKILL)
        wait_until_gone(supervisor)
        assert not server.alive


def test_stopping_ends_what_a_killed_supervisor_left(record: Record) -> None:
    server = TrackingServer(record)
    server.start()
    assert server.uri
    supervisor = server._process.pid
    os.kill(supervisor, signal.SIGKILL)
    assert group(supervisor)
    server.stop()
    wait_until_gone(supervisor)


def test_a_server_that_cannot_start_names_its_log(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))  # no Python starts from here
    with TrackingServer(record) as server, pytest.raises(ServerError, match=r"its log: .*server\.log"):
        _ = server.uri


def test_a_damaged_database_is_said_at_once_and_left_alone(tmp_path: Path) -> None:
    broken = Record(tmp_path / "broken")
    broken.root.mkdir()
    broken.database.write_text("no database")
    with pytest.raises(
        RecordError, match=r"mlflow\.db is damaged \(file is not a database\): `harness restore`"
    ):
        TrackingServer(broken).__enter__()
    assert broken.database.read_text() == "no database"


def test_while_a_server_is_open_its_record_is_not_replaced(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the environment asks of other servers; and it is no study that is being run."""
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    with TrackingServer(record) as first, TrackingServer(record) as second:
        assert first.uri != second.uri
        first.stop()
        with pytest.raises(
            RestoreRefusedError, match=r"locks/server\.lock: an MLflow server of it, as of `harness ui`"
        ):
            lock_unused_record(record)
        assert list(record_checks.locks(record)) == []
        copy_record(record, tmp_path / "copy")
        assert not (tmp_path / "copy" / "locks").exists()
    assert restore_target(record, [tmp_path]) == record.root, "a server leaves nothing that no record has"
    with lock_unused_record(record):
        command = [sys.executable, "-P", "-m", "harness.tracking.server.app", "127.0.0.1", str(free_port())]
        late = subprocess.run(
            command, cwd=record.root, capture_output=True, text=True, timeout=60, check=False
        )
    assert (late.returncode, late.stderr) == (
        1,
        "a record is being restored here; try again when it is done\n",
    )


def test_no_letter_of_a_records_path_is_part_of_a_url(tmp_path: Path) -> None:
    record = Record(tmp_path / "my rec#1 100%25 a?b=c").open()
    with TrackingServer(record) as server:
        experiment = connect(server.uri).create_experiment("here")
    with closing(sqlite3.connect(record.database)) as database:
        rows = database.execute("select experiment_id, name from experiments where name = 'here'").fetchall()
    assert rows == [(int(experiment), "here")]
    assert [path.name for path in tmp_path.iterdir()] == [record.root.name]


def test_a_port_that_somebody_else_takes_first_is_left_to_them(record: Record) -> None:
    """What answers there is another record: its address must never be shown for this one's."""
    wanted = free_port()

    class Healthy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with TrackingServer(record, prefer=wanted) as server:
        assert server.port == wanted
        other = http.server.ThreadingHTTPServer(("127.0.0.1", wanted), Healthy)  # before MLflow has come up
        threading.Thread(target=other.serve_forever, daemon=True).start()
        try:
            assert server.uri != f"http://127.0.0.1:{wanted}"
            assert [e.name for e in connect(server.uri).search_experiments()] == ["Default"]
        finally:
            other.shutdown()
            other.server_close()
