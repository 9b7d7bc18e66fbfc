"""`mlruns/`: the whole record in one folder that can move.

mlflow.db              runs, metrics, registered models (written by an MLflow server)
optuna.journal         studies and trials (written by the coordinator of the study only)
artifacts/             what the runs logged, addressed `mlflow-artifacts:/`
spool/                 what workers wrote and MLflow does not hold yet
test_openings.jsonl    each opening of a frozen test
locks/  logs/          kernel locks, which die with their holder; what workers printed
server.log  VERSION    what the MLflow server printed; the layout of this folder
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna.storages import JournalStorage

LAYOUT_VERSION = "1"
MIN_FREE_BYTES = 500_000_000


class RecordError(ValueError):
    """The record cannot be used as it is; the message says what to do."""


class Record:
    """The folder of a record and the paths in it; `open` makes what is missing."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.database = self.root / "mlflow.db"
        self.journal = self.root / "optuna.journal"
        self.artifacts = self.root / "artifacts"
        self.spool = self.root / "spool"
        self.locks = self.root / "locks"
        self.server_log = self.root / "server.log"

    @property
    def exists(self) -> bool:
        """Whether a complete record lies here."""
        return self.database.is_file()

    def require(self) -> Record:
        """Return this record, or raise RecordError where there is none."""
        if not self.exists:
            raise RecordError(
                f"no record at {self.root}: run `harness sweep FILE` first, or name one with --record DIR"
            )
        self._check_version()
        return self

    def open(self) -> Record:
        """Make the record once, whoever comes first; the others wait.

        A fresh MLflow database that several processes meet at once is corrupted for good, and so is one whose
        first migration is killed: it is made aside, under a lock, and renamed into place when complete.

        Raises
        ------
        RecordError
            The folder cannot be written, or the disk is nearly full.
        """
        try:
            for folder in (self.root, self.artifacts, self.spool, self.locks):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise RecordError(f"the record {self.root} cannot be made: {error.strerror}") from None
        free = shutil.disk_usage(self.root).free
        if free < MIN_FREE_BYTES:
            raise RecordError(
                f"{self.root} has {free / 1e9:.2f} GB free; a sweep needs {MIN_FREE_BYTES / 1e9:.1f} GB or more"
            )
        self._check_version()
        with FileLock(self.locks / "record.lock"):
            if not self.exists:
                for leftover in self.root.glob(".creating-*"):
                    shutil.rmtree(leftover, ignore_errors=True)
                self._create()
        return self

    def _check_version(self) -> None:
        path = self.root / "VERSION"
        found = path.read_text("utf-8").strip() if path.is_file() else LAYOUT_VERSION
        if found != LAYOUT_VERSION:
            raise RecordError(
                f"{self.root} has layout {found}, this version knows {LAYOUT_VERSION}: use the version that made it"
            )

    def _create(self) -> None:
        with tempfile.TemporaryDirectory(prefix=".creating-", dir=self.root) as aside:
            fresh = Path(aside) / "mlflow.db"
            program = (
                "import sqlite3\n"
                "from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore\n"
                "store = SqlAlchemyStore('sqlite:///mlflow.db', 'mlflow-artifacts:/')\n"
                "store.engine.dispose()\n"
                "database = sqlite3.connect('mlflow.db')\n"
                "database.execute('PRAGMA journal_mode=WAL')\n"
                "database.close()\n"
            )
            made = subprocess.run(
                [sys.executable, "-P", "-c", program],
                env=quiet_environment(),
                cwd=aside,
                capture_output=True,
                text=True,
                check=False,
            )
            if made.returncode != 0:
                raise RecordError(f"MLflow could not make its database:\n{made.stderr.strip()[-2000:]}")
            (self.root / "VERSION").write_text(LAYOUT_VERSION + "\n", "utf-8")
            with fresh.open("rb+") as file:
                os.fsync(file.fileno())
            fresh.replace(self.database)

    def storage(self) -> JournalStorage:
        """Optuna's storage of this record; a torn last line (a full disk, a kill) is cut off first."""
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        lock = _journal_lock(self.locks / "journal.lock")
        lock.acquire()
        try:
            repair_tail(self.journal)
        finally:
            lock.release()
        return JournalStorage(JournalFileBackend(str(self.journal), lock_obj=lock))

    def lock_study(self, study: str) -> FileLock:
        """Take the study's lock for this process, or say who holds it.

        Raises
        ------
        RecordError
            Another coordinator runs this study.
        """
        lock = FileLock(self.locks / f"study-{study}.lock")
        owner = self.locks / f"study-{study}.pid"
        try:
            lock.acquire(timeout=0)
        except Timeout:
            holder = owner.read_text("utf-8").strip() if owner.is_file() else "unknown"
            raise RecordError(
                f"study {study} is being run by process {holder} already; wait for it, or stop it with Ctrl-C there"
            ) from None
        owner.write_text(f"{os.getpid()}\n", "utf-8")
        return lock

    def is_run(self, study: str) -> bool:
        """Whether a process holds the study's lock, as far as one that may not write here can tell."""
        lock = self.locks / f"study-{study}.lock"
        if not lock.is_file():
            return False
        if not os.access(lock, os.W_OK) or not os.access(self.locks, os.W_OK):
            return True
        try:
            with FileLock(lock).acquire(timeout=0):
                return False
        except (Timeout, OSError):
            return True

    def spooled(self, study: str) -> Iterator[Path]:
        """The folders of trials that MLflow may not hold completely, in trial order."""
        folder = self.spool / study
        if folder.is_dir():
            yield from sorted(path for path in folder.iterdir() if path.is_dir())


def repair_tail(journal: Path) -> int:
    """Cut a torn last line off a journal; bytes removed. Call it under the journal's lock."""
    if not journal.is_file():
        return 0
    with journal.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        start = size
        while start > 0:
            start = max(0, start - 65_536)
            file.seek(start)
            newline = file.read(65_536).rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
        else:
            keep = 0
        if keep < size:
            file.truncate(keep)
            os.fsync(file.fileno())
        return size - keep


def _journal_lock(path: Path):  # type: ignore[no-untyped-def]
    """A journal lock that the kernel releases when its holder dies (Optuna's own blocks 30 s then)."""
    from optuna.storages.journal._file import BaseJournalFileLock

    class KernelLock(BaseJournalFileLock):
        def __init__(self) -> None:
            self._lock = FileLock(path)

        def acquire(self) -> bool:
            self._lock.acquire()
            return True

        def release(self) -> None:
            self._lock.release()

    return KernelLock()


def quiet_environment() -> dict[str, str]:
    """The environment of processes that run MLflow: no telemetry, no job runner, short retries."""
    settings = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "DO_NOT_TRACK": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    environment = {**os.environ, **settings}
    with suppress(KeyError):
        del environment["MLFLOW_TRACKING_URI"]
    return environment
