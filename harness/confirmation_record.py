"""A confirmation in Optuna's journal: what is confirmed, and how each training on a fresh seed ended.

A result is kept under its fingerprint and seed, an attribute each: whatever finalists and number of seeds are
asked for later, no training is repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.study import Study
from harness.trial_config import TrialConfig

# Tag `harness.kind` of a run on a fresh seed.
KIND = "confirmation"
ATTRIBUTE = "confirmation"


@dataclass(frozen=True)
class Arm:
    """A configuration that is trained on fresh seeds.

    trial, sweep_score, optimism : of the trial that it repeats; None for a baseline that is no finalist
    """

    name: str
    config: TrialConfig
    values: Mapping[str, Any]
    trial: int | None = None
    sweep_score: float | None = None
    optimism: float | None = None
    is_baseline: bool = False

    @property
    def label(self) -> str:
        """What messages call it: `trial 3`, or `baseline`."""
        return "baseline" if self.trial is None else f"trial {self.trial}"

    @cached_property
    def fingerprint(self) -> str:
        """Of its configuration."""
        return self.config.fingerprint()


@dataclass(frozen=True)
class Definition:
    """What is confirmed: finalists, best score first, with the baseline among them, on seeds 1 to `seeds`."""

    arms: tuple[Arm, ...]
    seeds: int

    def trainings(self) -> Iterator[tuple[Arm, int]]:
        """Every training, one seed of all arms after the other."""
        return ((arm, seed) for seed in range(1, self.seeds + 1) for arm in self.arms)

    def left(self, results: Results, *, again: bool = False) -> list[tuple[Arm, int]]:
        """The trainings that have not ended; with `again` also those to be tried once more."""
        ended = {place for place, result in results.items() if not (again and result.again)}
        return [(arm, seed) for arm, seed in self.trainings() if (arm.fingerprint, seed) not in ended]


@dataclass(frozen=True)
class Result:
    """How a training ended: with an outcome as a trial's, or a reason why it has no score.

    again : the machine was at fault, so the next `harness confirm` tries it again
    """

    outcome: Mapping[str, Any]
    reason: str = ""
    again: bool = False


# By fingerprint and seed.
Results = Mapping[tuple[str, int], Result]


def key_of(study: Study, fingerprint: str, replicate: int) -> str:
    """What makes a replicate's run findable in MLflow."""
    return f"{study.identity}/confirm/{fingerprint[:16]}/{replicate}"


def folder_of(fingerprint: str, replicate: int) -> str:
    """Name of a replicate's folder in the spool."""
    return f"confirm-{fingerprint[:16]}-{replicate}"


def definition_of(study: Study) -> Definition | None:
    """What the last `harness confirm` of the study set out to do."""
    stored = study.optuna_study.user_attrs.get(ATTRIBUTE)
    if stored is None:
        return None
    arms = [Arm(**{**arm, "config": TrialConfig.model_validate(arm["config"])}) for arm in stored["arms"]]
    return Definition(tuple(arms), stored["seeds"])


def keep_definition(study: Study, arms: Sequence[Arm], seeds: int) -> Definition:
    """Remember what is confirmed; call it under the study's lock."""
    rows = [
        {
            "name": arm.name, "config": arm.config.model_dump(mode="json"), "values": dict(arm.values),
            "trial": arm.trial, "sweep_score": arm.sweep_score, "optimism": arm.optimism,
            "is_baseline": arm.is_baseline,
        }
        for arm in arms
    ]  # fmt: skip
    stored = {"arms": rows, "seeds": seeds}
    if study.optuna_study.user_attrs.get(ATTRIBUTE) != stored:
        study.optuna_study.set_user_attr(ATTRIBUTE, stored)
    return Definition(tuple(arms), seeds)


def results_of(study: Study) -> Results:
    """How every training on a fresh seed ended that was ever asked for."""
    found = {}
    for name, stored in study.optuna_study.user_attrs.items():
        if name.startswith(f"{ATTRIBUTE}/"):
            _, fingerprint, replicate = name.split("/")
            found[fingerprint, int(replicate)] = Result(**stored)
    return found


def keep_result(study: Study, fingerprint: str, replicate: int, result: Result) -> None:
    """Remember how a training ended; call it under the study's lock."""
    row = {"outcome": dict(result.outcome), "reason": result.reason, "again": result.again}
    study.optuna_study.set_user_attr(f"{ATTRIBUTE}/{fingerprint}/{replicate}", row)
