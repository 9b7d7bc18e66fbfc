"""Where a record may be restored to: a folder that is a record's or empty, that nobody uses, and what lies there."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

from harness.core.errors import RefusedError
from harness.maintenance.snapshot.dvc_pointer import md5_of
from harness.maintenance.snapshot.record_copy import FILES, FOLDERS
from harness.maintenance.snapshot.sqlite_copy import DatabaseUnreadableError, rows_lost
from harness.study.storage.frozen_test_log import LEDGER
from harness.study.storage.record import Record, is_locked
from harness.tracking.server.app import LOCK

# All that a record's folder may hold besides what a snapshot has.
_OF_ITS_LIFE = ("locks", "logs", "server.log")
_ASIDE = re.compile(r"\.creating-.*|\.VERSION\..*|mlflow\.db-(wal|shm|journal)")
ELSEWHERE = "name a new or an empty folder with --record DIR"


class RestoreRefusedError(RefusedError, ValueError):
    """Nothing was restored: what is there would be lost or is in use, or no record can be put there."""


def restore_target(record: Record, folders: Iterable[Path]) -> Path:
    """Where a record is to be put, links followed.

    Raises
    ------
    RestoreRefusedError
        It is one of `folders` (the project's) or the user's home, or holds one of them; it is a mount; or it has
        an entry that no record has: it would be moved aside, whole.
    """
    try:
        place = record.root.resolve()
        for inner in (*folders, *_home()):
            if inner.resolve().is_relative_to(place):
                raise RestoreRefusedError(
                    f"{place} is no place for a record, which has a folder of its own: {inner} is in it or is it; "
                    f"{ELSEWHERE}"
                )
        there = next(path for path in (place, *place.parents) if path.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        entries = sorted(path.name for path in place.iterdir()) if there == place else []
    except (OSError, RuntimeError) as error:
        raise _unusable(record.root, error) from None
    strange = [
        name
        for name in entries
        if name not in (*FILES, *FOLDERS, *_OF_ITS_LIFE) and not _ASIDE.fullmatch(name)
    ]
    if strange:
        raise RestoreRefusedError(f"{place} holds {strange[0]!r}, which no record has: {ELSEWHERE}")
    if place.is_mount():
        raise _mount(place)
    return place


def make_parent(place: Path) -> None:
    """Make the folder that the record will lie in, and those above it; RestoreRefusedError where that fails."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(place, error) from None


def lock_unused_record(record: Record) -> ExitStack:
    """Hold what a sweep and a server take first, in a record that nobody uses; whoever closes the stack lets go.

    Raises
    ------
    RestoreRefusedError
        Some process holds a lock of the record.
    """
    held = ExitStack()
    if not record.locks.is_dir():
        return held
    beginning = [record.locks / name for name in ("record.lock", "studies.lock", LOCK)]
    try:
        for lock in beginning:
            held.enter_context(FileLock(lock).acquire(timeout=0))
        used = [
            path for path in sorted(record.root.rglob("*.lock")) if path not in beginning and is_locked(path)
        ]
    except Timeout as error:
        used = [Path(error.lock_file)]
    except BaseException:
        held.close()
        raise
    if used:
        held.close()
        server = ": an MLflow server of it, as of `harness ui`" if used[0].name == LOCK else ""
        raise RestoreRefusedError(
            f"{record.root} is in use (a process holds {used[0].relative_to(record.root)}{server}): stop what runs "
            "there first, or restore elsewhere with --record DIR"
        )
    return held


def require_nothing_lost(old: Record, new: Record, manifest: dict[str, str]) -> None:
    """Raise RestoreRefusedError where the record that is there holds anything that the snapshot does not.

    Journal and ledger only grow, so the snapshot's must begin with them; files must be there unchanged, and every row
    of the database.
    """
    lost: list[str] = []
    for name in (old.journal.name, LEDGER):  # they only grow
        if (old.root / name).is_file():
            before = (old.root / name).read_bytes()
            after = (new.root / name).read_bytes() if (new.root / name).is_file() else b""
            lost += [name] * (not after.startswith(before))
    for folder in FOLDERS:
        for path in sorted((old.root / folder).rglob("*")):
            file = path.relative_to(old.root).as_posix()
            if path.is_file() and path.suffix != ".lock" and manifest.get(file) != md5_of(path):
                lost.append(file)
    if old.exists:
        try:
            rows = rows_lost(old.database, new.database)
            lost += [f"{count} rows of {table}" for table, count in rows.items()]
        except DatabaseUnreadableError:
            lost.append(f"{old.database.name}, which cannot be read")
    if lost:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise RestoreRefusedError(
            f"{old.root} holds what the snapshot does not ({', '.join(lost[:3])}{more}): take a snapshot of it first, "
            "restore elsewhere with --record DIR, or move it aside with --force"
        )


def move_aside(place: Path) -> Path | None:
    """Rename the record that is there to NAME.before-TIME; the new path, None where nothing but an empty folder was.

    Raises
    ------
    RestoreRefusedError
        A folder of the same disk is mounted there, which cannot be renamed.
    """
    if not place.exists():
        return None
    try:
        if not any(place.iterdir()):
            place.rmdir()
            return None
        stamp = time.strftime("%Y%m%d-%H%M%S")
        names = (
            place.with_name(f"{place.name}.before-{stamp}{suffix}")
            for suffix in ("", *(f"-{n}" for n in range(2, 99)))
        )
        return place.rename(next(name for name in names if not name.exists()))
    except OSError as error:  # a folder of the same disk that is mounted here shows only now
        if error.errno in (errno.EBUSY, errno.EXDEV):
            raise _mount(place) from None
        raise


def _home() -> list[Path]:
    try:
        return [Path.home()]
    except RuntimeError:  # a user without one
        return []


def _mount(place: Path) -> RestoreRefusedError:
    return RestoreRefusedError(
        f"{place} is a mount, which cannot be replaced: restore into a folder in it with --record {place / 'record'}"
    )


def _unusable(place: Path, error: Exception) -> RestoreRefusedError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return RestoreRefusedError(f"no record can be put at {place} ({reason}): {ELSEWHERE}")
