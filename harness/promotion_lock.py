"""One promotion or rollback of a record at a time: they share the registry and the folder of bundles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from harness.record import Record


class PromotionError(RuntimeError):
    """The record lacks something that promotion needs, or somebody else is at it."""


@contextmanager
def only_promotion(record: Record) -> Iterator[None]:
    """Hold the record's promotion lock in this block; the kernel releases it when its holder dies.

    Two records on one team's server have a lock each: what is left between them, `registry.register` says.

    Raises
    ------
    PromotionError
        Somebody else holds it.
    """
    lock = FileLock(record.locks / "promotion.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise PromotionError(
            f"another promotion or rollback works on {record.root}; wait for it and run the same command again"
        ) from None
    try:
        yield
    finally:
        lock.release()
