"""A confirmation in Optuna's journal: what is confirmed, and how each training on a fresh seed ended.

A result is kept under its fingerprint and seed, an attribute each: whatever finalists and number of seeds are
asked for later, no training is repeated. What is set out to do is kept apart for the study's own confirmation and for
that of each trial that was named, and beside it the last one of its kind that named a winner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.config.trial.trial_config import TrialConfig
from harness.study.study import Study

# Tag `harness.kind` of a run on a fresh seed.
KIND = "confirmation"
ATTRIBUTE = "confirmation"


@dataclass(frozen=True)
class ConfirmedConfig:
    """A configuration that is trained on fresh seeds.

    trial, sweep_score, optimism : of the trial that it repeats; None for a baseline that is no complete trial
    is_added : whether it is here as the baseline alone, and no finalist by its score
    """

    name: str
    config: TrialConfig
    values: Mapping[str, Any]
    trial: int | None = None
    sweep_score: float | None = None
    optimism: float | None = None
    is_baseline: bool = False
    is_added: bool = False

    @property
    def label(self) -> str:
        """What messages call it: `trial 3`, or `baseline`."""
        return "baseline" if self.trial is None else f"trial {self.trial}"

    @cached_property
    def fingerprint(self) -> str:
        """Of its configuration."""
        return self.config.fingerprint()


@dataclass(frozen=True)
class ConfirmationDefinition:
    """What is confirmed: finalists, best score first, with the baseline among them, on seeds 1 to `seeds`.

    named : whether somebody named the finalist, so that it is the only one and the first of the arms
    known : numbers of the trials that were complete then; None where a version before the field asked
    """

    arms: tuple[ConfirmedConfig, ...]
    seeds: int
    named: bool = False
    known: tuple[int, ...] | None = None

    @property
    def run(self) -> int | None:
        """Number of the trial that was named."""
        return self.arms[0].trial if self.named else None

    def trainings(self) -> Iterator[tuple[ConfirmedConfig, int]]:
        """Every training, one seed of all arms after the other."""
        return ((arm, seed) for seed in range(1, self.seeds + 1) for arm in self.arms)

    def unfinished_trainings(
        self, results: Results, *, again: bool = False
    ) -> list[tuple[ConfirmedConfig, int]]:
        """The trainings that have not ended; with `again` also those to be tried once more."""
        ended = {place for place, result in results.items() if not (again and result.again)}
        return [(arm, seed) for arm, seed in self.trainings() if (arm.fingerprint, seed) not in ended]


@dataclass(frozen=True)
class ReplicateResult:
    """How a training ended: with an outcome as a trial's, or a reason why it has no score.

    again : the machine was at fault, so the next `harness confirm` tries it again
    """

    outcome: Mapping[str, Any]
    reason: str = ""
    again: bool = False


# By fingerprint and seed.
Results = Mapping[tuple[str, int], ReplicateResult]


def key_of(study: Study, fingerprint: str, replicate: int) -> str:
    """What makes a replicate's run findable in MLflow."""
    return f"{study.identity}/confirm/{fingerprint[:16]}/{replicate}"


def folder_of(fingerprint: str, replicate: int) -> str:
    """Name of a replicate's folder in the spool."""
    return f"confirm-{fingerprint[:16]}-{replicate}"


def definition_of(
    study: Study, run: int | None = None, *, concluded: bool = False
) -> ConfirmationDefinition | None:
    """What the last `harness confirm` of the study, or of its trial `run` alone, set out to do.

    Parameters
    ----------
    concluded : the one that named a winner before that
    """
    stored = study.optuna_study.user_attrs.get(_slot(run, concluded=concluded))
    if stored is None:
        return None
    arms = [
        ConfirmedConfig(**{**arm, "config": TrialConfig.model_validate(arm["config"])})
        for arm in stored["arms"]
    ]
    known = stored.get("known")
    return ConfirmationDefinition(
        tuple(arms), stored["seeds"], stored.get("named", False), None if known is None else tuple(known)
    )


def runs_named(study: Study) -> list[int]:
    """Numbers of the trials that were ever confirmed alone."""
    words = [name.split(".") for name in study.optuna_study.user_attrs if name.startswith(f"{ATTRIBUTE}.")]
    return sorted(int(parts[1]) for parts in words if len(parts) == 2 and parts[1].isdecimal())


def save_definition(
    study: Study, arms: Sequence[ConfirmedConfig], seeds: int, *, named: bool = False
) -> ConfirmationDefinition:
    """Remember what is confirmed from now on; call it under the study's lock."""
    known = tuple(one.number for one in study.trials() if one.state == "complete")
    definition = ConfirmationDefinition(tuple(arms), seeds, named, known)
    write_definition(study, definition)
    return definition


def write_definition(study: Study, definition: ConfirmationDefinition, *, concluded: bool = False) -> None:
    """Write a definition into its slot; call it under the study's lock."""
    rows = [
        {
            "name": arm.name, "config": arm.config.model_dump(mode="json"), "values": dict(arm.values),
            "trial": arm.trial, "sweep_score": arm.sweep_score, "optimism": arm.optimism,
            "is_baseline": arm.is_baseline, "is_added": arm.is_added,
        }
        for arm in definition.arms
    ]  # fmt: skip
    known = None if definition.known is None else list(definition.known)
    stored = {"arms": rows, "seeds": definition.seeds, "named": definition.named, "known": known}
    slot = _slot(definition.run, concluded=concluded)
    if study.optuna_study.user_attrs.get(slot) != stored:
        study.optuna_study.set_user_attr(slot, stored)


def _slot(run: int | None, *, concluded: bool) -> str:
    parts = [ATTRIBUTE, *([str(run)] if run is not None else []), *(["concluded"] if concluded else [])]
    return ".".join(parts)


def results_of(study: Study) -> Results:
    """How every training on a fresh seed ended that was ever asked for."""
    found = {}
    for name, stored in study.optuna_study.user_attrs.items():
        if name.startswith(f"{ATTRIBUTE}/"):
            _, fingerprint, replicate = name.split("/")
            found[fingerprint, int(replicate)] = ReplicateResult(**stored)
    return found


def save_result(study: Study, fingerprint: str, replicate: int, result: ReplicateResult) -> None:
    """Remember how a training ended; call it under the study's lock."""
    row = {"outcome": dict(result.outcome), "reason": result.reason, "again": result.again}
    study.optuna_study.set_user_attr(f"{ATTRIBUTE}/{fingerprint}/{replicate}", row)
