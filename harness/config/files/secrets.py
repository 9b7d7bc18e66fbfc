"""Secrets in a sweep file are refused: the record keeps every sweep, and people hand records on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.config.files.yaml_file import Location, Problem, YamlFile
from harness.core.redaction import holds_secret, is_called_secret, redact

_REFUSED = (
    "this looks like a secret (a password, a token, an address with a password), and the record keeps the sweep "
    "file; take it out and give it as a variable of the environment"
)


def secret_problems(file: YamlFile) -> list[Problem]:
    """Every key whose name or value looks like a secret, at its line; the value is not repeated, nor a secret name."""
    found = dict.fromkeys(_secret_places(file.values, ()))
    return [
        Problem(redact(problem.where), problem.message, problem.line)
        for problem in (file.problem(location, _REFUSED) for location in found)
    ]


def _secret_places(value: Any, at: Location) -> Iterator[Location]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if holds_secret(str(key)):
                yield (*at, key)
            yield from _secret_places(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _secret_places(inner, (*at, index))
    elif isinstance(value, str):
        called = bool(value and at) and is_called_secret(str(at[-1]))
        if called or holds_secret(value, prose=at == ("description",)):
            yield at
