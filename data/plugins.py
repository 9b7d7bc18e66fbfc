"""Modules that add corpora, tasks or label rules to the registries."""

from __future__ import annotations

import importlib
import os

from data.errors import DataError

VARIABLE = "HARNESS_PLUGINS"


def load_plugins() -> tuple[str, ...]:
    """Import the modules named (comma separated) in HARNESS_PLUGINS, each once, and return their names.

    Raises
    ------
    DataError
        A module that cannot be imported, with the reason.
    """
    names = tuple(name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip())
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise DataError(
                f"{VARIABLE} names {name!r}, which cannot be imported ({error}); "
                "correct the name or put its folder on PYTHONPATH"
            ) from error
    return names
