"""A consistent copy of a record, taken while sweeps write it.

The copy is what a crash at one instant would have left, and a resumed sweep goes on from it as from a crash:

    lock the journal       nobody asks or tells: no trial begins, none becomes removable from the spool
      journal
      spool                whatever was told before and is removed from here on is complete in this copy
      database             so an epoch is in the spool's copy, or in the database's, or in both
      spool again          what is still there holds every epoch that the database's copy has, and more
    unlock                 workers trained on all the while
    artifacts, ledger      they only grow, and are stored before the database names them: copied after it,
                           they hold whatever it names
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from harness.maintenance.snapshot.sqlite_copy import back_up
from harness.study.storage.frozen_test_log import LEDGER
from harness.study.storage.record import Record, RecordError

# What a snapshot holds: no locks, no logs, nothing that is not known to belong to a record.
FILES = ("VERSION", "mlflow.db", "optuna.journal", LEDGER)
FOLDERS = ("artifacts", "spool")
# How long a busy journal is waited for: a coordinator holds its lock for a moment only.
LOCK_S = 60.0
# Of a trial's folder, in the reverse order of their writing: what says that something is there comes before it.
_FIRST, _LAST = ("verdict.json", "outcome.json"), ("last.pt", "events.jsonl", "trial.json")


def copy_record(record: Record, target: Path) -> None:
    """Copy a record into the folder `target`, which is made; the record itself is only read.

    Raises
    ------
    RecordError
        There is none, it may not be written, it holds a symbolic link, or its journal stays locked.
    """
    from harness.study.storage.journal import repair_tail

    record.require()
    record.check_writable()  # the journal is held meanwhile; its schema may be any
    target.mkdir(mode=0o700, parents=True)
    copy = Record(target)
    try:
        with FileLock(record.journal_lock, timeout=LOCK_S):
            if record.journal.is_file():
                shutil.copyfile(record.journal, copy.journal)
            _copy_spool(record, copy)
            back_up(record.database, copy.database)
            _copy_spool(record, copy)
    except Timeout:
        raise RecordError(
            f"a process has held {record.journal_lock} for {LOCK_S:.0f} s: let it go on, or stop it, and try again"
        ) from None
    repair_tail(copy.journal)
    for file in _files(record.artifacts, record.root):
        _copy(record.root / file, target / file)
    for name in ("VERSION", LEDGER):
        if (record.root / name).is_file():
            shutil.copyfile(record.root / name, target / name)
    repair_tail(target / LEDGER)


def _copy_spool(record: Record, copy: Record) -> None:
    """Take each trial's folder over, whole; one that is removed meanwhile is left as it was taken before."""
    for trial in sorted(record.spool.glob("*/*/trial.json")):
        folder = trial.parent.relative_to(record.root)
        aside = copy.root / ".aside"
        for file in sorted(
            _files(trial.parent, record.root), key=lambda path: _turn(path.relative_to(folder))
        ):
            _copy(record.root / file, aside / file)
        if trial.is_file() and (aside / folder).is_dir():
            shutil.rmtree(copy.root / folder, ignore_errors=True)
            (copy.root / folder).parent.mkdir(parents=True, exist_ok=True)
            (aside / folder).rename(copy.root / folder)
        shutil.rmtree(aside, ignore_errors=True)


def _turn(path: Path) -> tuple[int, str]:
    name = path.as_posix()
    if name in _FIRST:
        return _FIRST.index(name), name
    return (len(_FIRST) + 1 + _LAST.index(name) if name in _LAST else len(_FIRST)), name


def _files(folder: Path, root: Path) -> Iterator[Path]:
    """Every file under a folder of the record, relative to it, but locks and hidden ones: those are written aside."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted([*folders, *names]):
            path = Path(parent) / name
            if path.is_symlink():
                raise RecordError(f"{path} is a symbolic link: put what it points to in its place")
            if name in names and not name.startswith(".") and path.suffix != ".lock":
                yield path.relative_to(root)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(
        FileNotFoundError
    ):  # removed since it was listed: MLflow's own temporary file, or a stored trial's
        shutil.copyfile(source, target)
