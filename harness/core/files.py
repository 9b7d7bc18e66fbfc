"""Files that survive a loss of power, and who may read them.

A name is durable only when its folder was synced too. Files of a record are their user's alone; what is made to be
given away is not: every command runs under umask 077, and so do the workers and servers that it starts. What others
may read is written inside `to_share`: prepared data in the cache, bundles, reports, sweep files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.files import sync, write_atomic

PRIVATE = 0o077  # the umask under which files are their user's alone
_of_user: list[int] = []  # the user's own umask, once for each `private_files` that is open


def write_text_atomic(path: Path, text: str) -> None:
    """Write aside, fsync, rename, fsync the folder: a reader sees the old file or the new one, whole."""
    make_folder(path.parent)
    write_atomic(path, text.encode())
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents where they are missing, each name synced into the folder that holds it."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a file that is synced may still be nameless after a loss of power."""
    sync(folder)


def sync_tree(folder: Path) -> None:
    """Make every file below a folder durable, and every name, the folder itself last."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write JSON as `write_text_atomic` does: indented by 2, keys sorted, text as it is (not escaped to ASCII)."""
    write_text_atomic(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False))


@contextmanager
def private_files() -> Iterator[None]:
    """In this block a file that is made is readable by its user alone (umask 077); `to_share` opens it up again.

    The umask belongs to the process: threads share it.
    """
    before = os.umask(PRIVATE)
    _of_user.append(before if not _of_user else _of_user[-1])
    try:
        yield
    finally:
        _of_user.pop()
        os.umask(before)


@contextmanager
def to_share() -> Iterator[None]:
    """In this block files are made as the user's own umask says, even inside `private_files`."""
    before = os.umask(user_umask())
    try:
        yield
    finally:
        os.umask(before)


def user_umask() -> int:
    """The umask that this process was started with, whatever `private_files` set since."""
    if _of_user:
        return _of_user[-1]
    current = os.umask(PRIVATE)
    os.umask(current)
    return current
