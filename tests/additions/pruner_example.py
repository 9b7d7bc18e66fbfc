"""A pruner in one file: a trial whose score is still low after its warm-up is stopped.

pruner: {type: threshold, lower: 0.6, warmup_epochs: 2}
"""

from __future__ import annotations

from typing import ClassVar

from optuna.pruners import BasePruner, ThresholdPruner
from pydantic import Field

from harness.config.search_rules import PRUNERS, Pruner


class Threshold(Pruner):
    """Its fields, beside those that every pruner has."""

    builder: ClassVar[str] = "pruner_example:build"

    lower: float = Field(
        default=0.55, ge=0, le=1, description="Smoothed score below which a trial is stopped."
    )


def build(rule: Threshold, longest: int) -> BasePruner:
    """Make Optuna's pruner of the rule; the longest trial trains so many epochs."""
    del longest
    return ThresholdPruner(lower=rule.lower, n_warmup_steps=rule.warmup_epochs - 1)


PRUNERS["threshold"] = Threshold
