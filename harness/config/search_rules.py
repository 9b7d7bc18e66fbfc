"""The samplers and pruners that a sweep file may name, with the fields of each.

A plug-in adds one: a class of its fields, and the function that makes Optuna's object of them.

    class Threshold(Pruner):
        builder: ClassVar[str] = "my_plugin:build"   # (rule, longest) -> optuna.pruners.BasePruner
        lower: float = Field(ge=0, le=1, description="...")

    PRUNERS["threshold"] = Threshold
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, TypeAdapter

from data.plugins import load_plugins

SAMPLERS: dict[str, type[Sampler]] = {}
PRUNERS: dict[str, type[Pruner]] = {}


@dataclass(frozen=True)
class _NamesOf:
    """Describes a registry's names as a `Literal` of them; plug-ins may add to it at any time."""

    registry: Mapping[str, Any]

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"enum": list(self.registry), "type": "string"}


def _name_in(registry: Mapping[str, Any]) -> PlainValidator:
    def known(value: Any) -> Any:
        literal: Any = Literal
        return TypeAdapter(literal[tuple(registry)]).validate_python(value)

    return PlainValidator(known)


class _Rule(BaseModel):
    """Fields of a plug-in are numbers, words and booleans: they are read strictly, from YAML and from a record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Sampler(_Rule):
    """How the next configuration is chosen."""

    # module:function, (rule, seed, workers, storage) -> optuna.samplers.BaseSampler; one is made for each trial.
    builder: ClassVar[str] = "harness.study.sampling.samplers:optuna_sampler"

    type: Annotated[str, _name_in(SAMPLERS), _NamesOf(SAMPLERS)] = Field(
        default="tpe",
        description=(
            "tpe learns from finished trials (beyond 1,000: from the best and a sample); "
            "grid walks every combination once."
        ),
    )
    startup_trials: int = Field(default=10, ge=1, description="Random trials before TPE begins to learn.")


class Pruner(_Rule):
    """Which trials are stopped early; it sees the median of the last three epochs, never one epoch."""

    # module:function, (rule, epochs of the longest trial) -> optuna.pruners.BasePruner
    builder: ClassVar[str] = "harness.study.sampling.samplers:optuna_pruner"

    type: Annotated[str, _name_in(PRUNERS), _NamesOf(PRUNERS)] = Field(
        default="median",
        description="The rule. patient: median, for trials that have stopped improving. halving: 1 trial in "
        "reduction_factor goes on from rung to rung, the first after the warm-up; hyperband: several such brackets.",
    )
    startup_trials: int = Field(
        default=5, ge=0, description="Trials that finish before any is pruned (median, patient)."
    )
    warmup_epochs: int = Field(
        default=3, ge=1, description="Epochs every trial may train before it is judged."
    )
    reduction_factor: int = Field(
        default=3, ge=2, description="Share kept at each rung is 1 in this (halving, hyperband)."
    )
    patience: int = Field(
        default=2, ge=0, description="Epochs without a new best that a trial is forgiven (patient)."
    )


SAMPLERS.update(dict.fromkeys(("tpe", "random", "grid"), Sampler))
PRUNERS.update(dict.fromkeys(("median", "patient", "halving", "hyperband", "none"), Pruner))


def rule_of(registry: Mapping[str, type[_Rule]]) -> Callable[[Any], Any]:
    """Make the validator that reads a sweep file's `sampler:` or `pruner:`.

    `sampler: tpe` is short for `sampler: {type: tpe}`. A rule that a plug-in brought is read, strictly, as its own
    class; the shipped ones are left to the field's own type, whose errors name their places in the file.
    """

    def read(raw: Any) -> Any:
        load_plugins()
        raw = {"type": raw} if isinstance(raw, str) else raw
        name = raw.get("type") if isinstance(raw, dict) else None
        rule = registry.get(name) if isinstance(name, str) else None
        return raw if rule in (None, Sampler, Pruner) else rule.model_validate(raw, strict=True)

    return read
