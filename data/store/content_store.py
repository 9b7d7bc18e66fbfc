"""Content-addressed folders: written aside, synced, renamed; never seen half-built."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from data.errors import says_disk_full

MARKER = "complete.json"
_FORM = TypeAdapter(dict[str, int | tuple[int, str]])

# sha256 of the files that this process has read, by what changes when they are written: 1 GB takes a second.
_read: dict[tuple[int, int, int, int], str] = {}


def is_complete(folder: Path) -> bool:
    """Tell whether ``folder`` was finished, and still holds every file at its size."""
    try:
        return all((folder / name).stat().st_size == size for name, (size, _) in _stored(folder).items())
    except (OSError, ValueError):
        return False


def missing(folder: Path) -> str:
    """Say what a folder lacks to be complete, for people: its marker, or files that are gone or of another size."""
    try:
        stored = _stored(folder)
    except (OSError, ValueError):
        return f"{MARKER} is missing or cannot be read"
    sizes = {name: (folder / name).stat().st_size if (folder / name).is_file() else None for name in stored}
    wrong = [name for name, (size, _) in stored.items() if sizes[name] != size]
    return ", ".join(
        f"{name} {'is missing' if sizes[name] is None else 'has another size'}" for name in wrong
    )


def is_intact(folder: Path) -> bool:
    """Tell whether ``folder`` was finished, and every file still is what was stored; read once by a process."""
    return is_complete(folder) and not altered(folder)


def altered(folder: Path) -> list[str]:
    """Return a line for each file of a finished ``folder`` that is not what was stored."""
    lines = []
    for name, (_, stored) in _stored(folder).items():
        if (found := _sha256(folder / name)) != stored:
            lines.append(
                f"{folder / name} was changed: its sha256 is {found[:12]}, recorded {stored[:12] or 'none'}"
            )
    return lines


def _stored(folder: Path) -> dict[str, tuple[int, str]]:
    """Size and sha256 of each file; "" for what was stored before digests were."""
    marker = _FORM.validate_json((folder / MARKER).read_bytes(), strict=True)  # its error is a ValueError
    return {name: (one, "") if isinstance(one, int) else one for name, one in marker.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if key not in _read:
            _read[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return _read[key]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _finish(aside: Path) -> None:
    """Write the marker after all files are on disk."""
    files = sorted(path for path in aside.rglob("*") if path.is_file())
    for path in files:
        _sync(path)
    marker = aside / MARKER
    stored = {path.relative_to(aside).as_posix(): (path.stat().st_size, _sha256(path)) for path in files}
    marker.write_text(json.dumps(stored, indent=0), encoding="utf-8")
    for path in (marker, aside):
        _sync(path)


def reserve(path: Path) -> None:
    """Take the space of a file that was made with holes: on a full disk a write through memory kills the process.

    Raises
    ------
    OSError
        There is no space for it.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("rb+") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if says_disk_full(error):
                raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def _taken(lock: FileLock, waiting: Callable[[], object]) -> Iterator[None]:
    """Hold a lock, however long that takes; ``waiting`` is called every second until then."""
    while not lock.is_locked:
        try:
            lock.acquire(timeout=1)
        except Timeout:
            waiting()
    try:
        yield
    finally:
        lock.release()


def build_once(
    folder: Path, build: Callable[[Path], None], waiting: Callable[[], object] = bool, *, intact: bool = False
) -> Path:
    """Return ``folder``, built by ``build(aside)`` unless it is already complete.

    ::

        lock -> complete? return : build in .NAME.aside -> fsync -> marker -> rename to NAME

    One process builds, others wait for it and call ``waiting`` meanwhile. What a killed process left aside is
    removed; a folder without its marker, or with files missing, was copied badly and is built again; with
    ``intact`` so is one whose files are not what was stored.
    """
    is_there = is_intact if intact else is_complete
    if is_there(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _taken(FileLock(folder.with_name(f".{folder.name}.lock")), waiting):
        if is_there(folder):
            return folder
        aside = folder.with_name(f".{folder.name}.aside")
        for leftover in (aside, folder):
            shutil.rmtree(leftover, ignore_errors=True)
        aside.mkdir()
        try:
            build(aside)
            _finish(aside)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        aside.rename(folder)
        _sync(folder.parent)
    return folder
