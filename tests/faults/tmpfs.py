"""A small disk of one's own, that is full when a test says so."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOMY = 900  # MB; nothing of it is taken before something is written


class Disk:
    """A tmpfs: it has room, or it ends where what it holds ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Take away the room that is left, whoever writes meanwhile."""
        for _ in range(100):
            used = -(-shutil.disk_usage(self.folder).used // 4096) * 4096
            if _mount("-o", f"remount,size={max(used, 4096)}", str(self.folder)) == "":
                return
        raise AssertionError("somebody writes faster than the disk can be made small")

    def empty(self) -> None:
        """Give the room back."""
        assert _mount("-o", f"remount,size={ROOMY}m", str(self.folder)) == ""


@contextmanager
def disk(folder: Path) -> Iterator[Disk]:
    """Mount a disk on a folder, with what the folder holds; skip the test where this machine does not allow that."""
    aside = folder.with_name(f"{folder.name}.before")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, aside, symlinks=True)
    wrong = _mount("-t", "tmpfs", "-o", f"size={ROOMY}m", "tmpfs", str(folder))
    if wrong:
        shutil.rmtree(aside)
        pytest.skip(f"no small disk can be mounted here: {wrong}")
    try:
        shutil.copytree(aside, folder, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(aside)
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


@contextmanager
def elsewhere(path: Path, other: Path) -> Iterator[None]:
    """Have `path`, a file or folder of a disk, lie at `other` on another disk."""
    if path.is_dir():
        shutil.copytree(path, other, symlinks=True)
    else:
        path.touch()
        shutil.copy(path, other)
    assert _mount("--bind", str(other), str(path)) == ""
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=False)


def _mount(*words: str) -> str:
    """Mount something; what went wrong."""
    try:
        return subprocess.run(["mount", *words], capture_output=True, text=True, check=False).stderr.strip()
    except OSError as error:
        return str(error)
