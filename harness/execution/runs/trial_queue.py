"""Trials that the study knows with their configuration, and that wait for a worker.

    asked for    A1 A2 B1 A3     A: alike but for rate and decay
    a worker     A1 A2 A3        as one stack; B1 is the oldest the next time

The study knows all of them: after a kill they wait again, in this order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.config.trial.trial_config import TrialConfig
from harness.study.ask import OOM_RETRY_OF
from harness.study.storage.trial_attributes import json_attribute

if TYPE_CHECKING:
    import optuna

    from harness.study.study import Study


@dataclass(frozen=True)
class PendingTrial:
    """A trial that the study knows with its configuration.

    Attributes
    ----------
    name : of its run in MLflow
    new : this launch asked for it, so MLflow was never told of it
    """

    trial: optuna.Trial
    config: TrialConfig
    name: str
    new: bool = False

    @property
    def stack_key(self) -> str:
        """What is equal in those that may be stacked; what once was too large for the memory is trained alone."""
        return f"{self.trial.number}" if OOM_RETRY_OF in self.trial.user_attrs else self.config.stack_key()


def resume_trial(study: Study, frozen: optuna.trial.FrozenTrial) -> PendingTrial:
    """Take on a trial that an earlier launch left: in the study it runs again, so that Optuna gives it to nobody."""
    from optuna.trial import TrialState

    from harness.study.storage.optuna_internals import resumed_trial

    trial_id = study.trial_id(frozen.number)
    if frozen.state == TrialState.WAITING:
        study.storage.set_trial_state_values(trial_id, TrialState.RUNNING)
    trial = resumed_trial(study.optuna_study, trial_id)
    config = TrialConfig.from_record(json_attribute(frozen.user_attrs, "config"))
    return PendingTrial(trial, config, frozen.user_attrs["name"])


class TrialQueue:
    """Trials that wait for a worker, oldest first; one worker is given up to `most` of them, as a stack."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._trials: list[PendingTrial] = []

    def __len__(self) -> int:
        return len(self._trials)

    def __iter__(self) -> Iterator[PendingTrial]:
        return iter(self._trials)

    def add(self, one: PendingTrial) -> None:
        """Have a trial wait, behind all others."""
        self._trials.append(one)

    def pop_stack(self) -> list[PendingTrial]:
        """Let the oldest go, with the next ones that can be computed as one with it; empty where nobody waits."""
        if not self._trials:
            return []
        key = self._trials[0].stack_key
        alike = [one for one in self._trials if one.stack_key == key][: self._most]
        gone = {one.trial.number for one in alike}
        self._trials = [one for one in self._trials if one.trial.number not in gone]
        return alike
