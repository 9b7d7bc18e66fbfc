"""Read a sweep file: YAML 1.2 to plain values, with the line of every key, and every mistake at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent

MAX_BYTES = 1_000_000
MAX_DEPTH = 20

Location = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One mistake: where it stands and what is wrong."""

    where: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line is not None else ""
        return f"{place}{self.where}: {self.message}" if self.where else f"{place}{self.message}"


class SweepError(ValueError):
    """A sweep file that cannot be run; `problems` holds every mistake found."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {problem}" for problem in problems)]))


@dataclass
class SweepFile:
    """The plain values of a sweep file, and the line of each."""

    source: str
    values: dict[str, Any]
    lines: dict[Location, int] = field(default_factory=dict)

    def line_of(self, location: Location) -> int | None:
        """The line of a key, or of the nearest key above it."""
        while location:
            if location in self.lines:
                return self.lines[location]
            location = location[:-1]
        return None

    def problem(self, location: Location, message: str) -> Problem:
        """A mistake at a key of this file."""
        return Problem(".".join(str(part) for part in location), message, self.line_of(location))

    def override(self, assignments: Iterable[str]) -> None:
        """Apply `key=value` pairs; the value is read as YAML, `parameters.` takes one whole name."""
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals or not key.strip():
                raise SweepError(
                    "--set", [Problem(assignment, "write key=value, for example budget.trials=20")]
                )
            head, _, rest = key.strip().partition(".")
            path = [head, rest] if head == "parameters" and rest else key.strip().split(".")
            target = self.values
            for part in path[:-1]:
                inner = target.setdefault(part, {})
                if not isinstance(inner, dict):  # `sampler: tpe` is short for `sampler: {type: tpe}`
                    inner = target[part] = {"type": inner}
                target = inner
            target[path[-1]] = _parse("--set", text)[0]
            for known in [known for known in self.lines if known[: len(path)] == tuple(path)]:
                del self.lines[known]


def read_sweep_file(path: Path) -> SweepFile:
    """Read one YAML file into plain values.

    Raises
    ------
    SweepError
        The file is absent, not UTF-8, too large, not YAML, uses aliases or repeats a key.
    """
    source = str(path)
    if not path.is_file():
        raise SweepError(source, [Problem("", _absent(path))])
    if path.stat().st_size > MAX_BYTES:
        raise SweepError(
            source, [Problem("", f"{path.stat().st_size} bytes; a sweep file has at most {MAX_BYTES}")]
        )
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise SweepError(
            source, [Problem("", f"not UTF-8 text (byte {error.start}): save it as UTF-8")]
        ) from None
    except OSError as error:
        raise SweepError(source, [Problem("", f"cannot be read: {error.strerror}")]) from None
    values, lines = _parse(source, text)
    if not isinstance(values, dict):
        kind = "empty" if values is None else f"a {type(values).__name__}"
        raise SweepError(
            source, [Problem("", f"the file is {kind}; `harness init` writes one to start from")]
        )
    return SweepFile(source, values, lines)


def _parse(source: str, text: str) -> tuple[Any, dict[Location, int]]:
    yaml = YAML(typ="rt", pure=True)
    try:
        # Aliases can make 300 bytes hang every later walk, and a sweep file needs none.
        for event in YAML(typ="safe", pure=True).parse(StringIO(text)):
            if isinstance(event, AliasEvent):
                line = event.start_mark.line + 1
                raise SweepError(
                    source, [Problem("", f"the alias *{event.anchor} is not allowed: write it out", line)]
                )
        loaded = yaml.load(StringIO(text))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        problem = str(error.problem or error.context or "not YAML").split("\n")[0]
        raise SweepError(source, [Problem("", f"not valid YAML: {problem}", line)]) from None
    except (YAMLError, ValueError, RecursionError, AttributeError) as error:
        if isinstance(error, SweepError):
            raise
        raise SweepError(
            source, [Problem("", f"not valid YAML: {str(error).splitlines()[0][:200]}")]
        ) from None
    lines: dict[Location, int] = {}
    return _plain(source, loaded, (), lines), lines


def _plain(source: str, value: Any, location: Location, lines: dict[Location, int]) -> Any:
    """Strip ruamel's types, remember the lines, and allow only what JSON could say."""
    if len(location) > MAX_DEPTH:
        raise SweepError(source, [Problem(str(location[0]), f"nested more than {MAX_DEPTH} levels deep")])
    if isinstance(value, CommentedMap):
        plain: dict[str, Any] = {}
        for key in value:
            here = (*location, str(key))
            lines[here] = value.lc.key(key)[0] + 1
            plain[str(key)] = _plain(source, value[key], here, lines)
        return plain
    if isinstance(value, CommentedSeq):
        for index in range(len(value)):
            lines[(*location, index)] = value.lc.item(index)[0] + 1
        return [_plain(source, item, (*location, index), lines) for index, item in enumerate(value)]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if value is None:
        return None
    name = ".".join(str(part) for part in location)
    raise SweepError(
        source, [Problem(name, f"a {type(value).__name__} is not allowed here", lines.get(location))]
    )


def _absent(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path()
    names = sorted(found.name for found in folder.glob("*.y*ml"))
    near = nearest(path.name, names)
    if near:
        return f"no such file; did you mean {folder / near}?"
    return "no such file" + (f"; there is {', '.join(names[:8])}" if names else "; `harness init` writes one")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like the one given, or None."""
    matches = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return matches[0] if matches else None
