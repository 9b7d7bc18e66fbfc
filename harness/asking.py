"""Which configuration comes next: Optuna's next one that nobody ran yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.arms import SKIPPED
from harness.search_space import Values
from harness.study import Study, TrialSummary, build_sampler
from harness.trial_config import TrialConfig

if TYPE_CHECKING:
    import optuna

# After so many duplicates in a row a finite space is walked for what is left.
MAX_REPEATS = 20


class Asking:
    """Asks the sampler, and tells duplicates the first one's value: no run, no budget."""

    def __init__(self, study: Study, workers: int) -> None:
        self.study = study
        self.exhausted = False
        self._workers = workers
        self._numbers: dict[str, int] = {}  # fingerprint -> the trial that runs or ran it
        self._twins: dict[int, list[optuna.Trial]] = {}  # duplicates of trials that still run
        self._unseen = study.space.combinations()

    def remember(self, fingerprint: str, number: int) -> None:
        """A configuration that this trial runs or ran."""
        self._numbers.setdefault(fingerprint, number)

    def next(self) -> tuple[optuna.Trial, Values, TrialConfig] | None:
        """A trial whose configuration is new; None (and `exhausted`) where a finite space has no more."""
        repeats = 0
        while not self.exhausted:
            if self.study.sweep.sampler.type == "grid" or repeats >= MAX_REPEATS:
                self._enqueue_unseen()
                repeats = 0
                if self.exhausted:
                    return None
            trial, values, config = self._ask()
            reason = self.study.space.reason_to_skip(config)
            if reason is not None:
                self._tell_skipped(trial, values, reason)
                repeats += 1
                continue
            known = self._numbers.get(config.fingerprint())
            if known is None:
                self.remember(config.fingerprint(), trial.number)
                return trial, values, config
            self._tell_duplicate(trial, known, values)
            repeats += 1
        return None

    def ended(self, first: TrialSummary) -> None:
        """Tell the duplicates of a trial that has ended."""
        for twin in self._twins.pop(first.number, []):
            self._tell_as(twin, first)

    def abandon(self, number: int) -> None:
        """Give up the duplicates of a trial that is interrupted; a later launch asks for others."""
        from optuna.trial import TrialState

        for twin in self._twins.pop(number, []):
            self.study.optuna_study.tell(twin.number, state=TrialState.FAIL)

    def _ask(self) -> tuple[optuna.Trial, Values, TrialConfig]:
        study = self.study.optuna_study
        study.sampler = build_sampler(self.study.sweep, len(study.get_trials(deepcopy=False)), self._workers)
        trial = study.ask()
        values = self.study.space.suggest(trial)
        return trial, values, self.study.space.config(values)

    def _enqueue_unseen(self) -> None:
        """Queue the next configuration of a finite space that nobody ran."""
        if self._unseen is None:
            return  # an infinite space: the sampler will come to something else
        searched = self.study.space.searched
        for values in self._unseen:
            if self.study.space.config(values).fingerprint() not in self._numbers:
                self.study.optuna_study.enqueue_trial({k: v for k, v in values.items() if k in searched})
                return
        self.exhausted = True

    def _tell_skipped(self, trial: optuna.Trial, values: Values, reason: str) -> None:
        from optuna.trial import TrialState

        trial.set_user_attr("values", dict(values))
        trial.set_user_attr("reason", reason)
        trial.set_user_attr("state", SKIPPED)
        self.study.optuna_study.tell(trial, state=TrialState.FAIL)

    def _tell_duplicate(self, trial: optuna.Trial, known: int, values: Values) -> None:
        trial.set_user_attr("duplicate_of", known)
        trial.set_user_attr("values", dict(values))
        trial.set_user_attr("reason", f"the same configuration as trial {known}")
        first = self.study.trial(known)
        if first.state in ("running", "interrupted"):
            self._twins.setdefault(known, []).append(trial)
        else:
            self._tell_as(trial, first)

    def _tell_as(self, twin: optuna.Trial, first: TrialSummary) -> None:
        from optuna.trial import TrialState

        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
        state = states.get(first.state, TrialState.FAIL)
        self.study.optuna_study.tell(
            twin.number, first.score if state == TrialState.COMPLETE else None, state=state
        )
