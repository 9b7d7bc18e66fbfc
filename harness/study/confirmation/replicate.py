"""A training on a fresh seed, as the trial that it repeats is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.study.confirmation.definition import ConfirmedConfig, ReplicateResult, key_of
from harness.study.study import Study
from harness.study.trials import TrialSummary


@dataclass(frozen=True)
class Replicate(TrialSummary):
    """A configuration trained on one fresh seed; it is read and promoted as a trial is.

    replicate : which seed, from 1 (0 is the sweep's own)
    key : what makes its run findable in MLflow (`Tracking.find`)
    number : of the trial that it repeats; -1 for the baseline, which may be no trial
    """

    replicate: int
    key: str

    @property
    def label(self) -> str:
        """What messages call it: `trial 3, seed 2`, or `baseline, seed 2`."""
        return f"{'baseline' if self.number < 0 else f'trial {self.number}'}, seed {self.replicate}"

    def as_json(self) -> dict[str, Any]:
        """The fields of a trial, its number null for the baseline, and `replicate`."""
        number = None if self.number < 0 else self.number
        return {**super().as_json(), "number": number, "replicate": self.replicate}


def replicate_of(study: Study, arm: ConfirmedConfig, replicate: int, result: ReplicateResult) -> Replicate:
    """A stored result as the trial that it repeats would be read."""
    return Replicate(
        number=-1 if arm.trial is None else arm.trial,
        state="failed" if result.reason else "complete",
        name=arm.name,
        score=result.outcome.get("score"),
        epochs=result.outcome.get("epochs", 0),
        reason=result.reason,
        values=arm.values,
        outcome=result.outcome,
        config=arm.config.model_dump(mode="json"),
        fingerprint=arm.fingerprint,
        replicate=replicate,
        key=key_of(study, arm.fingerprint, replicate),
    )
