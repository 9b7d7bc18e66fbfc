"""Content-addressed folders: written aside, synced, renamed; never seen half-built."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

MARKER = "complete.json"


def is_complete(folder: Path) -> bool:
    """Tell whether ``folder`` was finished, and still holds every file at its size."""
    try:
        sizes: dict[str, int] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


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
    sizes = {path.relative_to(aside).as_posix(): path.stat().st_size for path in files}
    marker.write_text(json.dumps(sizes, indent=0), encoding="utf-8")
    for path in (marker, aside):
        _sync(path)


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return ``folder``, built by ``build(aside)`` unless it is already complete.

    ::

        lock -> complete? return : build in .NAME.aside -> fsync -> marker -> rename to NAME

    One process builds, others wait for it. What a killed process left aside is removed; a folder
    without its marker, or with files missing, was copied badly and is built again.
    """
    if is_complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if is_complete(folder):
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
