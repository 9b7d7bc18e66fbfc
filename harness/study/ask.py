"""Which configuration comes next: Optuna's next one that nobody ran yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.config.search_space import SearchSpace, Values
from harness.config.trial.training_config import MIN_BATCH_SIZE
from harness.config.trial.trial_config import TrialConfig
from harness.core.failpoints import failpoint
from harness.study.sampling.samplers import build_sampler
from harness.study.skipped_front_ends import SKIPPED
from harness.study.study import Study
from harness.study.trials import TrialSummary

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

# On a trial that ran out of memory: the batch size to try; on the trial that tries it: the number of the first.
RETRY_BATCH_SIZE, OOM_RETRY_OF = "smaller", "smaller_of"

# After so many duplicates in a row a finite space is walked for what is left.
MAX_REPEATS = 20
BATCH_SIZE = "batch_size"


class TrialAsker:
    """Asks the sampler until it proposes a configuration that nobody ran.

    A duplicate is told the value of the first trial of its configuration, so that the sampler learns of it without a
    run, and costs no budget.

    exhausted : every configuration of a finite space was asked for; only trials that ran out of memory may follow
    """

    def __init__(self, study: Study, workers: int) -> None:
        self.study = study
        self.exhausted = False
        self._workers = workers
        self._numbers: dict[str, int] = {}  # fingerprint -> the trial that runs or ran it
        self._duplicates: dict[int, list[optuna.Trial]] = {}  # duplicates of trials that still run
        self._unseen = study.space.combinations()
        self._counts = TrialCounts()

    def record_fingerprint(self, fingerprint: str, number: int) -> None:
        """Remember that this trial runs or ran a configuration: whoever proposes it later is its duplicate."""
        self._numbers.setdefault(fingerprint, number)

    def next(self) -> tuple[optuna.Trial, Values, TrialConfig] | None:
        """A trial whose configuration is new; None (and `exhausted`) where a finite space has no more."""
        repeats = 0
        while (smaller := self._enqueue_oom_retry()) or not self.exhausted:
            grid = self.study.sweep.sampler.type == "grid"
            if not smaller and (grid or repeats >= MAX_REPEATS):
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
                self.record_fingerprint(config.fingerprint(), trial.number)
                return trial, values, config
            self._tell_duplicate(trial, known, values)
            repeats += 1
        return None

    def reduced_batch_size(self, trial: optuna.Trial, config: TrialConfig, windows: int) -> int | None:
        """The batch size with which a trial that ran out of memory is tried once more, as a trial of its own.

        None where it cannot be halved, where that was done already, or where another trial ran that configuration.
        """
        batch_size = halved_batch_size(self.study.space, config, windows)
        if batch_size is None or OOM_RETRY_OF in trial.user_attrs:
            return None
        values = {**trial.user_attrs["values"], BATCH_SIZE: batch_size}
        known = self.study.space.config(values).fingerprint() in self._numbers
        return None if known else batch_size

    def tell_duplicates(self, first: TrialSummary) -> None:
        """Tell the duplicates of a trial that has ended what it was told: until then they wait."""
        for twin in self._duplicates.pop(first.number, []):
            tell_duplicate(self.study, twin.number, first)

    def fail_duplicates(self, number: int) -> None:
        """Give up the duplicates of a trial that is interrupted; a later launch asks for others."""
        from optuna.trial import TrialState

        for twin in self._duplicates.pop(number, []):
            self.study.optuna_study.tell(twin.number, state=TrialState.FAIL)

    def _ask(self) -> tuple[optuna.Trial, Values, TrialConfig]:
        study = self.study.optuna_study
        study.sampler = build_sampler(self.study.sweep, self._asked(), self._workers, self.study.storage)
        trial = study.ask()
        failpoint("coordinator.asked")
        values = self.study.space.suggest(trial)
        if OOM_RETRY_OF in trial.user_attrs:
            values[BATCH_SIZE] = trial.user_attrs[BATCH_SIZE]
        return trial, values, self.study.space.config(values)

    def _enqueue_oom_retry(self) -> bool:
        """Queue the next trial that ran out of memory again, with its smaller batch; whether one is queued."""
        study = self.study.optuna_study
        trials = study.get_trials(deepcopy=False)
        if any(
            is_queued(trial) and OOM_RETRY_OF in trial.user_attrs
            for trial in self._counts.skip_finished(trials)
        ):
            return True
        number = self._counts.next_oom_retry(trials)
        if number is None:
            return False
        trial = trials[number]
        size = trial.user_attrs[RETRY_BATCH_SIZE]
        reason = f"as trial {number}, which ran out of memory, with {BATCH_SIZE} {size}"
        marks = {OOM_RETRY_OF: number, BATCH_SIZE: size, "reason": reason}
        searched = {BATCH_SIZE: size} if BATCH_SIZE in trial.params else {}
        study.enqueue_trial({**trial.params, **searched}, user_attrs=marks)
        return True

    def _asked(self) -> int:
        return self._counts.number_asked(self.study.optuna_study.get_trials(deepcopy=False))

    def _enqueue_unseen(self) -> None:
        """Queue the next configuration of a finite space that nobody ran, unless one is queued still."""
        trials = self.study.optuna_study.get_trials(deepcopy=False)
        if any(is_queued(trial) for trial in self._counts.skip_finished(trials)):
            return
        if self._unseen is None:
            return  # an infinite space: the sampler will come to something else
        searched = self.study.space.searched
        for values in self._unseen:
            if self.study.space.config(values).fingerprint() not in self._numbers:
                self.study.optuna_study.enqueue_trial({k: v for k, v in values.items() if k in searched})
                failpoint("coordinator.queued")
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
            self._duplicates.setdefault(known, []).append(trial)
        else:
            tell_duplicate(self.study, trial.number, first)


def halved_batch_size(space: SearchSpace, config: TrialConfig, windows: int) -> int | None:
    """Half the batch of a training on so many windows; where it is searched, the largest of the space up to that.

    None where no batch size that may be trained with is that small. A batch is never larger than the split, so half
    of `windows` is where halving begins.
    """
    half = min(config.training.batch_size, windows) // 2
    if BATCH_SIZE not in space.searched:
        return half if half >= MIN_BATCH_SIZE else None
    fitting = [
        int(size) for size in space.parameters[BATCH_SIZE].grid() if isinstance(size, int) and size <= half
    ]
    return max(fitting, default=None)


def tell_duplicate(study: Study, twin: int, first: TrialSummary) -> None:
    """Tell the duplicate of this number what the trial that it repeats was told; failed where that has not ended."""
    from optuna.trial import TrialState

    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
    state = states.get(first.state, TrialState.FAIL)
    study.optuna_study.tell(twin, first.score if state == TrialState.COMPLETE else None, state=state)


@dataclass
class TrialCounts:
    """What the trials that have ended add up to, each counted once: a study of 10,000 is not walked for every new one.

    Invariant: the other fields are about the first `counted` trials, all of which have ended and change no more.

    counted : length of the front of the study that was counted
    asked : those that began or were told; an abandoned one is none: the next trial stands for it
    smaller : numbers of those that ran out of memory and are to be tried once more with a smaller batch
    begun : numbers of those of `smaller` that another trial has tried with a smaller batch
    """

    counted: int = 0
    asked: int = 0
    smaller: list[int] = field(default_factory=list)
    begun: set[int] = field(default_factory=set)

    def skip_finished(self, trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
        """Advance over the trials at the front that have ended, and count them; return the trials behind.

        It is no query: the counts change. `trials` are all of the study's, in order.
        """
        while self.counted < len(trials) and trials[self.counted].state.is_finished():
            trial = trials[self.counted]
            self.counted += 1
            if not is_abandoned(trial):
                self.asked += 1
                self.begun.update(_oom_retry_of(trial))
            if RETRY_BATCH_SIZE in trial.user_attrs:
                self.smaller.append(trial.number)
        return trials[self.counted :]

    def number_asked(self, trials: Sequence[FrozenTrial]) -> int:
        """Trials asked for before, less those given up before they began: the next one stands for such a one.

        It is the sampler's position in its sequence: a resumed study goes on where it stopped. Advances as
        `skip_finished` does.
        """
        rest = self.skip_finished(trials)
        return self.asked + sum(not is_abandoned(trial) for trial in rest if not is_queued(trial))

    def next_oom_retry(self, trials: Sequence[FrozenTrial]) -> int | None:
        """Number of the first trial to be tried with a smaller batch that was not asked for yet; None: there is none.

        Advances as `skip_finished` does.
        """
        rest = self.skip_finished(trials)
        begun = self.begun.union(*(_oom_retry_of(trial) for trial in rest if not is_abandoned(trial)))
        waiting = [*self.smaller, *(trial.number for trial in rest if RETRY_BATCH_SIZE in trial.user_attrs)]
        return next((number for number in waiting if number not in begun), None)


def _oom_retry_of(trial: FrozenTrial) -> Iterator[int]:
    if OOM_RETRY_OF in trial.user_attrs:
        yield trial.user_attrs[OOM_RETRY_OF]


def is_abandoned(trial: FrozenTrial) -> bool:
    """Whether it was asked for and given up before it began, as its coordinator died: it costs no budget."""
    return trial.user_attrs.get("state") == "abandoned"


def is_queued(trial: FrozenTrial) -> bool:
    """Whether the next `ask` gets it; an interrupted trial waits too, and has its configuration."""
    return trial.state.name == "WAITING" and "fingerprint" not in trial.user_attrs
