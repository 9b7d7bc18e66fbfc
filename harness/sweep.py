"""A sweep file as one typed value, strict, with every mistake named at once."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from data.config import DataConfig
from data.digests import digest_of
from harness.parameters import Choice, Parameter, places
from harness.sweep_file import Location, Problem, SweepError, SweepFile, nearest, read_sweep_file
from models.front_ends import FRONT_ENDS


def _named(raw: Any) -> Any:
    """`sampler: tpe` is short for `sampler: {type: tpe}`."""
    return {"type": raw} if isinstance(raw, str) else raw


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sampler(_Section):
    """How the next configuration is chosen."""

    type: Literal["tpe", "random", "grid"] = Field(
        default="tpe", description="tpe learns from finished trials; grid walks every combination once."
    )
    startup_trials: int = Field(default=10, ge=1, description="Random trials before TPE begins to learn.")


class Pruner(_Section):
    """Which trials are stopped early; it sees the median of the last three epochs, never one epoch."""

    type: Literal["median", "hyperband", "none"] = Field(default="median", description="The rule.")
    startup_trials: int = Field(
        default=5, ge=0, description="Trials that finish before any is pruned (median)."
    )
    warmup_epochs: int = Field(
        default=3, ge=1, description="Epochs every trial may train before it is judged."
    )
    reduction_factor: int = Field(
        default=3, ge=2, description="Share kept at each rung is 1 in this (hyperband)."
    )


class Budget(_Section):
    """When a study has had enough."""

    trials: int = Field(default=20, ge=1, le=100_000, description="Trials in total, over all launches.")
    hours: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="No trial starts after this much time in one launch.",
    )


class Sweep(_Section):
    """The definition of a study: what is fixed, what is searched, how, and how much of it."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$", description="Names the study and its MLflow experiment."
    )
    description: str = Field(default="", max_length=4000, description="Shown in MLflow.")
    data: DataConfig = Field(default_factory=DataConfig, description="Corpus, task and windows.")
    parameters: dict[str, Parameter] = Field(
        default_factory=dict, description="What is searched, and fixed values."
    )
    sampler: Annotated[Sampler, BeforeValidator(_named)] = Field(default_factory=Sampler)
    pruner: Annotated[Pruner, BeforeValidator(_named)] = Field(default_factory=Pruner)
    budget: Budget = Field(default_factory=Budget)
    seed: int = Field(default=0, ge=0, lt=2**31, description="Of the sampler and of every training.")
    workers: int | None = Field(default=None, ge=1, le=256, description="Default: one a core, or a GPU slot.")

    def digest(self) -> str:
        """Hex sha256 of what decides which trials are run; the budget and the workers are left out."""
        relevant = self.model_dump(
            mode="json", exclude={"name", "description", "budget", "workers"}, by_alias=True
        )
        return digest_of(relevant)


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read, override and check a sweep file.

    Raises
    ------
    SweepError
        With every mistake found, each with its line, its value and the nearest right name.
    """
    file = read_sweep_file(path)
    file.override(overrides)
    return sweep_from(file)


def sweep_from(file: SweepFile) -> Sweep:
    """The typed sweep of a file's plain values; SweepError with every mistake otherwise."""
    problems = list(_parameter_problems(file))
    values = {key: value for key, value in file.values.items() if key != "parameters"}
    try:
        Sweep.model_validate(values)
    except ValidationError as error:
        problems += [_translate(file, detail) for detail in error.errors()]
    if problems:
        raise SweepError(
            file.source, sorted(problems, key=lambda problem: (problem.line or 0, problem.where))
        )
    sweep = Sweep.model_validate(file.values)
    _check_space(file, sweep)
    return sweep


def _check_space(file: SweepFile, sweep: Sweep) -> None:
    """Build configurations of the space, so that no trial fails on its own definition."""
    from harness.search_space import SearchSpace

    try:
        space = SearchSpace(sweep)
        space.data_configs()
        space.samples(64)
    except ValidationError as error:
        problems = []
        for detail in error.errors():
            message = _message(detail)
            name = next((n for n in sweep.parameters if str(n) in message.split(":")[0]), "")
            problems.append(file.problem(("parameters", name) if name else ("parameters",), message))
        raise SweepError(file.source, problems) from None
    except ValueError as error:
        raise SweepError(file.source, [file.problem(("parameters",), str(error))]) from None


def _parameter_problems(file: SweepFile) -> Iterator[Problem]:
    """Mistakes of the `parameters` section, which need more than types to find."""
    raw = file.values.get("parameters")
    if raw is None:
        return
    if not isinstance(raw, dict):
        yield file.problem(("parameters",), f"must be a mapping of names to values, not {raw!r}")
        return
    known = places()
    adapter: TypeAdapter[Any] = TypeAdapter(Parameter)
    parsed: dict[str, Any] = {}
    for name, value in raw.items():
        here: Location = ("parameters", name)
        if name not in known:
            yield file.problem(here, f"no such parameter{_did_you_mean(name, known)}")
            continue
        try:
            parsed[name] = adapter.validate_python(value)
        except ValidationError as error:
            for detail in error.errors():
                yield _translate(file, detail, here)
            continue
        yield from _value_problems(file, here, name, parsed[name])
    for name, parameter in parsed.items():
        yield from _condition_problems(file, name, parameter.when, raw)
    data = file.values.get("data")
    if isinstance(data, dict):
        for name in raw:
            if name in data:
                yield file.problem(
                    ("parameters", name), f"stands under data too ({data[name]!r}): keep one of the two"
                )
    yield from _front_end_problems(file, parsed)


def _value_problems(file: SweepFile, here: Location, name: str, parameter: Any) -> Iterator[Problem]:
    place = places()[name]
    for index, value in enumerate(parameter.candidates()):
        if name == "feature" and value not in FRONT_ENDS:
            item = (*here, index) if (*here, index) in file.lines else (*here, "choice", index)
            yield file.problem(
                item if isinstance(parameter, Choice) else here,
                f"no front end is called {value!r}{_did_you_mean(str(value), FRONT_ENDS)}",
            )
            continue
        if name == "subset":
            continue  # which subsets exist depends on the corpus; DataConfig checks them together
        try:
            place.check(value)
        except ValidationError as error:
            yield file.problem(here, f"{_message(error.errors()[0])} ({place.description.rstrip('.')})")


def _condition_problems(
    file: SweepFile, name: str, when: dict[str, Any], raw: dict[str, Any]
) -> Iterator[Problem]:
    for parent, wanted in when.items():
        here: Location = ("parameters", name, "when", parent)
        if parent == name or parent not in raw:
            hint = _did_you_mean(parent, [other for other in raw if other != name])
            yield file.problem(here, f"is not another parameter of this file{hint}")
            continue
        try:
            values = TypeAdapter[Any](Parameter).validate_python(raw[parent]).candidates()
        except ValidationError:
            continue
        if isinstance(raw[parent], dict) and not ({"choice", "value"} & set(raw[parent])):
            yield file.problem(here, "is a range; a condition needs a parameter with choices")
            continue
        for value in wanted if isinstance(wanted, list) else [wanted]:
            if value not in values:
                yield file.problem(
                    here, f"{value!r} is never a value of {parent} ({', '.join(map(str, values))})"
                )


def _front_end_problems(file: SweepFile, parsed: dict[str, Any]) -> Iterator[Problem]:
    """A front end's parameter is dead weight where that front end is never chosen."""
    chosen = parsed["feature"].candidates() if "feature" in parsed else ["mfcc"]
    for name in parsed:
        kind = places()[name].front_end
        if kind is not None and kind not in chosen:
            yield file.problem(
                ("parameters", name), f"feature is never {kind} here ({', '.join(map(str, chosen))})"
            )


def _translate(file: SweepFile, detail: Any, prefix: Location = ()) -> Problem:
    """One of pydantic's errors as a person would say it."""
    forms = ("value", "choice", "int", "float")
    location = tuple(
        part for part in detail["loc"] if not (prefix and part in forms and part == detail["loc"][0])
    )
    location = (*prefix, *location)
    if detail["type"] == "extra_forbidden":
        known = (*forms, "when", "step", "log") if prefix else _fields_at(location[:-1])
        return file.problem(location, f"no such key{_did_you_mean(str(location[-1]), known)}")
    if detail["type"] == "missing":
        return file.problem(location, "is required and missing")
    return file.problem(location, _message(detail))


def _message(detail: Any) -> str:
    message = re.sub(r"^Value error, ", "", detail["msg"])
    value = detail.get("input")
    shown = "" if isinstance(value, dict) or repr(value) in message else f"; got {value!r}"[:120]
    if detail["type"] == "literal_error" and isinstance(value, str):
        options = re.findall(r"'([^']+)'", detail["ctx"]["expected"])
        return f"no such value: {value!r}{_did_you_mean(value, options)}"
    return message[:1].lower() + message[1:] + shown


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


def _did_you_mean(name: str, known: Any) -> str:
    near = nearest(name, known)
    if near is not None:
        return f"; did you mean {near}?"
    listed = ", ".join(sorted(known)[:12])
    return f"; there is {listed}" if listed else ""


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a sweep file (draft 2020-12), with every parameter by name, for editors."""
    schema = Sweep.model_json_schema(by_alias=True)
    spec = TypeAdapter[Any](Parameter).json_schema(by_alias=True, ref_template="#/$defs/{model}")
    schema["$defs"] |= spec.pop("$defs", {})
    short = [{"type": ["string", "number", "boolean"]}, {"type": "array", "minItems": 1}]
    schema["$defs"]["Parameter"] = {"anyOf": [*short, spec]}
    schema["properties"]["parameters"] = {
        "type": "object",
        "additionalProperties": False,
        "description": "What is searched: a value, a list of choices, {int: [low, high]} or {float: [low, high]}.",
        "properties": {
            name: {"$ref": "#/$defs/Parameter", "description": place.description}
            for name, place in places().items()
        },
    }
    for section in ("sampler", "pruner"):
        schema["properties"][section] = {
            "anyOf": [{"type": "string"}, {"$ref": f"#/$defs/{section.capitalize()}"}],
            "description": schema["$defs"][section.capitalize()]["description"],
        }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Sweep file", **schema}
