"""Trials as people see them: a summary of each, the best, and how many count against the budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.study.storage.trial_attributes import json_attribute

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class TrialSummary:
    """One trial as people see it.

    state : complete, pruned, failed, running, interrupted, duplicate, skipped (its front end has no file here) or
        abandoned (given up before it began)
    name : of its run, such as `007 mfcc epochs=8`; empty before it is started
    score : balanced accuracy on the validation windows; None before there is any
    epochs : how many were trained
    reason : why it was asked for, or ended as it did; mostly empty where it is complete
    values : what the search space gave it; config: the whole configuration as JSON
    outcome : what its worker wrote as it ended; empty before that
    fingerprint : of the configuration; empty where it never began
    """

    number: int
    state: str
    name: str
    score: float | None
    epochs: int
    reason: str
    values: Mapping[str, Any]
    outcome: Mapping[str, Any]
    config: Mapping[str, Any]
    fingerprint: str

    @property
    def label(self) -> str:
        """What messages call it: `trial 3`."""
        return f"trial {self.number}"

    @property
    def configuration(self) -> str:
        """What it is made of, in a line: a trial by its name, an ensemble by its members."""
        return self.name

    @property
    def members(self) -> tuple[TrialSummary, ...]:
        """The trials whose weights it is made of: itself; of an ensemble there are several."""
        return (self,)

    def as_json(self) -> dict[str, Any]:
        """The fields that `--json` prints."""
        return {
            "number": self.number,
            "state": self.state,
            "name": self.name,
            "score": self.score,
            "epochs": self.epochs,
            "reason": self.reason,
            "parameters": dict(self.values),
            "interval": self.outcome.get("interval"),
            "best_epoch": self.outcome.get("best_epoch"),
            "fingerprint": self.fingerprint,
        }


def summary_of(trial: FrozenTrial) -> TrialSummary:
    """Read a trial of Optuna as people see it: attributes of ours say more than Optuna's five states.

    A trial that waits in Optuna, and has begun, was interrupted: the next launch goes on with it.
    """
    attrs = trial.user_attrs
    states = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
    state = states.get(trial.state.name, "interrupted")
    state = "duplicate" if "duplicate_of" in attrs else attrs.get("state", state)
    outcome = json_attribute(attrs, "outcome")
    score = trial.value if trial.state.name == "COMPLETE" else attrs.get("score")
    return TrialSummary(
        number=trial.number,
        state=state,
        name=attrs.get("name", ""),
        score=outcome.get("score") if score is None else score,
        epochs=len(trial.intermediate_values) or outcome.get("epochs", 0),
        reason=attrs.get("reason", ""),
        values=attrs.get("values", {}),
        outcome=outcome,
        config=json_attribute(attrs, "config"),
        fingerprint=attrs.get("fingerprint", ""),
    )


def unexportable_reason(outcome: Mapping[str, Any]) -> str | None:
    """Why a trial's worker could not make one ONNX file of its network; None where it could.

    The outcome says `yes`, or `no: ` and the reason; trials from before the field were always exported.
    """
    said = str(outcome.get("promotable", "yes"))
    return None if said == "yes" else said


def spent(trials: list[TrialSummary]) -> int:
    """Trials that count against a budget: those that were started, each configuration once."""
    return sum(trial.state != "duplicate" and bool(trial.fingerprint) for trial in trials)


def best_of(trials: list[TrialSummary]) -> TrialSummary | None:
    """The complete trial of the highest score; of equals the first. None where nothing is complete."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.score is not None]
    return max(complete, key=lambda trial: (trial.score or 0.0, -trial.number), default=None)
