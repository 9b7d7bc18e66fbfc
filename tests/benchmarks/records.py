"""Records and MLflow servers, where making and starting them is not what is measured."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from harness.study.storage.record import Record
from harness.tracking.server.server import TrackingServer, free_port

# Names a folder that the benchmarks of one run share.
SHARED = "BENCH_SHARED"
TRACKING = "MLFLOW_TRACKING_URI"


def without_team() -> None:
    """Forget a team's server: it has nothing to do with a benchmark."""
    os.environ.pop(TRACKING, None)


def empty_record(root: Path) -> Record:
    """A new record; a copy of one that the first benchmark makes and the others wait for: MLflow takes 5 s for it."""
    if not os.environ.get(SHARED):
        return Record(root).open()
    with _making():
        made = Record(_shared()).open()
    return Record(Path(shutil.copytree(made.root, root))).open()


def store_of(record: Record) -> Record:
    """Whose database and artifacts have a record's runs: where a server is shared, those of the server's record."""
    return Record(_served()) if TRACKING in os.environ else record


@contextmanager
def shared_server() -> Iterator[None]:
    """In this block, and in all processes begun in it, one MLflow server has the runs of all records.

    It starts in the background; `empty_record` waits for it.
    """
    making, server = _making(), TrackingServer(Record(_served()), free_port())

    def start() -> None:
        try:
            shutil.copytree(Record(_shared()).open().root, _served())
            server.start()
            assert server.uri
        finally:
            making.release()

    making.acquire()
    os.environ[TRACKING] = f"http://{server.host}:{server.port}"
    try:
        with ThreadPoolExecutor(1) as pool:
            starting = pool.submit(start)
            yield
            starting.result()  # why it did not start, where it did not
    finally:
        server.stop()
        without_team()


def _making() -> FileLock:
    """Held while the shared record is made, in whichever thread."""
    return FileLock(Path(os.environ[SHARED]) / "record.lock", thread_local=False)


def _shared() -> Path:
    return Path(os.environ[SHARED]) / "mlruns"


def _served() -> Path:
    return Path(os.environ[SHARED]) / "served"
