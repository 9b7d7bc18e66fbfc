"""Putting a finished folder in the place of another, in one step.

    final exists, Linux and macOS   the two names are exchanged in one system call, then the old folder is deleted
    elsewhere                       final -> .final.old, aside -> final; killed in between, the next call goes back

Whoever opens `final` finds the old folder or the new one, whole.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from pathlib import Path

from harness.core.failpoints import failpoint
from models.files import sync

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # renameat2(2) of Linux
_RENAME_SWAP = 2  # renamex_np(2) of macOS
# What a file system or an older kernel answers that has no such call.
_UNKNOWN = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)


def replace_folder(aside: Path, final: Path) -> None:
    """Let `final` be the folder that was made at `aside`, beside it; what `final` was is deleted.

    Law: a kill at any moment loses neither: `final` is the old folder or the new one, whole. Where the swap takes two
    renames, a kill between them leaves no `final`, which the next call puts back.
    """
    _recover(final)
    failpoint("swap.before")
    if not os.path.lexists(final):
        aside.rename(final)
        sync(final.parent)
        return
    if exchange(aside, final):
        old = aside
    else:
        old = _old(final)
        final.rename(old)
        failpoint("swap.between")
        aside.rename(final)
    sync(final.parent)
    failpoint("swap.after")
    _delete(old)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one system call; False, and nothing done, where this system or file system has none.

    Raises
    ------
    OSError
        The call exists and failed: a name is missing, or may not be changed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    first, second = os.fsencode(one), os.fsencode(other)
    if sys.platform == "linux" and hasattr(libc, "renameat2"):
        failed = libc.renameat2(_AT_FDCWD, first, _AT_FDCWD, second, ctypes.c_uint(_RENAME_EXCHANGE))
    elif sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        failed = libc.renamex_np(first, second, ctypes.c_uint(_RENAME_SWAP))
    else:
        return False
    if failed and ctypes.get_errno() not in _UNKNOWN:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))
    return not failed


def _old(final: Path) -> Path:
    return final.with_name(f".{final.name}.old")


def _recover(final: Path) -> None:
    """End what a killed swap by two renames began."""
    old = _old(final)
    if os.path.lexists(old):
        if os.path.lexists(final):
            _delete(old)
        else:
            old.rename(final)


def _delete(old: Path) -> None:
    if old.is_symlink() or not old.is_dir():
        old.unlink()
    else:
        shutil.rmtree(old)
