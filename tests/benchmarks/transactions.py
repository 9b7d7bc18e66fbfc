"""Transactions that wrote: counted where SQLAlchemy commits, in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

WRITES = ("INSERT", "UPDATE", "DELETE")


def counted(call: Callable[[], object]) -> int:
    """How many transactions that changed something were committed while `call` ran, in any thread."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    dirty: set[int] = set()
    commits = 0

    def executed(
        connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        del cursor, parameters, context, many
        if statement.lstrip().upper().startswith(WRITES):
            dirty.add(id(connection))

    def committed(connection: Any) -> None:
        nonlocal commits
        commits += id(connection) in dirty
        dirty.discard(id(connection))

    listeners = (("after_cursor_execute", executed), ("commit", committed))
    for name, listener in listeners:
        event.listen(Engine, name, listener)
    try:
        call()
    finally:
        for name, listener in listeners:
            event.remove(Engine, name, listener)
    return commits
