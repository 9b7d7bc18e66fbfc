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
        """Start `slots` workers on a device (`cpu`, `cuda`); what they print goes into the folder `logs`."""

    def default_slots(self, device: str) -> int:
        """How many slots suit a device where neither the option nor the sweep file says a number."""


def executor_class(name: str | None = None) -> ExecutorClass:
    """The registered executor of a name; without one, what HARNESS_EXECUTOR says, else `local`.

    Raises
    ------
    ExecutorError
        There is none of that name; the nearest is said.
    """
    load_plugins()
    name = name or os.environ.get(VARIABLE) or "local"
    if name not in EXECUTORS:
        near = nearest(name, EXECUTORS)
        hint = f"; did you mean {near}?" if near else ""
        raise ExecutorError(f"{VARIABLE}: no such executor: {name!r}{hint} There is {listed(EXECUTORS)}")
    module, _, attribute = EXECUTORS[name].partition(":")
    return cast(ExecutorClass, getattr(importlib.import_module(module), attribute))
