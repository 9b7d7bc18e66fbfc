"""All that this project knows of Optuna's inside (5.0.0): no other module names a private part of it.

Each function says why public API will not do. `test_optuna_internals` fails first where a new Optuna has changed one,
and says which function to mend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import optuna
from optuna.storages.journal._storage import JournalOperation as Operation
from optuna.storages.journal._storage import JournalStorageReplayResult as Replayed

if TYPE_CHECKING:
    from optuna.pruners import HyperbandPruner
    from optuna.storages import JournalStorage
    from optuna.trial import FrozenTrial

# Operation: kinds of a journal's lines. Replayed: what a storage has read of it (since Optuna 3.1, as journals are).
__all__ = [
    "RUNG",
    "Operation",
    "Replayed",
    "bracket",
    "replayed",
    "resumed_trial",
    "studies_of_trials",
    "trials_of",
]

RUNG = "completed_rung_"
"""Begins the system attribute in which successive halving keeps a trial's value at each rung (since 1.0)."""


def replayed(storage: JournalStorage) -> Replayed:
    """What a storage has read, to be filled by a faster reader: Optuna's takes five times as long (since 3.1)."""
    return storage._replay_result


def trials_of(result: Replayed) -> dict[int, FrozenTrial]:
    """The trials themselves, by the number that lines call them; `get_all_trials` knows studies only (since 3.1)."""
    return result._trials


def studies_of_trials(result: Replayed) -> dict[int, int]:
    """The study of each trial, both as lines call them; nothing public tells it (since 3.1)."""
    return result._trial_id_to_study_id


def resumed_trial(study: optuna.Study, trial_id: int) -> optuna.Trial:
    """A trial that an earlier process asked for, to report and tell: `ask` makes new ones only (since 1.0)."""
    return optuna.Trial(study, trial_id)


def bracket(pruner: HyperbandPruner, study: optuna.Study, trial: FrozenTrial) -> int:
    """Which of Hyperband's brackets a trial is judged in; the pruner tells nobody (since 1.0)."""
    if pruner._n_brackets is None:
        pruner._try_initialization(study)
    return pruner._get_bracket_id(study, trial)
