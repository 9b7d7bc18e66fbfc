"""Pydantic's errors about a file, translated: its place in the file, and a sentence instead of the library's jargon."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterable
from functools import cache
from typing import Any

from pydantic import BaseModel

from data.errors import nearest
from harness.config.files.yaml_file import Location, Problem, YamlFile
from harness.config.parameters import FORMS, parameter_locations
from harness.config.sweep import Sweep
from models.front_ends.config import FRONT_ENDS

SECTIONS = ("data", "parameters", "sampler", "pruner", "budget", "controls", "baseline")
WORDS = {
    "model_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
}


def translated(file: YamlFile, detail: Any, prefix: Location = ()) -> Problem:
    """One of pydantic's errors as a problem at its place in the file.

    Parameters
    ----------
    detail : an entry of `ValidationError.errors()`: type, loc, msg, input, ctx
    prefix : where the validated value stands in the file; `(parameters, NAME)`, or () for the whole file
    """
    location = tuple(detail["loc"])
    if prefix and location and location[0] in FORMS:
        location = location[1:]  # the tag of the form, which stands in no file
        if location[:1] in (("choice",), ("value",)) and (*prefix, location[0]) not in file.lines:
            location = location[1:]  # written short
    location = (*prefix, *location)
    if detail["type"] == "extra_forbidden":
        name = str(location[-1])
        known = (*FORMS, "when", "step", "log") if prefix else _fields_at(location[:-1])
        return file.problem(location, f"no such key{where_it_belongs(name, known)}")
    if detail["type"] == "missing":
        return file.problem(location, "is required and missing")
    message = message_of(detail)
    if location[:2] == ("data", "parts") and location not in file.lines and location[:3] in file.lines:
        location = location[:3]  # one list for all three splits, which would be told three times
    if location == ("data",):
        location = _quoted_at(location, file.values["data"], message)
    return file.problem(location, message)


def _quoted_at(location: Location, values: Any, message: str) -> Location:
    """The key that holds the value which a law's message quotes."""
    quoted = re.search(r"'([^']+)'", message)
    for key, value in values.items() if quoted and isinstance(values, dict) else ():
        if quoted and (value == quoted[1] or (isinstance(value, list) and quoted[1] in value)):
            return (*location, key)
    return location


def message_of(detail: Any) -> str:
    """What one of pydantic's errors says, in one line without its place: "must be a whole number; got 'ten'"."""
    value = detail.get("input")
    kind = str(detail["type"])
    if kind == "literal_error" and isinstance(value, str):
        options = re.findall(r"'([^']+)'", detail["ctx"]["expected"])
        return f"no such value: {value!r}{did_you_mean(value, options)}"
    message = WORDS.get(kind) or re.sub(r"^(Value error, |Input should)", "", detail["msg"]).strip()
    message = f"must {message}" if message.startswith("be ") else message
    message = message[:1].lower() + message[1:]
    aside = isinstance(value, BaseModel) or (isinstance(value, dict) and kind not in WORDS)
    return message if aside or repr(value) in message else f"{message}; got {shown(value)}"


def shown(value: Any) -> str:
    """A value as it would stand in a YAML file, cut to 80 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)  # as YAML would write it
    return text if len(text) <= 80 else f"{text[:77]}..."


@cache
def _fields_at(location: Location) -> list[str]:
    model: Any = Sweep
    for part in location:
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or part not in model.model_fields:
            return []
        model = _model_in(model.model_fields[str(part)].annotation)
    return list(model.model_fields) if model is not None else []


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next(
        (found for inner in typing.get_args(annotation) if (found := _model_in(inner)) is not None), None
    )


def where_it_belongs(name: str, known: Iterable[str]) -> str:
    """The end of "no such key": where a right key in the wrong place belongs; for any other the nearest of `known`."""
    options = list(known)
    if name in FRONT_ENDS:
        fields = [option for option in parameter_locations() if option.startswith(f"{name}.")]
        return f"; the parameters of a front end are written {fields[0]}, one line each"
    near = nearest(name, options)
    if near is None or name in parameter_locations():
        if name in parameter_locations():
            return f"; it belongs under parameters, as parameters.{name}"
        section = next((section for section in SECTIONS if name in _fields_at((section,))), None)
        if section is not None:
            return f"; it belongs under {section}, as {section}.{name}"
        if name in Sweep.model_fields:
            return "; it belongs at the top level"
    return _hint(near, options)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of "no such ...": the nearest of the known names, else the first twelve; "" where there is none."""
    options = list(known)
    return _hint(nearest(name, options), options)


def _hint(near: str | None, options: list[str]) -> str:
    if near is not None:
        return f"; did you mean {near}?"
    listed = ", ".join(options[:12]) + (", ..." if len(options) > 12 else "")
    return f"; there is {listed}" if listed else ""
