"""One promotion or rollback of a record at a time: they share the registry and the folder of bundles."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from harness.core.errors import FailedError
from harness.study.storage.record import PROBE_S, Record


class PromotionError(FailedError, RuntimeError):
    """The record lacks something that promotion needs, or somebody else is at it."""


@contextmanager
def only_promotion(record: Record, output: Path | None = None) -> Iterator[None]:
    """Hold the record's promotion lock, and that of the folder of bundles, in this block.

    The kernel releases them when their holder dies. Two records on one team's server have a lock each: what is left
    between them, `registry.register` says.

    Raises
    ------
    PromotionError
        Somebody else holds it.
    """
    record.check()
    with ExitStack() as held:
        held.enter_context(_file_locked(record.locks / "promotion.lock", record.root))
        if output is not None:
            held.enter_context(_folder_locked(output))
        yield


@contextmanager
def _file_locked(path: Path, what: Path) -> Iterator[None]:
    try:
        with FileLock(path, timeout=PROBE_S, poll_interval=PROBE_S / 10):
            yield
    except Timeout:
        raise _busy(what) from None


@contextmanager
def _folder_locked(folder: Path) -> Iterator[None]:
    """Lock the folder itself: what is refused leaves no file in it, nor the folder where it was made here."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(folder) from None
        yield
    finally:
        os.close(handle)
        if made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _busy(what: Path) -> PromotionError:
    return PromotionError(
        f"another promotion or rollback works on {what}; wait for it and run the same command again"
    )
