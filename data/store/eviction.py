"""What the store of prepared data holds, and deleting of it what was used longest ago.

::

    CACHE/prepared/NAME  windows/NAME  features/NAME  variants/XX/NAME     an item each
    deleted:  lease lock -> nobody holds it? -> builder's lock -> renamed to .NAME.PID.aside -> deleted

So a folder is there whole or not at all, and what a kill leaves aside is removed by
`harness doctor --fix`. Corpora that the cache holds (demo, those of the hub) are no items: they may not come again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from data.store.content_store import MARKER
from data.store.leases import exclusive_access, in_use, leased_folders

KINDS = ("prepared", "windows", "features", "variants")
_PATTERNS = {"variants": "*/[!.]*"}


@dataclass(frozen=True)
class StoredFolder:
    """A stored folder: what it takes, when it was used last (seconds since 1970), whether a process holds it."""

    kind: str
    path: Path
    num_bytes: int
    used_at: float
    in_use: bool


def inventory(cache: Path) -> list[StoredFolder]:
    """List every folder of the store, what was used longest ago first; it walks all of them for their sizes."""
    held = leased_folders(cache)
    found = []
    for kind in KINDS:
        for path in sorted((cache / kind).glob(_PATTERNS.get(kind, "[!.]*"))):
            if not path.is_dir():
                continue
            num_bytes, used_at = _measure(path)
            name = path.relative_to(cache).as_posix()
            found.append(StoredFolder(kind, path, num_bytes, used_at, in_use(name, held)))
    return sorted(found, key=lambda item: (item.used_at, item.path))


def select_for_eviction(items: Sequence[StoredFolder], max_bytes: int) -> list[StoredFolder]:
    """Choose what to delete, in the order of `inventory`, until the rest takes at most ``max_bytes`` or is in use."""
    left = sum(item.num_bytes for item in items)
    chosen = []
    for item in items:
        if left <= max_bytes:
            break
        if not item.in_use:
            chosen.append(item)
            left -= item.num_bytes
    return chosen


def evict(cache: Path, items: Sequence[StoredFolder]) -> Iterator[StoredFolder]:
    """Delete items and yield each that is gone; one that somebody took or is building meanwhile stays."""
    for item in items:
        aside = _take_aside(cache, item.path)
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
            yield item


def _take_aside(cache: Path, folder: Path) -> Path | None:
    """Rename a folder that nobody uses, so that it is gone at once and whole."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.aside")  # a builder's own is .NAME.aside
    with exclusive_access(cache):
        if in_use(folder.relative_to(cache).as_posix(), leased_folders(cache)):
            return None
        try:
            with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0):
                folder.rename(aside)
        except (Timeout, FileNotFoundError):
            return None
    return aside


def _measure(folder: Path) -> tuple[int, float]:
    num_bytes = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                num_bytes += Path(place, name).stat().st_size
            except FileNotFoundError:
                continue
    try:
        used_at = (folder / MARKER).stat().st_mtime  # of an unfinished one: as old as can be
    except OSError:
        used_at = 0.0
    return num_bytes, used_at
