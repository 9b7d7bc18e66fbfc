"""TPE whose cost stops growing: of a long study it is shown the best trials and an even sample of the others.

TPE (Bergstra et al. 2011) compares two densities, of the best (Optuna takes a tenth of the trials, at most 25) and of
all others. It counts all of a study's trials anew for each one that is asked for, in a study of 10,000 for a quarter of
a second. The best are shown whole; the density of the others is what a thousand of them say it is. Up to SHOWN trials
this is Optuna's TPE to the last bit.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import optuna
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

SHOWN = 1_000
# Optuna's `default_gamma` takes no more than so many as the best.
BEST = 25


class BoundedTPE(TPESampler):
    """Optuna's TPE, of at most SHOWN ended trials; one instance serves one `ask` of a study in this storage."""

    def __init__(self, storage: BaseStorage, **options: Any) -> None:
        super().__init__(**options)
        self._storage = storage
        self._seen: optuna.Study | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that are sampled together, told from the shown trials instead of all of the study's."""
        return super().infer_relative_search_space(self._view(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw the parameters that belong together, by densities of the shown trials."""
        return super().sample_relative(self._view(study), trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one parameter by itself (where none are drawn together), by densities of the shown trials."""
        return super().sample_independent(self._view(study), trial, param_name, param_distribution)

    def _view(self, study: optuna.Study) -> optuna.Study:
        if self._seen is None:
            trials = study.get_trials(deepcopy=False)
            self._seen = study if len(trials) <= SHOWN else self._of_few(study, trials)
        return self._seen

    def _of_few(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> optuna.Study:
        shown = subsample_trials(trials, maximize=study.direction == StudyDirection.MAXIMIZE)
        storage = cast("BaseStorage", _FewTrials(self._storage, shown))
        return optuna.load_study(
            study_name=study.study_name, storage=storage, sampler=self, pruner=study.pruner
        )


class _FewTrials:
    """A storage whose study has these trials; all else is the other storage's."""

    def __init__(self, storage: BaseStorage, shown: list[FrozenTrial]) -> None:
        self._storage, self._shown = storage, shown

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The shown ones: the sampler, which changes none, reads trials by this call only."""
        return [trial for trial in self._shown if states is None or trial.state in states]


def subsample_trials(trials: Sequence[FrozenTrial], *, maximize: bool) -> list[FrozenTrial]:
    """Of the trials that ended, the BEST best and an even sample, SHOWN together; all that run. In order of number.

    A study of at most SHOWN trials that ended is returned whole. Pruned trials rank behind all that are complete: the
    further they came the better, then by value.
    """
    sign = -1.0 if maximize else 1.0
    ended = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if len(ended) <= SHOWN:
        return list(trials)
    complete = [trial for trial in ended if trial.state == TrialState.COMPLETE]
    best = sorted(complete, key=lambda trial: sign * trial.values[0])[:BEST]
    if len(best) < BEST:
        pruned = [trial for trial in ended if trial.state == TrialState.PRUNED]
        best += sorted(pruned, key=lambda trial: _rank(trial, sign))[: BEST - len(best)]
    numbers = {trial.number for trial in best}
    others = [trial for trial in ended if trial.number not in numbers]
    even = np.linspace(0, len(others) - 1, SHOWN - len(best)).round().astype(int)
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    return sorted([*best, *(others[i] for i in even), *running], key=lambda trial: trial.number)


def _rank(pruned: FrozenTrial, sign: float) -> tuple[float, float]:
    """The further the better, then by value, as Optuna ranks them."""
    if not pruned.intermediate_values:
        return 1.0, 0.0
    step, value = max(pruned.intermediate_values.items())
    return -float(step), sign * value
