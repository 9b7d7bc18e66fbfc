"""Negative controls of a study: cheap trainings whose true score is chance, and what they were judged.

    unseen            task pseudo, variant unseen, on the study's corpus and subset: the class of a speaker
                      nobody met is a coin toss, so whoever scores has heard the answer somewhere
    shuffled_labels   the study's own data and task, training labels permuted, validation labels true:
                      whoever scores has seen the validation windows, or is told their labels

A control is judged on the validation windows of its *last* epoch, fixed beforehand: the best of several
epochs would be chosen on the very windows that judge it. It is broken where the one-sided 99.9 % lower
bound of its score exceeds .5, and says nothing with fewer than 10 clusters.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from harness.config.control_configs import CONTROLS
from harness.config.trial.trial_config import ControlName
from harness.metrics.chance_level import ChanceTestResult, ChanceVerdict

if TYPE_CHECKING:
    from harness.study.study import Study


@dataclass(frozen=True)
class Control:
    """A control that was trained, or that could not be: then it has no judgement and a reason."""

    name: ControlName
    judgement: ChanceTestResult | None
    reason: str = ""
    fingerprint: str = ""

    @property
    def verdict(self) -> ChanceVerdict:
        """What the study is told; a control that failed says nothing."""
        return self.judgement.verdict if self.judgement else "uninformative"

    def __str__(self) -> str:
        if self.judgement is None:
            return f"control {self.name}: uninformative: {self.reason}"
        if self.verdict == "broken":
            return (
                f"BROKEN CONTROL {self.name}: it scores {self.judgement.numbers} where nothing can be learnt. "
                "Something leaks: trust no score of this study"
            )
        few = "; fewer than 10 clusters say nothing" if self.verdict == "uninformative" else ""
        return f"control {self.name}: {self.verdict}: {self.judgement.numbers}{few}"

    def as_json(self) -> dict[str, Any]:
        """The fields that `--json` prints: name, verdict, value, low, windows, clusters, reason, fingerprint."""
        judgement = asdict(self.judgement) if self.judgement else {}
        numbers = {key: judgement.get(key) for key in ("value", "low", "windows", "clusters")}
        about = {"reason": self.reason, "fingerprint": self.fingerprint}
        return {"name": self.name, "verdict": self.verdict, **numbers, **about}


def controls_of(study: Study) -> list[Control]:
    """The controls of a study that have ended. A verdict stays, also where the sweep no longer asks for it."""
    stored: dict[str, dict[str, Any]] = study.optuna_study.user_attrs.get("controls", {})
    return [_from_json(name, stored[name]) for name in CONTROLS if name in stored]


def keep_control(study: Study, control: Control) -> None:
    """Keep a control's verdict with the study, in place of an earlier one of its name."""
    stored = {one.name: one.as_json() for one in [*controls_of(study), control]}
    study.optuna_study.set_user_attr("controls", stored)


def controls_left(study: Study) -> list[ControlName]:
    """Controls that the sweep asks for and that were not judged yet: those that failed are tried again."""
    judged = {control.name for control in controls_of(study) if control.judgement is not None}
    return [name for name in CONTROLS if name in study.sweep.controls and name not in judged]


def _from_json(name: ControlName, stored: dict[str, Any]) -> Control:
    judgement = None
    if stored["value"] is not None:
        judgement = ChanceTestResult(
            **{key: stored[key] for key in ("verdict", "value", "low", "windows", "clusters")}
        )
    return Control(name, judgement, stored["reason"], stored["fingerprint"])
