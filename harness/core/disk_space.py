"""Free space on the disks: asked before a launch, and whenever something could not be stored.

A full disk is nobody's mistake but the machine's: it stops the sweep, which goes on with the same command.
What is asked depends on what is at hand::

    a launch is planned                 require_free_space         raises before anything is written
    one exception, by itself            says_disk_full             its own errno
    an exception and what it came of    is_disk_full_error         any errno of the chain: libraries wrap
    only a text, from another process   disk_full_reason           the disks themselves, then the words
    only folders                        first_full_disk            the disks themselves
    a block that may meet any of it     disk_full_as_out_of_space  raises `OutOfSpaceError`
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data.errors import says_disk_full as says_disk_full
from harness.core.errors import FailedError

MIN_FREE_BYTES = 500_000_000  # what a launch leaves free of its disk
# A disk with less is full: it is too little for a checkpoint, a database's page or an artifact.
DISK_FULL_BELOW_BYTES = 4_000_000
# How a full disk is told by servers, databases and libraries.
_WORDS = ("No space left", "disk is full", "Disk quota exceeded")


class OutOfSpaceError(FailedError, OSError):
    """A disk is full, or would be: the sweep stops, and no trial is marked failed for it."""


def out_of_space_error(what: str) -> OutOfSpaceError:
    """The error of a running sweep whose disk is full; `what` says which, and the rest is always the same advice."""
    return OutOfSpaceError(
        f"{what}: the sweep stops, no trial fails and nothing that was stored is lost; free some space and run the "
        "same command again to go on"
    )


def require_free_space(place: Path, bytes_: float) -> None:
    """Refuse a launch that is expected to write more than is free: `bytes_` and `MIN_FREE_BYTES` beside them.

    Parameters
    ----------
    place : a folder on the disk that is written to
    bytes_ : what the launch is expected to write

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
    """Say which disk is full where that explains `problem`, the text with which something was not stored; else None.

    Another process met it, so there is no exception to ask: first the folders' disks are looked at, then the words.
    """
    place = first_full_disk(places)
    if place is not None:
        return f"no space left in {place}"
    return f"no space left ({problem})" if any(words in problem for words in _WORDS) else None


def first_full_disk(places: Iterable[Path]) -> Path | None:
    """The first of these folders whose disk has less than `DISK_FULL_BELOW_BYTES` free; None where none has.

    Folders that are missing are passed over.
    """
    for place in places:
        with suppress(FileNotFoundError):
            if shutil.disk_usage(place).free < DISK_FULL_BELOW_BYTES:
                return place
    return None


def is_disk_full_error(error: BaseException | None) -> bool:
    """Whether an error, or any in its chain of causes and contexts, is of a full disk.

    Libraries wrap the system's error in types of their own, whose text says something else.
    """
    while error is not None:
        if says_disk_full(error):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def disk_full_as_out_of_space(places: Iterable[Path]) -> Iterator[None]:
    """Raise `OutOfSpaceError`, which names the disk, where this block fails for a full one.

    A failed write itself names no file, so the first full one of `places` is named. Other errors pass as they are.
    """
    try:
        yield
    except OSError as error:
        if not is_disk_full_error(error):
            raise
        place = error.filename or first_full_disk(places)
        raise out_of_space_error(
            f"no space left in {place}" if place else "no space left on a disk"
        ) from error
