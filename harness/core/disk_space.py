"""Room on the disks: asked before a launch, and whenever something could not be stored.

A full disk is nobody's mistake but the machine's: it stops the sweep, which goes on with the same command.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeGuard

from harness.core.errors import FailedError

MIN_FREE_BYTES = 500_000_000

# Less is too little for a checkpoint, a database's page or an artifact.
DISK_FULL_BELOW_BYTES = 4_000_000
# How a full disk is told by servers, databases and libraries.
_WORDS = ("No space left", "disk is full", "Disk quota exceeded")


class OutOfSpaceError(FailedError, OSError):
    """A disk is full: the loop stops, its trainings are not failed."""


def out_of_space_error(what: str) -> OutOfSpaceError:
    """The one message about a full disk; `what` says which."""
    return OutOfSpaceError(
        f"{what}: the sweep stops, no trial fails and nothing that was stored is lost; free some space and run the "
        "same command again to go on"
    )


def require_free_space(place: Path, bytes_: float) -> None:
    """Refuse a launch that is expected to write more than there is room for.

    Raises
    ------
    OutOfSpaceError
        Less is free than it needs; both are named.
    """
    free, needed = shutil.disk_usage(place).free, bytes_ + MIN_FREE_BYTES
    if free < needed:
        raise OutOfSpaceError(
            f"{place} has {free / 1e9:.2f} GB free, and this needs about {needed / 1e9:.2f} GB "
            f"({MIN_FREE_BYTES / 1e9:.1f} GB of them stay free): free some, or name another --record; "
            "nothing was started"
        )


def disk_full_reason(places: Iterable[Path], problem: str) -> str | None:
    """Which disk is full, where `problem`, with which something was not stored, comes of that; else None."""
    place = first_full_disk(places)
    if place is not None:
        return f"no space left in {place}"
    return f"no space left ({problem})" if any(words in problem for words in _WORDS) else None


def first_full_disk(places: Iterable[Path]) -> Path | None:
    """The first of these folders that is full."""
    for place in places:
        with suppress(FileNotFoundError):
            if shutil.disk_usage(place).free < DISK_FULL_BELOW_BYTES:
                return place
    return None


def is_disk_full_error(error: BaseException | None) -> bool:
    """Whether an error, or one that it came of, is of a full disk: libraries say so in words of their own."""
    while error is not None:
        if says_disk_full(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def says_disk_full(error: BaseException) -> TypeGuard[OSError]:
    """Whether this very error, whatever it came of, is of a full disk."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def disk_full_as_out_of_space(places: Iterable[Path]) -> Iterator[None]:
    """Say which disk is full where this block fails for that; a failed write itself names no file."""
    try:
        yield
    except OSError as error:
        if not is_disk_full_error(error):
            raise
        place = error.filename or first_full_disk(places)
        raise out_of_space_error(
            f"no space left in {place}" if place else "no space left on a disk"
        ) from error
