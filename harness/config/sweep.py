"""A sweep file as one typed value, strict, with every mistake named at once."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, field_validator

from data.config import DataConfig
from data.digests import digest_of
from harness.config.parameters import AnyScalar, Parameter
from harness.config.search_rules import PRUNERS, SAMPLERS, Pruner, Sampler, rule_of
from harness.config.trial.trial_config import ControlName

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def slug(text: str) -> str:
    """A study's name from any text, one that `NAME` admits: other characters become dashes; `sweep` for none left."""
    kept = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in text
    )
    return kept.strip("-._")[:80] or "sweep"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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
        description="Names the study and its MLflow experiment.",
        json_schema_extra={"pattern": f"^{NAME.pattern}$"},
    )
    description: str = Field(default="", max_length=4000, description="Shown in MLflow.")
    data: DataConfig = Field(default_factory=DataConfig, description="Corpus, task and windows.")
    parameters: dict[str, Parameter] = Field(
        default_factory=dict, description="What is searched, and fixed values."
    )
    sampler: Annotated[SerializeAsAny[Sampler], BeforeValidator(rule_of(SAMPLERS))] = Field(
        default_factory=Sampler
    )
    pruner: Annotated[SerializeAsAny[Pruner], BeforeValidator(rule_of(PRUNERS))] = Field(
        default_factory=Pruner
    )
    budget: Budget = Field(default_factory=Budget)
    controls: tuple[ControlName, ...] = Field(
        default=(),
        description="Negative controls: short trainings that must score chance, else the study is marked. unseen: "
        "classes of speakers never met; shuffled_labels: training labels permuted.",
        json_schema_extra={"uniqueItems": True},
    )
    baseline: dict[str, AnyScalar] = Field(
        default_factory=dict,
        description="Parameters of the configuration that finalists are held against by `harness confirm`. Default: "
        "each parameter's own default.",
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Of the sampler and of every training.")
    workers: int | None = Field(default=None, ge=1, le=256, description="Default: one a core, or a GPU slot.")
    stack: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Trials that a worker trains at once, as one network, at most: those that differ in learning_rate "
        "and weight_decay only. For a GPU that one small network leaves idle; numbers are equal up to rounding.",
    )

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError(
                f"{value[:100]!r} is no name for a study: letters, digits, '.', '_' and '-', the first a letter "
                f"or digit, 80 at most; for example {slug(value)}"
            )
        return value

    @field_validator("controls")
    @classmethod
    def _once_each(cls, value: tuple[ControlName, ...]) -> tuple[ControlName, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"a control is named twice: {', '.join(value)}; name it once")
        return value

    def digest(self) -> str:
        """Hex sha256 of what decides which trials are run; budget, workers, controls and baseline decide none.

        A study is continued under an equal digest only. Fields that came later are left out where they have the value
        that was true before them, so that older studies go on.
        """
        relevant = self.model_dump(
            mode="json",
            exclude={"name", "description", "budget", "controls", "baseline", "workers"},
            by_alias=True,
        )
        if self.pruner.type != "patient":  # studies from before there was patience go on
            del relevant["pruner"]["patience"]
        if self.stack == 1:  # and those from before there were stacks
            del relevant["stack"]
        return digest_of(relevant)
