"""What a model must be to be promoted: the bounds of every guard, as data.

    policies/default.yaml      integrity guards refuse, quality guards warn
    policies/production.yaml   all refuse, confirmation required: what it leaves out is `default`'s

A file of one's own holds any part; the rest is `default`'s. It may tighten a bound of integrity, never loosen it.
Guards of plug-ins bring bounds of their own, which stand under `guards`; without any there is no such section.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from data.plugins import load_plugins
from harness.core.errors import InputError

LN2 = math.log(2)
POLICIES = ("default", "production")
FOLDER = Path(__file__).parent / "policies"


class PolicyError(InputError):
    """A policy that cannot be used; the message holds every mistake, each with its line."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class IntegrityBounds(_Section):
    """Bounds that always refuse; the limits of the fields are what keeps a policy from loosening them."""

    min_positive_rate: float = Field(ge=0.1, lt=0.5, description="Share of windows called 1, at least.")
    max_positive_rate: float = Field(gt=0.5, le=0.9, description="Share of windows called 1, at most.")
    min_recall: float = Field(ge=0.3, lt=1, description="Recall of each class on validation windows.")
    min_train_low: float = Field(
        ge=0.5, lt=1, description="Train balanced accuracy: its one-sided 95 % lower bound lies above this."
    )
    max_train_loss: float = Field(
        gt=0, le=LN2 - 0.02, description="Train cross-entropy in nats; a coin pays ln 2."
    )
    max_logit_difference: float = Field(
        gt=0, le=1e-4, description="ONNX against torch on real validation windows."
    )


class QualityBounds(_Section):
    """Bounds that warn or refuse, as `on_failure` says."""

    on_failure: Literal["warn", "refuse"] = Field(description="What a failed quality guard does.")
    min_gap: float = Field(ge=-1, le=0, description="Train - validation balanced accuracy, at least.")
    max_gap: float = Field(ge=0, le=1, description="Train - validation balanced accuracy, at most.")
    min_hard_gap: float = Field(
        ge=-1,
        le=0,
        description="A gap outside min_gap and max_gap fails below this, whatever its sampling error.",
    )
    max_hard_gap: float = Field(ge=0, le=1, description="The same above this.")
    min_test_low: float = Field(
        ge=0, lt=1, description="Test balanced accuracy: its one-sided 95 % lower bound lies above this."
    )
    min_clusters: int = Field(ge=1, description="Clusters (speakers, meeting groups) in the test.")
    max_ece: float = Field(ge=0, le=1, description="Expected calibration error on the test, at most.")
    warn_ece: float = Field(ge=0, le=1, description="Calibration error that is spoken of, and never refused.")
    certainty: float = Field(
        ge=0.5,
        lt=1,
        description="One-sided confidence with which gap and calibration error must lie outside to fail; what lies "
        "outside within its sampling error is only spoken of. 0.5 takes the bare numbers.",
    )


class LatencyBound(_Section):
    """P99 in milliseconds of one window on the device that the model is meant for."""

    device: Literal["cpu", "cuda"] = Field(
        description="Where the model will serve; the bound binds there alone."
    )
    max_p99_ms: float = Field(gt=0, description="P99 of one window, batch 1, one thread, in milliseconds.")


class ConfirmationRule(_Section):
    """Whether fresh seeds are required, and how much `harness confirm` trains."""

    required: bool = Field(description="Whether the configuration must have been retrained on fresh seeds.")
    finalists: int = Field(
        ge=1, le=50, description="Best configurations that are retrained, beside the baseline."
    )
    seeds: int = Field(ge=2, le=50, description="Fresh seeds of each.")


class ChampionRule(_Section):
    """What a challenger must show against the champion."""

    margin: float = Field(ge=0, le=0.5, description="Not worse than the champion by more than this ...")
    cheaper: float = Field(
        gt=0, lt=1, description="... is enough with this share fewer multiply-accumulates."
    )


class VariantTolerances(_Section):
    """Test accuracy, as a share, that a variant may lose against the canonical file."""

    fp16: float = Field(ge=0, le=1, description="Accuracy that the fp16 file may lose.")
    int8: float = Field(ge=0, le=1, description="Accuracy that the int8 file may lose.")


class Policy(_Section):
    """Every bound of a promotion."""

    name: str = Field(min_length=1, max_length=80, description="What evidence and card call the policy.")
    description: str = Field(default="", max_length=1000, description="In a sentence, what it asks for.")
    integrity: IntegrityBounds
    quality: QualityBounds
    latency: LatencyBound
    confirmation: ConfirmationRule
    champion: ChampionRule
    variants: VariantTolerances

    def differences_from(self, default: Policy) -> dict[str, dict[str, Any]]:
        """Each bound that is not `default`'s: `{"quality.max_ece": {"default": 0.1, "policy": 0.05}}`.

        A promotion's evidence states them, so that a policy of one's own is never taken for the shipped one.
        """
        own, usual = (policy.flat() for policy in (self, default))
        return {key: {"default": usual[key], "policy": own[key]} for key in own if own[key] != usual[key]}

    def flat(self) -> dict[str, Any]:
        """Every bound by its whole name, `quality.max_ece`, in plain JSON types."""
        values = self.model_dump(mode="json")
        sections = sections_of(type(self))
        return {f"{section}.{key}": value for section in sections for key, value in values[section].items()}

    def bound(self, bound: Bound) -> float:
        """A plug-in's bound as this policy has it; its default where the policy was read before the plug-in was."""
        return float(getattr(getattr(self, "guards", None), bound.name, bound.default))


def sections_of(kind: type[Policy]) -> dict[str, type[BaseModel]]:
    """The sections of a policy type by name: those of its fields that are models, `guards` too where there is one."""
    return {
        key: section
        for key, field in kind.model_fields.items()
        if isinstance(section := field.annotation, type) and issubclass(section, BaseModel)
    }


SECTIONS = sections_of(Policy)


@dataclass(frozen=True)
class Bound:
    """A number that comes with a plug-in's guard, `default` where a policy is silent.

    `ge` and `le` (None: no limit) are what a policy file may set it to, both included.
    """

    name: str
    default: float
    description: str
    ge: float | None = None
    le: float | None = None


GUARD_BOUNDS: dict[str, Bound] = {}


def add_bound(bound: Bound) -> None:
    """Let policies hold this bound, under `guards`; adding an equal one again does nothing.

    Raises
    ------
    PolicyError
        Another bound has this name.
    """
    known = GUARD_BOUNDS.setdefault(bound.name, bound)
    if known != bound:
        raise PolicyError(f"two guards bring another bound {bound.name!r} each: {known} and {bound}")


def policy_type() -> type[Policy]:
    """The type that policy files are read as: `Policy`, with a section `guards` where plug-ins brought bounds."""
    load_plugins()
    return _with(tuple(GUARD_BOUNDS.values()))


@cache
def _with(bounds: tuple[Bound, ...]) -> type[Policy]:
    if not bounds:
        return Policy
    fields: dict[str, Any] = {
        one.name: (float, Field(one.default, ge=one.ge, le=one.le, description=one.description))
        for one in bounds
    }
    section = create_model("GuardBounds", __base__=_Section, __doc__="Bounds of plug-ins' guards.", **fields)
    added: dict[str, Any] = {"guards": (section, section())}
    return create_model("Policy", __base__=Policy, __doc__=Policy.__doc__, **added)


def policy_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of policy files; nothing is required, what is left out is `default`'s."""
    kind = policy_type()
    schema = kind.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        part.pop("required", None)
    for section in sections_of(kind):  # a section may stand empty
        schema["properties"][section] = {"anyOf": [{"type": "null"}, schema["properties"][section]]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Policy file"}
