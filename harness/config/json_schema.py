"""The JSON Schema of sweep files (draft 2020-12), with every parameter by name, for editors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter

from data.plugins import load_plugins
from harness.config.parameters import FORMS, Parameter, parameter_locations
from harness.config.search_rules import PRUNERS, SAMPLERS
from harness.config.sweep import Sweep
from models.front_ends.config import FRONT_ENDS

_SCALAR = {"type": ["string", "number", "boolean", "null"]}


def json_schema() -> dict[str, Any]:
    """The schema of sweep files, with the parameters, samplers and pruners that plug-ins add.

    Law: a file that the schema refuses, the harness refuses too. The converse does not hold: laws that bind several
    values have no place in a schema.
    """
    load_plugins()
    schema = Sweep.model_json_schema(by_alias=True)
    forms = TypeAdapter[Any](Parameter).json_schema(by_alias=True, ref_template="#/$defs/{model}")
    schema["$defs"] |= forms.pop("$defs", {})
    for name, form in zip(("Fixed", "Choice", "IntRange", "FloatRange"), FORMS, strict=True):
        schema["$defs"][name]["required"] = [form]
    schema["$defs"]["Parameter"] = {
        "anyOf": [_SCALAR, {"type": "array", "items": _SCALAR, "minItems": 1}, forms]
    }
    properties = schema["properties"]
    properties["parameters"] = {**properties["parameters"], **_parameters()}
    properties["baseline"] |= {
        "properties": dict.fromkeys(parameter_locations(), _SCALAR),
        "additionalProperties": False,
    }
    properties["sampler"] = _named_section("Sampler", SAMPLERS)
    properties["pruner"] = _named_section("Pruner", PRUNERS)
    parts = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    schema["$defs"]["Parts"] = {"anyOf": [{"type": "string"}, parts, schema["$defs"]["Parts"]]}
    # A section may stand empty.
    for section in ("data", "parameters", "sampler", "pruner", "budget", "controls", "baseline"):
        properties[section] = {
            "description": properties[section].get("description", section),
            "anyOf": [{"type": "null"}, properties[section]],
        }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Sweep file"}


def _parameters() -> dict[str, Any]:
    properties: dict[str, Any] = {
        name: {"$ref": "#/$defs/Parameter", "description": place.description}
        for name, place in parameter_locations().items()
    }
    kinds = {"enum": list(FRONT_ENDS)}
    either = [kinds, {"type": "array", "items": kinds, "minItems": 1}, {"type": "object"}]
    properties["feature"] = {**properties["feature"], "anyOf": either}
    return {
        "type": "object",
        "additionalProperties": False,
        "description": "What is searched: a value, a list of choices, {int: [low, high]} or "
        "{float: [low, high]}.",
        "properties": properties,
    }


def _named_section(base: str, rules: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """The rules by name or with the base's fields, and those of plug-ins with their own."""
    kinds = dict.fromkeys(rules.values())
    described = next(kind for kind in kinds if kind.__name__ == base)
    added = [kind.model_json_schema() for kind in kinds if kind is not described]
    return {
        "anyOf": [{"enum": list(rules)}, {"$ref": f"#/$defs/{base}"}, *added],
        "description": (described.__doc__ or "").strip(),
    }
