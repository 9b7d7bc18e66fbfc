"""One promotion or rollback of a record at a time: they share the registry and the folder of bundles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from harness.record import Record


class PromotionError(RuntimeError):
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
    paths = [record.locks / "promotion.lock"]
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        paths.append(output / ".promotion.lock")
    with ExitStack() as held:
        for path in paths:
            try:
                held.enter_context(FileLock(path, timeout=0))
            except Timeout:
                raise PromotionError(
                    f"another promotion or rollback works on {path.parent}; wait for it and run the same command again"
                ) from None
        yield
