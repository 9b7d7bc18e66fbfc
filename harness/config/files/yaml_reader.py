"""YAML 1.2 text -> plain values and the line of every key, from the parser's events alone.

Ruamel's loaders would do less and more: they fall back to YAML 1.1 where a file says so, follow aliases, merge
`<<`, build objects for tags, and need minutes for a few thousand open brackets.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError

MAX_DEPTH = 20
MAX_VALUES = 1_000  # keys and items; each may be a mistake that takes a moment to explain
MAX_DIGITS = 40
_REMEDY = "YAML does not allow: save the file as plain text in UTF-8"

Location = tuple[str | int, ...]

# The core schema of YAML 1.2 (10.3.2).
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"(true|True|TRUE)|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(?:inf|Inf|INF)")
_NAN = re.compile(r"\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Mistake:
    """What YAML 1.2, or our strict half of it, does not allow."""

    location: Location
    line: int | None
    message: str


@dataclass
class Document:
    """The values of a text, the line of every key, and what is wrong with it."""

    values: Any = None
    lines: dict[Location, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)


def parse_yaml(text: str) -> Document:
    """Parse one document; what is wrong with it is noted in it, and nothing is raised.

    A syntax error, more than 20 levels or more than 1,000 values end the reading; what can be read past is collected:
    aliases, tags, keys that stand twice.
    """
    document = Document()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of ruamel, about directives
            _Reader(text, document).read()
    except _TooMuchError as error:
        document.mistakes.append(Mistake(error.location[:1], error.line, str(error)))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        said = str(error.problem or error.context or "cannot be read").split("\n")[0]
        document.mistakes.append(Mistake((), line, f"not valid YAML: {said}"))
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        document.mistakes.append(
            Mistake((), line, f"holds the character U+{error.character:04X}, which {_REMEDY}")
        )
    except (YAMLError, ValueError, IndexError, AttributeError, AssertionError) as error:
        # The last ones are ruamel's own slips on hopeless text.
        said = (str(error).splitlines() or ["cannot be read"])[0][:200]
        document.mistakes.append(Mistake((), None, f"not valid YAML: {said}"))
    return document


class _TooMuchError(Exception):
    def __init__(self, location: Location, line: int, message: str) -> None:
        super().__init__(message)
        self.location, self.line = location, line


class _Reader:
    """Walks the events once; its depth is bounded, so that recursion is."""

    def __init__(self, text: str, document: Document) -> None:
        self._events = YAML(typ="safe", pure=True).parse(StringIO(text))
        self._document = document
        self._values = 0

    def read(self) -> None:
        next(self._events)  # the start of the stream
        if isinstance(next(self._events), StreamEndEvent):
            return
        self._document.values = self._node(next(self._events), ())
        next(self._events)  # the end of the document
        following = next(self._events)
        if isinstance(following, DocumentStartEvent):
            self._refuse((), following, "a second document begins here: a file holds one")

    def _node(self, event: Any, here: Location) -> Any:
        if len(here) > MAX_DEPTH:
            raise _TooMuchError(here, _line(event), f"nested more than {MAX_DEPTH} levels deep")
        self._values += 1
        if self._values > MAX_VALUES:
            raise _TooMuchError(
                here, _line(event), f"more than {MAX_VALUES} values; no sweep file has so many"
            )
        if isinstance(event, AliasEvent):
            # Aliases can make 300 bytes hang every later walk, and a sweep file needs none.
            self._refuse(here, event, f"the alias *{event.anchor} is not allowed: write it out")
            return None
        self._refuse_tag(here, event)
        if isinstance(event, MappingStartEvent):
            return self._mapping(here)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(here)
        assert isinstance(event, ScalarEvent)
        return self._scalar(event, here)

    def _mapping(self, here: Location) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._key(event, here)
            location = (*here, key)
            if key in values:
                first = self._document.lines[location]
                self._refuse(location, event, f"stands twice, here and in line {first}")
            else:
                self._document.lines[location] = _line(event)
            value = self._node(next(self._events), location)
            values.setdefault(key, value)
        return values

    def _key(self, event: Any, here: Location) -> str:
        if isinstance(event, ScalarEvent):
            self._refuse_tag(here, event)
            return self._text(event, here)
        self._refuse(here, event, "a key must be a plain name")
        self._node(event, (*here, "?"))
        return ""

    def _sequence(self, here: Location) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            location = (*here, len(values))
            self._document.lines[location] = _line(event)
            values.append(self._node(event, location))
        return values

    def _scalar(self, event: ScalarEvent, here: Location) -> Any:
        text = self._text(event, here)
        if not event.implicit[0]:  # quoted, or a block
            return text
        if _INT.fullmatch(text) and len(text) > MAX_DIGITS:
            self._refuse(here, event, f"a number of {len(text)} digits is not allowed")
            return None
        return plain_scalar(text)

    def _text(self, event: ScalarEvent, here: Location) -> str:
        text = str(event.value)
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            self._refuse(here, event, "holds a character that no text file can hold")
            return ""
        return text

    def _refuse_tag(self, here: Location, event: NodeEvent) -> None:
        tag = getattr(event, "ctag", None)
        if tag is not None:
            shown = str(tag).replace("tag:yaml.org,2002:", "!!")
            self._refuse(here, event, f"the tag {shown} is not allowed: write a plain value")

    def _refuse(self, here: Location, event: Any, message: str) -> None:
        self._document.mistakes.append(Mistake(here, _line(event), message))


def plain_scalar(text: str) -> str | int | float | bool | None:
    """What an unquoted word means in YAML 1.2: `1e-3` is a number; `yes`, `1_000` and dates are text."""
    if _NULL.fullmatch(text):
        return None
    if truth := _BOOL.fullmatch(text):
        return truth[1] is not None
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if infinite := _INFINITE.fullmatch(text):
        return float(infinite[1] + "inf")
    return float("nan") if _NAN.fullmatch(text) else text


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
