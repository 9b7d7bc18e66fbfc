"""Files of a record are its user's alone; what is made to be given away is not.

Every command runs under umask 077, and so do the workers and servers that it starts. What others may read is
written inside `to_share`: prepared data in the cache, bundles, reports, sweep files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

PRIVATE = 0o077
_of_user: list[int] = []


@contextmanager
def private_files() -> Iterator[None]:
    """In this block a file that is made is readable by its user alone."""
    before = os.umask(PRIVATE)
    _of_user.append(before if not _of_user else _of_user[-1])
    try:
        yield
    finally:
        _of_user.pop()
        os.umask(before)


@contextmanager
def to_share() -> Iterator[None]:
    """In this block files are made as the user's own umask says."""
    before = os.umask(user_umask())
    try:
        yield
    finally:
        os.umask(before)


def user_umask() -> int:
    """The umask that the user chose."""
    if _of_user:
        return _of_user[-1]
    current = os.umask(PRIVATE)
    os.umask(current)
    return current
