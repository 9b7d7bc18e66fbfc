"""A YAML file of ours: plain values, the line of every key, overrides, and every mistake at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config.files.yaml_reader import Document, parse_yaml
from harness.config.files.yaml_reader import Location as Location
from harness.core.errors import InputError

MAX_SHOWN = 20  # mistakes in one message
# These are names, whatever they look like: `--set name=2024`.
TEXT_KEYS = ("name", "description")
SHORT_KEYS = ("sampler", "pruner")


@dataclass(frozen=True)
class Problem:
    """One mistake: where it stands (`parameters.epochs`, or "" for the whole file), what is wrong, and the line.

    `line` is None for what stands in no line: what `--set` brought, or a missing key of the top level.
    """

    where: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line is not None else ""
        where = f"{_shown(self.where, 120)}: " if self.where else ""
        return f"{place}{where}{_shown(self.message, 600)}"


class SweepError(InputError):
    """A sweep file that cannot be run; `problems` holds every mistake found."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        lines = [f"  {problem}" for problem in problems[:MAX_SHOWN]]
        if left := len(problems) - len(lines):
            lines.append(f"  and {left} more")
        super().__init__("\n".join([f"{source}: {count}", *lines]))


def _shown(text: str, limit: int) -> str:
    """Text of a file as a terminal may print it: no control characters, and not without end."""
    kept = text if len(text) <= limit else f"{text[: limit - 3]}..."
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in kept)


@dataclass
class YamlFile:
    """The plain values of a file, the line of each, and which came from `--set`.

    Attributes
    ----------
    source : the file's name, as errors show it
    values : what YAML gives: dicts, lists, text, numbers, booleans, None
    lines : 1-based line of every key and item
    overridden : the keys that `override` set; what stands below them has no line
    """

    source: str
    values: dict[str, Any]
    lines: dict[Location, int] = field(default_factory=dict)
    overridden: set[Location] = field(default_factory=set)

    def line_of(self, location: Location) -> int | None:
        """The line of a key, or of the nearest key above it; none for what `--set` brought."""
        if self._is_overridden(location):
            return None
        while location:
            if location in self.lines:
                return self.lines[location]
            location = location[:-1]
        return None

    def problem(self, location: Location, message: str) -> Problem:
        """A mistake at a key of this file, with the line of the key, or of the nearest one above it."""
        where = ".".join(str(part) for part in location)
        if self._is_overridden(location):
            where = f"--set {where}"
        return Problem(where, message, self.line_of(location))

    def _is_overridden(self, location: Location) -> bool:
        return any(location[:length] in self.overridden for length in range(1, len(location) + 1))

    def override(self, assignments: Iterable[str]) -> None:
        """Apply the `key=value` pairs of `--set`: `budget.trials=20`, `parameters.mfcc.n_mels=[40, 80]`.

        The value is read as YAML; after `parameters.` all the rest is one name, dots and all. `name` and `description`
        are text, whatever they look like.

        Raises
        ------
        SweepError
            With every pair that cannot be applied.
        """
        problems = [problem for assignment in assignments for problem in self._assign(assignment)]
        if problems:
            raise SweepError("--set", problems)

    def _assign(self, assignment: str) -> list[Problem]:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals or not key:
            return [Problem(assignment, "write key=value, for example budget.trials=20")]
        head, _, rest = key.partition(".")
        path = [head, rest] if head == "parameters" and rest else key.split(".")
        if key in TEXT_KEYS:
            value: Any = text.strip()
        else:
            document = parse_yaml(text)
            if document.mistakes:
                return [Problem(key, mistake.message) for mistake in document.mistakes]
            value = document.values
        return self._put(path, value)

    def _put(self, path: list[str], value: Any) -> list[Problem]:
        target = self.values
        for depth, part in enumerate(path[:-1]):
            inner = target.get(part)
            if inner is None:
                inner = {}
            elif isinstance(inner, str) and part in SHORT_KEYS and depth == 0:
                inner = {"type": inner}  # `sampler: tpe` is short for `sampler: {type: tpe}`
            if not isinstance(inner, dict):
                return [Problem(".".join(path), f"{part} is {inner!r} and has no keys to set")]
            target[part] = inner
            target = inner
        target[path[-1]] = value
        self.overridden.add(tuple(path))
        return []


class UnreadableError(Exception):
    """The bytes of a file are no text of ours; whoever asked for it says so in an error of its own."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def read_yaml_file(path: Path, what: str, max_bytes: int) -> Document:
    """Values, lines and mistakes of one YAML file.

    Parameters
    ----------
    what : what such a file is called, where this one is larger than any is

    Raises
    ------
    UnreadableError
        It is too large, or not UTF-8.
    OSError, ValueError
        It cannot be opened; a ValueError for a name with NUL in it.
    """
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise UnreadableError(f"more than {max_bytes} bytes: no {what} is that large")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UnreadableError(f"not UTF-8 text (byte {error.start}): save it as UTF-8", line) from None
    return parse_yaml(text)


def mistakes_of(document: Document) -> list[Problem]:
    """The reader's mistakes as problems, in the order of the lines."""
    found = [Problem(".".join(map(str, one.location)), one.message, one.line) for one in document.mistakes]
    return sorted(found, key=lambda one: (one.line or 0, one.where))
