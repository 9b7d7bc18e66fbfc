"""A confirmation in Optuna's journal: what is confirmed, and how each training on a fresh seed ended.

A result is kept under its fingerprint and seed, an attribute each: whatever finalists and number of seeds are
asked for later, no training is repeated. What is set out to do is kept apart for the study's own confirmation and for
that of each trial that was named, and beside it the last one of its kind that named a winner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
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
        """The configuration's digest: results are kept by it, so an equal configuration is trained once."""
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
        """Number of the trial that was named; None where the study's own finalists are confirmed."""
        return self.arms[0].trial if self.named else None

    def trainings(self) -> Iterator[tuple[ConfirmedConfig, int]]:
        """Every training: seed 1 of all arms, then seed 2, so that an interrupted one has equally many of each."""
        return ((arm, seed) for seed in range(1, self.seeds + 1) for arm in self.arms)

    def unfinished_trainings(
        self, results: Results, *, again: bool = False
    ) -> list[tuple[ConfirmedConfig, int]]:
        """The trainings without a result; with `again` also those that the machine spoilt, to be tried once more."""
        ended = {place for place, result in results.items() if not (again and result.again)}
        return [(arm, seed) for arm, seed in self.trainings() if (arm.fingerprint, seed) not in ended]


@dataclass(frozen=True)
class ReplicateResult:
    """How a training ended: with an outcome as a trial's, or with none and the reason.

    again : the machine was at fault, so the next `harness confirm` tries it again
    """

    outcome: Mapping[str, Any]
    reason: str = ""
    again: bool = False


# By fingerprint and seed.
Results = Mapping[tuple[str, int], ReplicateResult]


def key_of(study: Study, fingerprint: str, replicate: int) -> str:
    """The value of the tag `harness.key` of a replicate's run, by which any process finds it."""
    return f"{study.identity}/confirm/{fingerprint[:16]}/{replicate}"


def folder_of(fingerprint: str, replicate: int) -> str:
    """Name of a replicate's folder in the spool: it tells seeds and configurations, not the trials they repeat."""
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
        ConfirmedConfig(**{**arm, "config": TrialConfig.from_record(arm["config"])}) for arm in stored["arms"]
    ]
    known = stored.get("known")
    return ConfirmationDefinition(
        tuple(arms), stored["seeds"], stored.get("named", False), None if known is None else tuple(known)
    )


def runs_named(study: Study) -> list[int]:
    """Numbers of the trials that were ever confirmed alone (`harness confirm --run`), ascending."""
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
    """Write a definition into its slot (the study's own, a trial's; `concluded`: of the last with a winner).

    Call it under the study's lock. An equal definition is not written again: the journal only grows.
    """
    known = None if definition.known is None else list(definition.known)
    stored = {
        "arms": [_stored_config(arm) for arm in definition.arms],
        "seeds": definition.seeds,
        "named": definition.named,
        "known": known,
    }
    slot = _slot(definition.run, concluded=concluded)
    if study.optuna_study.user_attrs.get(slot) != stored:
        study.optuna_study.set_user_attr(slot, stored)


def _stored_config(confirmed: ConfirmedConfig) -> dict[str, Any]:
    """Its fields as JSON knows them, by their names: `definition_of` makes it of them again."""
    plain = {field.name: getattr(confirmed, field.name) for field in fields(confirmed)}
    return {**plain, "config": confirmed.config.model_dump(mode="json"), "values": dict(confirmed.values)}


def _slot(run: int | None, *, concluded: bool) -> str:
    parts = [ATTRIBUTE, *([str(run)] if run is not None else []), *(["concluded"] if concluded else [])]
    return ".".join(parts)


def results_of(study: Study) -> Results:
    """How every training on a fresh seed ended that was ever asked for, by fingerprint and seed (from 1)."""
    found = {}
    for name, stored in study.optuna_study.user_attrs.items():
        if name.startswith(f"{ATTRIBUTE}/"):
            _, fingerprint, replicate = name.split("/")
            found[fingerprint, int(replicate)] = ReplicateResult(**stored)
    return found


def save_result(study: Study, fingerprint: str, replicate: int, result: ReplicateResult) -> None:
    """Remember how a training ended, in place of an earlier end of it; call it under the study's lock."""
    row = {"outcome": dict(result.outcome), "reason": result.reason, "again": result.again}
    study.optuna_study.set_user_attr(f"{ATTRIBUTE}/{fingerprint}/{replicate}", row)
