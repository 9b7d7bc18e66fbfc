"""What processes that were killed left aside, in the record and in the cache: half-made things that nobody will finish.

RECORD/.creating-*            a database that was being made       under the lock `record.lock`
RECORD/spool/**/.NAME.*.PID   a file that was being written        by the process PID, of a study that nobody runs
CACHE/**/.NAME.aside/         prepared data that was being built   under the lock `.NAME.lock`
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from data.store.content_store import MARKER
from harness.study.storage.record import Record, is_locked

_WRITTEN_BY = re.compile(r"\..+\.(\d+)")


def find_leftovers(record: Record, cache: Path) -> list[Path]:
    """Paths of what nobody will finish, sorted; what a living process may be making is left out. Removes nothing."""
    return sorted(path for path, lock in _suspects(record, cache) if lock is None or not is_locked(lock))


def remove_leftovers(record: Record, cache: Path) -> Iterator[Path]:
    """Remove what nobody will finish, each under the lock of whoever makes such things; each path once it is gone."""
    for path, lock in sorted(_suspects(record, cache)):
        if lock is None:
            path.unlink(missing_ok=True)
            yield path
            continue
        try:
            with FileLock(lock, timeout=0):
                shutil.rmtree(path)
        except (Timeout, FileNotFoundError):  # somebody is at it, or has ended it
            continue
        yield path


def _suspects(record: Record, cache: Path) -> Iterator[tuple[Path, Path | None]]:
    for path in record.root.glob(".creating-*"):
        yield path, record.locks / "record.lock"
    for path in record.spool.glob("*/**/.*"):
        study = path.relative_to(record.spool).parts[0]
        writer = _WRITTEN_BY.fullmatch(path.name)
        if writer and path.is_file() and not psutil.pid_exists(int(writer[1])) and not record.is_run(study):
            yield path, None
    for folder, names, files in os.walk(cache):
        if MARKER in files:
            names.clear()  # complete: nothing is built in it
        for name in names:
            if name.startswith(".") and name.endswith(".aside"):
                yield Path(folder, name), Path(folder, f"{name.removesuffix('.aside')}.lock")
        names[:] = [name for name in names if not name.startswith(".")]
