"""What a model must be to be promoted: the bounds of every guard, as data.

    harness/policies/default.yaml      integrity guards refuse, quality guards warn
    harness/policies/production.yaml   all refuse, confirmation required: what it leaves out is `default`'s
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

LN2 = math.log(2)
POLICIES = ("default", "production")
FOLDER = Path(__file__).parent / "policies"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class IntegrityBounds(_Section):
    """Bounds that always refuse; the limits of the fields are what keeps a policy from loosening them."""

    min_positive_rate: float = Field(ge=0.1, lt=0.5)
    max_positive_rate: float = Field(gt=0.5, le=0.9)
    min_recall: float = Field(ge=0.3, lt=1)
    min_train_low: float = Field(ge=0.5, lt=1)
    max_train_loss: float = Field(gt=0, le=0.6732)
    max_logit_difference: float = Field(gt=0, le=1e-4)


class QualityBounds(_Section):
    """Bounds that warn or refuse, as `on_failure` says."""

    on_failure: Literal["warn", "refuse"]
    min_gap: float = Field(ge=-1, le=0)
    max_gap: float = Field(ge=0, le=1)
    min_test_low: float = Field(ge=0, lt=1)
    min_clusters: int = Field(ge=1)
    max_ece: float = Field(ge=0, le=1)
    warn_ece: float = Field(ge=0, le=1)


class LatencyBound(_Section):
    """P99 in milliseconds of one window on the device that the model is meant for."""

    device: Literal["cpu", "cuda"]
    max_p99_ms: float = Field(gt=0)


class ConfirmationRule(_Section):
    """Whether fresh seeds are required, and how much `harness confirm` trains."""

    required: bool
    finalists: int = Field(ge=1, le=50)
    seeds: int = Field(ge=2, le=50)


class ChampionRule(_Section):
    """What a challenger must show against the champion."""

    margin: float = Field(ge=0, le=0.5)
    cheaper: float = Field(gt=0, lt=1)


class VariantTolerances(_Section):
    """Test accuracy, as a share, that a variant may lose against the canonical file."""

    fp16: float = Field(ge=0, le=1)
    int8: float = Field(ge=0, le=1)


class Policy(_Section):
    """Every bound of a promotion."""

    name: str = Field(min_length=1, max_length=80)
    description: str = Field(default="", max_length=1000)
    integrity: IntegrityBounds
    quality: QualityBounds
    latency: LatencyBound
    confirmation: ConfirmationRule
    champion: ChampionRule
    variants: VariantTolerances
