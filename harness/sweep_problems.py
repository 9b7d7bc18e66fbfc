"""Every mistake in the plain values of a sweep file, as a person would say it."""

from __future__ import annotations

import itertools
import json
import re
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from data.config import DataConfig
from harness.controls import control_config
from harness.parameters import FORMS, Choice, Parameter, places
from harness.search_space import DEFAULT_FEATURE, SearchSpace, Values
from harness.sweep import Sweep
from harness.sweep_file import Location, Problem, SweepFile, nearest
from models.front_ends import FRONT_ENDS

SECTIONS = ("data", "parameters", "sampler", "pruner", "budget", "controls")
MAX_CHECKED = 4_000
_ADAPTER: TypeAdapter[Any] = TypeAdapter(Parameter)


def filled(values: dict[str, Any]) -> dict[str, Any]:
    """The values without the sections that stand empty."""
    return {key: value for key, value in values.items() if key not in SECTIONS or value is not None}


def problems_of(file: SweepFile) -> list[Problem]:
    """What is wrong with a file as it is written, before any configuration of its space is built."""
    values = filled(file.values)
    problems = list(_parameter_problems(file, values.pop("parameters", {})))
    if isinstance(values.get("data"), dict):  # strict tuples refuse lists, and YAML knows only lists
        values["data"] = _tuples(values["data"])
    if isinstance(values.get("controls"), list):
        values["controls"] = tuple(values["controls"])
    try:
        Sweep.model_validate(values, strict=True)
    except ValidationError as error:
        details = error.errors()
        problems += [_translate(file, detail) for detail in [*details, *_joint_errors(values, details)]]
    return problems


def _joint_errors(values: dict[str, Any], details: list[Any]) -> list[Any]:
    """What is wrong with the rest of the data section: pydantic looks no further once a field is wrong."""
    wrong = {detail["loc"][1] for detail in details if detail["loc"][0] == "data" and len(detail["loc"]) > 1}
    if not wrong or wrong & {"corpus", "task", "parts"}:
        return []
    rest = {key: value for key, value in values["data"].items() if key not in wrong}
    try:
        Sweep.model_validate({"name": "x", "data": rest}, strict=True)
    except ValidationError as error:
        return list(error.errors())
    return []


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def space_problems(file: SweepFile, sweep: Sweep) -> list[Problem]:
    """What is wrong with the space as a whole, so that no trial fails on its own definition."""
    try:
        space = SearchSpace(sweep)
        space.data_configs()
    except ValidationError as error:
        return [_joint_problem(file, sweep, {}, detail) for detail in error.errors()]
    except ValueError as error:
        return [_joint_problem(file, sweep, {}, {"msg": str(error), "type": "value_error", "input": {}})]
    problems = list(_grid_problems(file, space))
    checked = itertools.chain(itertools.islice(space.corners(), MAX_CHECKED), space.draws(64))
    for values in checked:
        try:
            space.config(values)
        except ValidationError as error:
            problems += [_joint_problem(file, sweep, values, detail) for detail in error.errors()]
    return _first_of_each(problems) or list(_control_problems(file, space))


def _control_problems(file: SweepFile, space: SearchSpace) -> Iterator[Problem]:
    """Controls that cannot be made of this corpus; asked once the space itself is right."""
    for index, name in enumerate(space.sweep.controls):
        try:
            control_config(space, name)
        except ValidationError as error:
            reason = "; ".join(_message(detail) for detail in error.errors())
        except ValueError as error:
            reason = str(error)
        else:
            continue
        yield file.problem(("controls", index), f"{name} cannot be made here ({reason}); leave it out")


def _first_of_each(problems: list[Problem]) -> list[Problem]:
    """One example where many configurations break a law with the same parameter."""
    return list({problem.where: problem for problem in reversed(problems)}.values())


def _grid_problems(file: SweepFile, space: SearchSpace) -> Iterator[Problem]:
    if space.sweep.sampler.type != "grid" or space.combinations() is not None:
        return
    endless = [name for name, form in space.parameters.items() if form.size is None]
    if endless:
        reason = f"grid needs a step or a list of choices for {', '.join(endless)}"
    else:
        reason = "grid cannot walk so many combinations: search fewer parameters, or use tpe or random"
    yield file.problem(("sampler",), reason)


def _joint_problem(file: SweepFile, sweep: Sweep, values: Values, detail: Any) -> Problem:
    """A law that several values break together, at the first parameter that the message names."""
    if detail["type"] == "missing":  # of a front end, which stands in the file
        kind, field = detail["loc"][-2:]
        return file.problem(("parameters", f"{kind}.{field}"), f"is required where feature is {kind}")
    message = _message(detail)
    mentions = {
        found.start(): name
        for name in reversed(list(values or sweep.parameters))
        if (found := re.search(rf"\b{places()[name].field}\b", message))
    }
    location = ("parameters", mentions[min(mentions)]) if mentions else ("parameters",)
    return file.problem(location, message)


# The `parameters` section needs more than types.


def _parameter_problems(file: SweepFile, raw: Any) -> Iterator[Problem]:
    if not isinstance(raw, dict):
        yield file.problem(("parameters",), f"must be a mapping of names to values; got {_shown(raw)}")
        return
    parsed: dict[str, Any] = {}
    for name, value in raw.items():
        here: Location = ("parameters", name)
        if name not in places():
            yield file.problem(here, f"no such parameter{_where_it_belongs(name, places())}")
            continue
        try:
            parsed[name] = _ADAPTER.validate_python(value)
        except ValidationError as error:
            yield from (_translate(file, detail, here) for detail in error.errors())
            continue
        yield from _value_problems(file, name, parsed[name])
    for name in parsed:
        yield from _condition_problems(file, name, raw, parsed)
    yield from _twice_problems(file, parsed)
    yield from _front_end_problems(file, parsed)


def _value_problems(file: SweepFile, name: str, parameter: Any) -> Iterator[Problem]:
    for index, value in enumerate(parameter.candidates()):
        here = (
            _candidate_location(file, name, index) if isinstance(parameter, Choice) else ("parameters", name)
        )
        if name == "feature":
            if value not in FRONT_ENDS:
                yield file.problem(
                    here, f"no front end is called {value!r}{_did_you_mean(str(value), FRONT_ENDS)}"
                )
        elif name == "subset":
            yield from (file.problem(here, message) for message in _subset_problems(file, value))
        else:
            about = places()[name].description.rstrip(".")
            for detail in places()[name].errors(value):
                yield file.problem(here, f"{_message(detail)} ({about})")


def _candidate_location(file: SweepFile, name: str, index: int) -> Location:
    """Where one of the choices stands, which may be written with or without `choice:`."""
    for location in (("parameters", name, index), ("parameters", name, "choice", index)):
        if location in file.lines:
            return location
    return ("parameters", name)


def _subset_problems(file: SweepFile, value: Any) -> Iterator[str]:
    """Which subsets there are depends on the rest of the data section."""
    data = file.values.get("data") or {}
    rest = {key: inner for key, inner in data.items() if key != "subset"} if isinstance(data, dict) else {}
    try:
        DataConfig.model_validate(rest)
    except ValidationError:
        return  # told already
    try:
        DataConfig.model_validate({**rest, "subset": value})
    except ValidationError as error:
        yield from (_message(detail) for detail in error.errors())


def _condition_problems(
    file: SweepFile, name: str, raw: dict[str, Any], parsed: dict[str, Any]
) -> Iterator[Problem]:
    for parent, wanted in parsed[name].when.items():
        here: Location = ("parameters", name, "when", parent)
        if parent == name or parent not in raw:
            hint = _did_you_mean(parent, [other for other in raw if other != name])
            yield file.problem(here, f"is not another parameter of this file{hint}")
        elif parent not in parsed:
            continue  # it has mistakes of its own
        elif not hasattr(parsed[parent], "choice") and not hasattr(parsed[parent], "value"):
            yield file.problem(here, "is a range; a condition needs a parameter with choices")
        else:
            values = parsed[parent].candidates()
            for value in wanted if isinstance(wanted, list) else [wanted]:
                if value not in values:
                    listed = ", ".join(map(str, values))
                    yield file.problem(here, f"{value!r} is never a value of {parent} ({listed})")


def _twice_problems(file: SweepFile, parsed: dict[str, Any]) -> Iterator[Problem]:
    """A value given under data and searched as well."""
    data = file.values.get("data")
    for name in parsed:
        if isinstance(data, dict) and name in data:
            message = f"stands under data too ({_shown(data[name])}): keep one of the two"
            yield file.problem(("parameters", name), message)


def _front_end_problems(file: SweepFile, parsed: dict[str, Any]) -> Iterator[Problem]:
    """A front end's parameter is dead weight where that front end is never chosen."""
    feature = parsed.get("feature")
    chosen = feature.candidates() if feature is not None else [DEFAULT_FEATURE]
    if feature is not None and feature.when:
        chosen = [*chosen, DEFAULT_FEATURE]
    for name in parsed:
        kind = places()[name].front_end
        if kind is not None and kind not in chosen:
            message = f"feature is never {kind} here ({', '.join(map(str, chosen))})"
            yield file.problem(("parameters", name), message)


# Pydantic's errors as a person would say them.


def _translate(file: SweepFile, detail: Any, prefix: Location = ()) -> Problem:
    location = tuple(detail["loc"])
    if prefix and location and location[0] in FORMS:
        location = location[1:]  # the tag of the form, which stands in no file
        if location[:1] in (("choice",), ("value",)) and (*prefix, location[0]) not in file.lines:
            location = location[1:]  # written short
    location = (*prefix, *location)
    if detail["type"] == "extra_forbidden":
        name = str(location[-1])
        known = (*FORMS, "when", "step", "log") if prefix else _fields_at(location[:-1])
        return file.problem(location, f"no such key{_where_it_belongs(name, known)}")
    if detail["type"] == "missing":
        return file.problem(location, "is required and missing")
    message = _message(detail)
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


def _message(detail: Any) -> str:
    value = detail.get("input")
    kind = str(detail["type"])
    if kind == "literal_error" and isinstance(value, str):
        options = re.findall(r"'([^']+)'", detail["ctx"]["expected"])
        return f"no such value: {value!r}{_did_you_mean(value, options)}"
    plain = {
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
    message = plain.get(kind) or re.sub(r"^(Value error, |Input should)", "", detail["msg"]).strip()
    message = f"must {message}" if message.startswith("be ") else message
    message = message[:1].lower() + message[1:]
    aside = isinstance(value, BaseModel) or (isinstance(value, dict) and kind not in plain)
    return message if aside or repr(value) in message else f"{message}; got {_shown(value)}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)  # as YAML would write it
    return text if len(text) <= 80 else f"{text[:77]}..."


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


def _where_it_belongs(name: str, known: Iterable[str]) -> str:
    """A right key in the wrong place is told where it belongs; any other the nearest one."""
    options = list(known)
    if name in FRONT_ENDS:
        fields = [option for option in places() if option.startswith(f"{name}.")]
        return f"; the parameters of a front end are written {fields[0]}, one line each"
    if nearest(name, options) is None or name in places():
        if name in places():
            return f"; it belongs under parameters, as parameters.{name}"
        section = next((section for section in SECTIONS if name in _fields_at((section,))), None)
        if section is not None:
            return f"; it belongs under {section}, as {section}.{name}"
        if name in Sweep.model_fields:
            return "; it belongs at the top level"
    return _did_you_mean(name, options)


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    options = list(known)
    near = nearest(name, options)
    if near is not None:
        return f"; did you mean {near}?"
    listed = ", ".join(options[:12]) + (", ..." if len(options) > 12 else "")
    return f"; there is {listed}" if listed else ""
