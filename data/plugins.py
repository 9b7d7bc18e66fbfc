"""Modules that add to the registries: front ends, tasks, label rules, corpora, guards, samplers, pruners, executors.

An installed distribution names its own as entry points; HARNESS_PLUGINS names those that are not installed.
Front ends are among them, although nothing here knows of any: a module registers what it likes.
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from typing import NamedTuple

from data.errors import DataError, one_line

VARIABLE = "HARNESS_PLUGINS"
GROUP = "diarization_harness.plugins"  # of entry points


class Plugin(NamedTuple):
    """A module to import, who names it, and what to do where that fails."""

    module: str
    named_by: str
    remedy: str


def load_plugins() -> tuple[str, ...]:
    """Import every plug-in once, those of entry points first, sorted by name, and return the modules' names.

    Raises
    ------
    DataError
        A module that cannot be imported, with who names it and the reason.
    """
    plugins = (*installed_plugins(), *_named_plugins())
    for plugin in plugins:
        try:
            importlib.import_module(plugin.module)
        except (Exception, SystemExit) as error:  # somebody else's code runs here
            said = one_line(error)
            reason = said if isinstance(error, ImportError) else f"{type(error).__name__}: {said}"
            raise DataError(
                f"{plugin.named_by} names {plugin.module!r}, which cannot be imported ({reason}); {plugin.remedy}"
            ) from error
    return tuple(dict.fromkeys(plugin.module for plugin in plugins))


@cache  # one look at every installed distribution takes 10 ms
def installed_plugins() -> tuple[Plugin, ...]:
    """Return the plug-ins of installed distributions, sorted by the names of their entry points."""
    from importlib.metadata import entry_points

    found = sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value))
    owners = [entry.dist.name if entry.dist else "an unknown distribution" for entry in found]
    return tuple(
        Plugin(entry.module, f"entry point {entry.name!r} of {owner}", f"mend {owner} or uninstall it")
        for entry, owner in zip(found, owners, strict=True)
    )


def _named_plugins() -> tuple[Plugin, ...]:
    names = (name.strip() for name in os.environ.get(VARIABLE, "").split(","))
    remedy = "correct the name or put its folder on PYTHONPATH"
    return tuple(Plugin(name, VARIABLE, remedy) for name in names if name)
