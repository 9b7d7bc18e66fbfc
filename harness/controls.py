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

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from data.config import DataConfig
from harness.cost import SAMPLES, window_macs
from harness.trial_config import ControlName, TrialConfig, derived_seed

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from harness.search_space import SearchSpace
    from harness.study import Study

CONTROLS: tuple[ControlName, ...] = get_args(ControlName)
# One training a control, and a short one: what leaks is learnt as fast as a task is (7 epochs of 1,500 windows
# reach .94), and every further training would be a further chance of a false alarm.
EPOCHS = 5
WIDTH = 0.25
TRAIN_WINDOWS = 2_000  # of `unseen`, whose windows are prepared for it alone
LEVEL = 0.999
MEETINGS = ("ami", "ami_hub")
# Fields of the data section that mean nothing to `unseen`, or make its preparation dear.
_DROPPED = {"task", "variant", "evaluate_on", "pitch_semitones", "stretch", "voice_variants"}

Verdict = Literal["sound", "broken", "uninformative"]


@dataclass(frozen=True)
class Judgement:
    """A score that should be chance: its value, its one-sided 99.9 % lower bound, and what follows."""

    verdict: Verdict
    value: float
    low: float
    windows: int
    clusters: int

    @property
    def numbers(self) -> str:
        """The score with its bound and its evidence."""
        return f"{self.value:.3f}, 99.9 % lower bound {self.low:.3f} ({self.windows} windows, K = {self.clusters})"


@dataclass(frozen=True)
class Control:
    """A control that was trained, or that could not be: then it has no judgement and a reason."""

    name: ControlName
    judgement: Judgement | None
    reason: str = ""
    fingerprint: str = ""

    @property
    def verdict(self) -> Verdict:
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
        return {
            "name": self.name, "verdict": self.verdict, **numbers, "reason": self.reason,
            "fingerprint": self.fingerprint,
        }  # fmt: skip


def control_configs(space: SearchSpace) -> dict[ControlName, TrialConfig]:
    """The configuration of every control that the sweep asks for.

    Raises
    ------
    ValueError
        A control cannot be made of this corpus (pydantic's ValidationError is one).
    """
    return {name: control_config(space, name) for name in CONTROLS if name in space.sweep.controls}


def control_config(space: SearchSpace, name: ControlName) -> TrialConfig:
    """The cheapest front end that the space holds, a narrow network, default hyper-parameters, few epochs."""
    cheapest = min(space.samples(SAMPLES), key=window_macs)  # of equals the first
    model = {**cheapest.model.model_dump(), "width": min(WIDTH, cheapest.model.width)}
    choices = space.data_configs()
    return TrialConfig.model_validate({
        "data": (_unseen(choices) if name == "unseen" else choices[0]).model_dump(),
        "feature": cheapest.feature.model_dump(),
        "model": model,
        "training": {"epochs": EPOCHS},
        "control": name,
    })  # fmt: skip


def _unseen(choices: Sequence[DataConfig]) -> DataConfig:
    """Task pseudo, variant unseen on the first training subset that is no corpus of meetings."""
    data = next((one for one in choices if one.corpus_of(one.subset) not in MEETINGS), None)
    if data is None:
        raise ValueError(
            f"{choices[0].subset} holds meetings of several speakers, and classes are dealt to recordings of one"
        )
    kept = {key: value for key, value in data.model_dump().items() if key not in _DROPPED}
    kept["train_windows"] = min(TRAIN_WINDOWS, data.train_windows)
    return DataConfig.model_validate({**kept, "task": "pseudo", "variant": "unseen"})


def permuted_labels(labels: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """The labels (window,) in another order: both classes keep their counts, no window keeps its meaning."""
    import numpy as np

    generator = np.random.Generator(np.random.Philox(derived_seed("shuffled_labels", seed)))
    return labels[generator.permutation(len(labels))]


def judge(correct: npt.ArrayLike, clusters: Sequence[str]) -> Judgement:
    """Judge a score that should be chance.

    Parameters
    ----------
    correct : (window,) of 0 or 1, on windows of which half are of either class
    clusters : (window,) cluster names
    """
    from harness.statistics import clustered_interval

    interval = clustered_interval(correct, clusters, level=LEVEL, side="lower")
    verdict: Verdict = "broken" if interval.low > 0.5 else "sound"
    if interval.few_clusters:
        verdict = "uninformative"
    return Judgement(verdict, interval.value, interval.low, interval.windows, interval.clusters)


def controls_of(study: Study) -> list[Control]:
    """The controls of a study that have ended. A verdict stays, also where the sweep no longer asks for it."""
    stored: dict[str, dict[str, Any]] = study.optuna_study.user_attrs.get("controls", {})
    return [_from_json(name, stored[name]) for name in CONTROLS if name in stored]


def keep_control(study: Study, control: Control) -> None:
    """Mark the study with a control's verdict."""
    stored = {one.name: one.as_json() for one in [*controls_of(study), control]}
    study.optuna_study.set_user_attr("controls", stored)


def controls_left(study: Study) -> list[ControlName]:
    """Controls that the sweep asks for and that were not judged yet: those that failed are tried again."""
    judged = {control.name for control in controls_of(study) if control.judgement is not None}
    return [name for name in CONTROLS if name in study.sweep.controls and name not in judged]


def _from_json(name: ControlName, stored: dict[str, Any]) -> Control:
    judgement = None
    if stored["value"] is not None:
        judgement = Judgement(
            **{key: stored[key] for key in ("verdict", "value", "low", "windows", "clusters")}
        )
    return Control(name, judgement, stored["reason"], stored["fingerprint"])
