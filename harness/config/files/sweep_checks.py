"""Every mistake in the plain values of a sweep file, as a person would say it.

`problems_of` looks at the file as it is written: keys, types, names, every value by itself. Where that is right,
`space_problems` looks at the space that it describes: laws that bind several values, tried on corners and random sets.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter, ValidationError

from data.config import DataConfig
from harness.config.baseline import baseline_values
from harness.config.control_configs import control_config
from harness.config.files.messages import (
    SECTIONS,
    did_you_mean,
    message_of,
    shown,
    translated,
    where_it_belongs,
)
from harness.config.files.yaml_file import Location, Problem, YamlFile
from harness.config.parameters import Choice, Parameter, parameter_locations
from harness.config.search_space import DEFAULT_FEATURE, SearchSpace, Values
from harness.config.sweep import Sweep
from models.front_ends.config import FRONT_ENDS

MAX_CHECKED = 4_000
_ADAPTER: TypeAdapter[Any] = TypeAdapter(Parameter)


def filled(values: dict[str, Any]) -> dict[str, Any]:
    """The values without the sections that stand empty (`budget:` and nothing under it), which mean their defaults."""
    return {key: value for key, value in values.items() if key not in SECTIONS or value is not None}


def problems_of(file: YamlFile) -> list[Problem]:
    """What is wrong with a file as it is written, before any configuration of its space is built."""
    values = filled(file.values)
    problems = list(_parameter_problems(file, values.pop("parameters", {})))
    problems += _baseline_problems(file, values.get("baseline", {}))
    if isinstance(values.get("data"), dict):  # strict tuples refuse lists, and YAML knows only lists
        values["data"] = _tuples(values["data"])
    if isinstance(values.get("controls"), list):
        values["controls"] = tuple(values["controls"])
    try:
        Sweep.model_validate(values, strict=True)
    except ValidationError as error:
        details = error.errors()
        problems += [translated(file, detail) for detail in [*details, *_joint_errors(values, details)]]
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


def space_problems(file: YamlFile, sweep: Sweep) -> list[Problem]:
    """What is wrong with the space as a whole, so that no trial fails on its own definition.

    Tried are the corners of the front ends (the first 4,000) and 64 random sets of values. A law that many of them
    break is told once for each parameter; controls, baseline and warm-up are looked at in a space that is right.
    """
    try:
        space = SearchSpace(sweep)
        space.data_configs()
    except ValidationError as error:
        return [_joint_problem(file, sweep, {}, detail) for detail in error.errors()]
    except ValueError as error:
        detail = {"msg": str(error), "type": "value_error", "input": {}, "ctx": {"error": error}}
        return [_joint_problem(file, sweep, {}, detail)]
    problems = list(_grid_problems(file, space))
    checked = itertools.chain(itertools.islice(space.corners(), MAX_CHECKED), space.random_values(64))
    for values in checked:
        try:
            space.config(values)
        except ValidationError as error:
            problems += [_joint_problem(file, sweep, values, detail) for detail in error.errors()]
    return _first_of_each(problems) or [
        *_control_problems(file, space),
        *_baseline_space_problems(file, space),
        *_warmup_problems(file, space),
    ]


def _control_problems(file: YamlFile, space: SearchSpace) -> Iterator[Problem]:
    """Controls that cannot be made of this corpus; asked once the space itself is right."""
    for index, name in enumerate(space.sweep.controls):
        try:
            control_config(space, name)
        except ValidationError as error:
            reason = "; ".join(message_of(detail) for detail in error.errors())
        except ValueError as error:
            reason = str(error)
        else:
            continue
        yield file.problem(("controls", index), f"{name} cannot be made here ({reason}); leave it out")


def _warmup_problems(file: YamlFile, space: SearchSpace) -> Iterator[Problem]:
    """A warm-up that was written down, and that no trial outlives: nothing would ever be pruned."""
    given, pruner = file.values.get("pruner"), space.sweep.pruner
    epochs = space.parameters.get("epochs")
    own = [parameter_locations()["epochs"].default] if epochs is None or epochs.when else []
    longest = max([*own, *(epochs.candidates() if epochs is not None else [])])
    written = isinstance(given, dict) and "warmup_epochs" in given and pruner.type != "none"
    if written and pruner.warmup_epochs >= longest:
        yield file.problem(
            ("pruner", "warmup_epochs"),
            f"{pruner.warmup_epochs} epochs of warm-up, and no trial trains more than {longest}: none would ever be "
            "pruned; write fewer, or pruner: none",
        )


def _first_of_each(problems: list[Problem]) -> list[Problem]:
    """One example where many configurations break a law with the same parameter."""
    return list({problem.where: problem for problem in reversed(problems)}.values())


def _grid_problems(file: YamlFile, space: SearchSpace) -> Iterator[Problem]:
    if space.sweep.sampler.type != "grid" or space.combinations() is not None:
        return
    endless = [name for name, form in space.parameters.items() if form.size is None]
    if endless:
        reason = f"grid needs a step or a list of choices for {', '.join(endless)}"
    else:
        reason = "grid cannot walk so many combinations: search fewer parameters, or use tpe or random"
    yield file.problem(("sampler",), reason)


def _joint_problem(file: YamlFile, sweep: Sweep, values: Values, detail: Any) -> Problem:
    """A law that several values break together, at the first of its fields that is a parameter of this file."""
    if detail["type"] == "missing":  # of a front end, which stands in the file
        kind, field = detail["loc"][-2:]
        return file.problem(("parameters", f"{kind}.{field}"), f"is required where feature is {kind}")
    candidates = {
        parameter_locations()[name].field: name for name in reversed(list(values or sweep.parameters))
    }
    named = [candidates[field] for field in _fields_of(detail) if field in candidates]
    return file.problem(("parameters", *named[:1]), message_of(detail))


def _fields_of(detail: Any) -> tuple[str, ...]:
    """The fields that a broken law binds, as its error carries them (`FieldError`); none for pydantic's own errors."""
    return getattr(detail.get("ctx", {}).get("error"), "fields", ())


# The `parameters` section needs more than types.


def _parameter_problems(file: YamlFile, raw: Any) -> Iterator[Problem]:
    if not isinstance(raw, dict):
        yield file.problem(("parameters",), f"must be a mapping of names to values; got {shown(raw)}")
        return
    parsed: dict[str, Any] = {}
    for name, value in raw.items():
        here: Location = ("parameters", name)
        if name not in parameter_locations():
            yield file.problem(here, f"no such parameter{where_it_belongs(name, parameter_locations())}")
            continue
        try:
            parsed[name] = _ADAPTER.validate_python(value)
        except ValidationError as error:
            yield from (translated(file, detail, here) for detail in error.errors())
            continue
        yield from _value_problems(file, name, parsed[name])
    for name in parsed:
        yield from _condition_problems(file, name, raw, parsed)
    yield from _twice_problems(file, parsed)
    yield from _front_end_problems(file, parsed)


def _value_problems(file: YamlFile, name: str, parameter: Any) -> Iterator[Problem]:
    for index, value in enumerate(parameter.candidates()):
        here = (
            _candidate_location(file, name, index) if isinstance(parameter, Choice) else ("parameters", name)
        )
        yield from _single_value_problems(file, name, value, here)


def _single_value_problems(file: YamlFile, name: str, value: Any, here: Location) -> Iterator[Problem]:
    if name == "feature":
        if value not in FRONT_ENDS:
            yield file.problem(
                here, f"no front end is called {value!r}{did_you_mean(str(value), FRONT_ENDS)}"
            )
    elif name == "subset":
        yield from (file.problem(here, message) for message in _subset_problems(file, value))
    else:
        about = parameter_locations()[name].description.rstrip(".")
        for detail in parameter_locations()[name].errors(value):
            yield file.problem(here, f"{message_of(detail)} ({about})")


def _baseline_problems(file: YamlFile, raw: Any) -> Iterator[Problem]:
    """Names and values under `baseline:`, each by itself."""
    for name, value in raw.items() if isinstance(raw, dict) else ():
        if name not in parameter_locations():
            yield file.problem(
                ("baseline", name), f"no such parameter{did_you_mean(str(name), parameter_locations())}"
            )
        elif not isinstance(value, list | dict):  # told by the type of the section
            yield from _single_value_problems(file, name, value, ("baseline", name))


def _baseline_space_problems(file: YamlFile, space: SearchSpace) -> Iterator[Problem]:
    """What is wrong with the baseline as a configuration of this space; asked once the space itself is right."""
    given = space.sweep.baseline
    values = baseline_values(space, given)
    feature = values.get("feature", DEFAULT_FEATURE)
    strangers = [name for name in given if parameter_locations()[name].front_end not in (None, feature)]
    for name in strangers:
        yield file.problem(("baseline", name), f"feature is {feature} in the baseline")
    if strangers:
        return
    try:
        data = space.config(values).data
    except ValidationError as error:
        for detail in error.errors():
            named = [name for name in given if parameter_locations()[name].field in _fields_of(detail)]
            yield file.problem(("baseline", *named[:1]), message_of(detail))
        return
    if data.digest() not in {config.digest() for config in space.data_configs()}:
        named = [name for name in given if parameter_locations()[name].section == "data"]
        listed = ", ".join(named)
        yield file.problem(
            ("baseline", *named[:1]), f"{listed}: no trial has these data; give what is searched"
        )


def _candidate_location(file: YamlFile, name: str, index: int) -> Location:
    """Where one of the choices stands, which may be written with or without `choice:`."""
    for location in (("parameters", name, index), ("parameters", name, "choice", index)):
        if location in file.lines:
            return location
    return ("parameters", name)


def _subset_problems(file: YamlFile, value: Any) -> Iterator[str]:
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
        yield from (message_of(detail) for detail in error.errors())


def _condition_problems(
    file: YamlFile, name: str, raw: dict[str, Any], parsed: dict[str, Any]
) -> Iterator[Problem]:
    for parent, wanted in parsed[name].when.items():
        here: Location = ("parameters", name, "when", parent)
        if parent == name or parent not in raw:
            hint = did_you_mean(parent, [other for other in raw if other != name])
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


def _twice_problems(file: YamlFile, parsed: dict[str, Any]) -> Iterator[Problem]:
    """A value given under data and searched as well."""
    data = file.values.get("data")
    for name in parsed:
        if isinstance(data, dict) and name in data:
            message = f"stands under data too ({shown(data[name])}): keep one of the two"
            yield file.problem(("parameters", name), message)


def _front_end_problems(file: YamlFile, parsed: dict[str, Any]) -> Iterator[Problem]:
    """A front end's parameter is dead weight where that front end is never chosen."""
    feature = parsed.get("feature")
    chosen = feature.candidates() if feature is not None else [DEFAULT_FEATURE]
    if feature is not None and feature.when:
        chosen = [*chosen, DEFAULT_FEATURE]
    for name in parsed:
        kind = parameter_locations()[name].front_end
        if kind is not None and kind not in chosen:
            message = f"feature is never {kind} here ({', '.join(map(str, chosen))})"
            yield file.problem(("parameters", name), message)
