"""A policy file, and every mistake in it as a person would say it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data.errors import nearest
from harness.config.files.messages import WORDS, did_you_mean, shown
from harness.config.files.yaml_file import (
    Location,
    Problem,
    UnreadableError,
    YamlFile,
    mistakes_of,
    read_yaml_file,
)
from harness.config.files.yaml_reader import Document
from harness.config.policy import FOLDER, POLICIES, Policy, PolicyError, policy_type, sections_of

MAX_BYTES = 65_536
KINDS = WORDS | {"string_too_short": "must not be empty"}


def read_policy_file(path: Path) -> YamlFile:
    """The plain values of a policy file, with the line of each.

    Raises
    ------
    PolicyError
        The file is absent, not UTF-8, too large, no mapping, or not the strict half of YAML 1.2.
    """
    document = _document(path)
    if document.mistakes:
        raise refusal(YamlFile(str(path), {}, document.lines), mistakes_of(document))
    values = {} if document.values is None else document.values  # all of `default`, under another name
    if not isinstance(values, dict):
        known = ", ".join(sections_of(policy_type()))
        raise PolicyError(f"{path}: a policy is a mapping of sections ({known}), not {shown(values)}")
    return YamlFile(str(path), values, document.lines)


def _document(path: Path) -> Document:
    try:
        if not path.is_file():
            raise PolicyError(_absent(path))
        return read_yaml_file(path, "policy", MAX_BYTES)
    except PolicyError:
        raise
    except UnreadableError as error:
        raise PolicyError(f"{path}: {error}") from None
    except OSError as error:
        raise PolicyError(f"policy {path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # of a name with NUL in it
        raise PolicyError(f"policy {str(path)!r}: {error}") from None


def _absent(path: Path) -> str:
    shipped = " and ".join(POLICIES)
    if path.is_dir():
        return f"policy {path} is a folder; name a YAML file in it, or one of {shipped}"
    folder = path.parent if path.parent.is_dir() else Path()
    files = [str(folder / found.name) for found in folder.glob("*.y*ml")] if path.suffix else []
    near = nearest(str(path), [*POLICIES, *files])
    hint = f"did you mean {near}?" if near else f"there is {shipped}, or give the path of a YAML file"
    return f"no policy and no file is called {str(path)!r}; {hint}"


def refusal(file: YamlFile, problems: Sequence[Problem]) -> PolicyError:
    """All mistakes of a file in one message, in the order of its lines."""
    count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
    ordered = sorted(problems, key=lambda one: (one.line or 0, one.where))
    return PolicyError("\n".join([f"{file.source}: {count}", *(f"  {one}" for one in ordered)]))


def name_problems(file: YamlFile, name: Any) -> list[Problem]:
    """Evidence that says `default` means the shipped policy, so no other file may be called that.

    Parameters
    ----------
    name : the policy's, which is its file's where the file gives none
    """
    if not isinstance(name, str):
        return []  # another mistake, which is told besides
    given = file.values.get("name") is not None
    if (name and not name.strip()) or not name.isprintable():
        return [file.problem(("name",), f"must be one line of printable characters; got {shown(name)}")]
    if name.strip().casefold() not in POLICIES:
        return []
    called = name.strip()
    taken = f"{called} is the name of a shipped policy; give yours a name of its own, or leave it out"
    if not given:
        taken = (
            f"the file's own name would call it {called}, which is the name of a shipped policy; add a `name:` of its "
            "own, or rename the file"
        )
    return [file.problem(("name",), taken)]


def problems_of(file: YamlFile, error: ValidationError) -> list[Problem]:
    """Every mistake that pydantic found in a file's values, each at its line.

    Parameters
    ----------
    error : of the file's values merged into `default`'s, which are right: so every mistake is the file's own
    """
    return [file.problem(tuple(one["loc"]), _said(tuple(one["loc"]), one)) for one in error.errors()]


def _said(location: Location, detail: Any) -> str:
    kind, value = str(detail["type"]), detail.get("input")
    if kind == "extra_forbidden":
        return f"no such key{_where_it_belongs(location)}"
    if kind == "literal_error":
        options = re.findall(r"'([^']+)'", detail["ctx"]["expected"])
        return f"no such value: {shown(value)}{did_you_mean(str(value), options)}"
    if location[0] == "integrity" and kind in ("greater_than_equal", "less_than_equal"):
        side, limit = ("at least", "ge") if kind == "greater_than_equal" else ("at most", "le")
        return (
            f"{shown(value)} would loosen a bound of integrity (it is {side} {detail['ctx'][limit]:.6g}): policies "
            "may tighten these bounds, never loosen them"
        )
    message = KINDS.get(kind) or re.sub(r"^Input should", "must", str(detail["msg"]))
    return f"{message[:1].lower()}{message[1:]}; got {shown(value)}"


def _where_it_belongs(location: Location) -> str:
    """The section of a right key in the wrong place; of any other the nearest name."""
    name, kind = str(location[-1]), policy_type()
    sections = sections_of(kind)
    home = [section for section, model in sections.items() if name in model.model_fields]
    if home:
        return f"; it belongs under {home[0]}, as {home[0]}.{name}"
    known = list((sections[str(location[0])] if len(location) > 1 else kind).model_fields)
    near = nearest(name, known)
    return f"; did you mean {near}?" if near else f"; there is {', '.join(known)}"


def load_policy(word: str) -> Policy:
    """`default`, `production`, or the policy in a YAML file.

    Raises
    ------
    PolicyError
        No such policy or file, or a file with mistakes: all of them, each with its line.
    """
    kind = policy_type()
    return _shipped(word, kind) if word in POLICIES else _read(Path(word), kind)


@cache
def _shipped(name: str, kind: type[Policy]) -> Policy:
    return _read(FOLDER / f"{name}.yaml", kind)


def _read(path: Path, kind: type[Policy]) -> Policy:
    file = read_policy_file(path)
    merged = _merged(file, kind)
    problems = name_problems(file, merged["name"]) if path.parent != FOLDER else []
    try:
        policy = kind.model_validate(merged)
    except ValidationError as error:
        raise refusal(file, [*problems, *problems_of(file, error)]) from None
    if problems:
        raise refusal(file, problems)
    return policy


def _merged(file: YamlFile, kind: type[Policy]) -> dict[str, Any]:
    """`default` with the file's keys in their places, section by section; name and description are its own."""
    path, own = Path(file.source), {key: value for key, value in file.values.items() if value is not None}
    if path == FOLDER / "default.yaml":
        return own
    usual, sections = _shipped("default", kind).model_dump(), sections_of(kind)
    merged: dict[str, Any] = {"name": path.stem, "description": ""}
    for key in (*sections, *own):
        value = own.get(key, {})
        merged[key] = {**usual[key], **value} if key in sections and isinstance(value, dict) else value
    return merged
