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

import fcntl
import os
import shutil
import tempfile
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from harness.core.disk_space import MIN_FREE_BYTES
from harness.core.environment import quiet_environment
from harness.core.errors import InputError
from harness.core.failpoints import failpoint
from harness.core.files import sync_folder, write_text_atomic
from harness.study.storage.mlflow_database import EmptyDatabase, EmptyDatabaseError
from harness.study.storage.mlflow_schema import schema_problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna.storages import JournalStorage

LAYOUT_VERSION = "1"
# Longer than `is_locked` of a bystander holds a lock: it is not mistaken for a holder.
PROBE_S = 0.3


class RecordError(InputError):
    """The record cannot be used as it is; the message says what to do."""


class Record:
    """The folder of a record and the paths in it. Making one touches nothing; `open` makes what is missing."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.database = self.root / "mlflow.db"
        self.journal = self.root / "optuna.journal"
        self.artifacts = self.root / "artifacts"
        self.spool = self.root / "spool"
        self.locks = self.root / "locks"
        self.journal_lock = self.locks / "journal.lock"
        self.server_log = self.root / "server.log"

    @property
    def exists(self) -> bool:
        """Whether a complete record lies here: its database is renamed into place last."""
        return self.database.is_file()

    def require(self) -> Record:
        """Return this record, or raise RecordError where there is none."""
        if not self.exists:
            raise RecordError(
                f"no record at {self.root}: run `harness sweep FILE` first, or name one with --record DIR"
            )
        self._check_version()
        return self

    def beginning(self) -> AbstractContextManager[EmptyDatabase | None]:
        """Begin a new record's database, for `open` in this block; nothing of it lies in the record before that."""
        if not self.exists:
            with suppress(OSError):  # no room for it: then `open` begins it, in the record
                return EmptyDatabase(quiet_environment())
        return nullcontext()

    def open(self, begun: EmptyDatabase | None = None) -> Record:
        """Make the record once, whoever comes first; the others wait. `begun` is of `beginning`.

        A fresh MLflow database that several processes meet at once is corrupted for good, and so is one whose
        first migration is killed: it is made aside, under a lock, and renamed into place when complete.

        Raises
        ------
        RecordError
            The folder cannot be written, or the disk is nearly full.
        """
        self.check()
        try:
            for folder in (self.root, self.artifacts, self.spool, self.locks):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                failpoint("record.folder")
        except OSError as error:
            raise RecordError(f"the record {self.root} cannot be made: {error.strerror}") from None
        free = shutil.disk_usage(self.root).free
        if free < MIN_FREE_BYTES:
            raise RecordError(
                f"{self.root} has {free / 1e9:.2f} GB free; a sweep needs {MIN_FREE_BYTES / 1e9:.1f} GB or more"
            )
        with FileLock(self.locks / "record.lock"):
            failpoint("record.locked")
            for leftover in self.root.glob(".creating-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            for leftover in self.root.glob(".VERSION.*"):
                leftover.unlink()
            if not self.exists:
                self._create(begun)
        return self

    def check(self) -> None:
        """Raise RecordError where this version cannot work on the record, or may not write it; make nothing."""
        self._check_version()
        self.check_writable()
        self.check_schema()

    def check_writable(self) -> None:
        """Raise RecordError where this process may not write the record."""
        closed = self.unwritable()
        if closed is not None:
            raise RecordError(
                f"{closed} may not be written: a sweep, `ui`, `promote` and `snapshot` need a record that they can "
                "write; make it writable or work on a copy of it. `status` and `report` only read"
            )

    def unwritable(self) -> Path | None:
        """What of this record may not be written by this process; None where all may."""
        places = (self.root, self.locks, self.database)
        return next((path for path in places if path.exists() and not os.access(path, os.W_OK)), None)

    def check_schema(self) -> None:
        """Raise RecordError where the MLflow installed would refuse the database, which a team's server replaces."""
        problem = schema_problem(self.database) if self.exists else None
        if problem is not None and not os.environ.get("MLFLOW_TRACKING_URI"):
            raise RecordError(problem)

    def _check_version(self) -> None:
        path = self.root / "VERSION"
        found = path.read_text("utf-8", "replace").strip() if path.is_file() else LAYOUT_VERSION
        if found != LAYOUT_VERSION:
            raise RecordError(
                f"{self.root} has layout {found}, this version knows {LAYOUT_VERSION}: use the version that made it"
            )

    def _create(self, begun: EmptyDatabase | None) -> None:
        with tempfile.TemporaryDirectory(prefix=".creating-", dir=self.root) as aside:
            fresh = Path(aside) / "mlflow.db"
            _fill(fresh, begun)
            failpoint("record.made")
            write_text_atomic(self.root / "VERSION", LAYOUT_VERSION + "\n")
            failpoint("record.version")
            with fresh.open("rb+") as file:
                os.fsync(file.fileno())
            fresh.replace(self.database)  # whole: its connections are closed, and with them its WAL is gone
            failpoint("record.renamed")
            sync_folder(self.root)

    def storage(self) -> JournalStorage:
        """Optuna's storage of this record; a torn last line (a kill) is passed over, and cut off by who appends."""
        from harness.study.storage.journal import AtomicJournalBackend
        from harness.study.storage.journal_reader import FastJournalStorage

        return FastJournalStorage(AtomicJournalBackend(self.journal, FileLock(self.journal_lock)))

    def lock_study(self, study: str) -> FileLock:
        """Take the study's lock for this process, or say who holds it.

        Raises
        ------
        RecordError
            Another coordinator runs this study.
        """
        self.check()
        lock = FileLock(self.locks / f"study-{study}.lock")
        owner = self.locks / f"study-{study}.pid"
        try:
            lock.acquire(timeout=PROBE_S, poll_interval=PROBE_S / 10)
        except Timeout:
            holder = owner.read_text("utf-8").strip() if owner.is_file() else "unknown"
            raise RecordError(
                f"study {study} is being run by process {holder} already; wait for it, or stop it with Ctrl-C there"
            ) from None
        owner.write_text(f"{os.getpid()}\n", "utf-8")
        return lock

    def is_run(self, study: str) -> bool:
        """Whether a process holds the study's lock, as far as one that may not write here can tell; see `is_locked`."""
        return is_locked(self.locks / f"study-{study}.lock")

    def spooled(self, study: str) -> Iterator[Path]:
        """The folders of trials that MLflow may not hold completely, in trial order."""
        folder = self.spool / study
        if folder.is_dir():
            yield from sorted(path for path in folder.iterdir() if path.is_dir())


def _fill(database: Path, begun: EmptyDatabase | None) -> None:
    """Write MLflow's empty database: the one that was begun, or another where that could not be made."""
    if begun is not None:
        with suppress(EmptyDatabaseError):
            begun.copy_to(database)
            return
    try:
        with EmptyDatabase(quiet_environment(), database.parent) as own:
            own.copy_to(database)
    except EmptyDatabaseError as error:
        raise RecordError(f"MLflow could not make its database:\n{error}") from None


def is_locked(path: Path) -> bool:
    """Whether a process holds this kernel lock; asked without writing, of a file that may not be read: yes."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(handle)
