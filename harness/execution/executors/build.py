"""Which executors there are, by name, and how one is made; whoever runs trainings names none of them."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Protocol, cast

from data.errors import listed, nearest
from data.plugins import load_plugins
from harness.core.errors import InputError
from harness.execution.executors.protocol import Executor

VARIABLE = "HARNESS_EXECUTOR"

# name -> module:class; a plug-in adds its own.
EXECUTORS: dict[str, str] = {"local": "harness.execution.executors.local:LocalExecutor"}


class ExecutorError(InputError):
    """No executor of this name is registered; the message lists those that are."""


class ExecutorClass(Protocol):
    """What a registered class is asked for; a plug-in adds its `module:class` to `EXECUTORS`."""

    def __call__(self, slots: int, device: str, logs: Path) -> Executor:
        """Start `slots` workers (0 where only results wait to be stored) on a device, `cpu` or `cuda`.

        What they print goes into the folder `logs`.
        """

    def check(self) -> None:
        """Raise an error for people where what it is set to do, by variables say, cannot be done; starts nothing."""

    def default_slots(self, device: str) -> int:
        """How many slots suit a device where neither the option nor the sweep file says a number."""


def executor_class(name: str | None = None) -> ExecutorClass:
    """The registered executor of a name; without one, what HARNESS_EXECUTOR says, else `local`.

    Raises
    ------
    ExecutorError
        There is none of that name, the nearest is said; or its class cannot be imported.
    """
    load_plugins()
    name = name or os.environ.get(VARIABLE) or "local"
    if name not in EXECUTORS:
        near = nearest(name, EXECUTORS)
        hint = f"; did you mean {near}?" if near else f"; there is {listed(EXECUTORS)}"
        raise ExecutorError(f"{VARIABLE}: no such executor: {name!r}{hint}")
    module, _, attribute = EXECUTORS[name].partition(":")
    try:
        return cast(ExecutorClass, getattr(importlib.import_module(module), attribute))
    except (ImportError, AttributeError) as error:
        raise ExecutorError(
            f"executor {name!r} is {EXECUTORS[name]}, which cannot be imported ({error}): correct its plug-in"
        ) from error
