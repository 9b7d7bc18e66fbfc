"""Files that survive a loss of power: a name is durable only when its folder was synced too."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from models.files import sync, write_atomic


def write_text_atomic(path: Path, text: str) -> None:
    """Write aside, fsync, rename, fsync the folder: a reader sees the old file or the new one, whole."""
    make_folder(path.parent)
    write_atomic(path, text.encode())
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and what it lies in, where they are not there yet."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    sync(folder)


def sync_tree(folder: Path) -> None:
    """Make all that lies in a folder durable."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write JSON aside, fsync, rename: a reader sees the old file or the new one, whole."""
    write_text_atomic(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False))
