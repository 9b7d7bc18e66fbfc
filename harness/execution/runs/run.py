"""A run is one training under way. Its kind says which comes next, and what becomes of one that ends.

    trial       asked of Optuna, pruned, told; counts against the budget         `TrialRuns`
    control     a training whose true score is chance; Optuna never hears of it  `ControlRuns`
    replicate   a configuration on a fresh seed; Optuna never hears of it        `ReplicateRuns`

All of them go one way through worker, spool and MLflow: the coordinator's. It calls their kind in this order::

    begin -> next -> started -> epoch_done ... -> completed | failed -> Host.end   -> leave_unfinished
                        ^---- retried: its worker was lost
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from harness.config.trial.trial_config import TrialConfig
from harness.execution.executors.protocol import EpochDone, Executor, TrialFailed
from harness.execution.runs.retries import Retries
from harness.execution.stopping import RepeatedFailures
from harness.execution.view import View
from harness.study.storage.trial_spool import TrialSpool
from harness.tracking.writer import Writer
from harness.training.job import FailureKind, Job


@dataclass(frozen=True)
class Failure:
    """Why a training cannot be done.

    Attributes
    ----------
    cause : as the worker told it
    reason : as the study keeps it, with its kind or with how often it was tried
    traceback : empty where the training itself did not raise
    """

    kind: FailureKind
    cause: str
    reason: str
    traceback: str = ""


class Host(Protocol):
    """What the coordinator lends the kinds of runs: it is the coordinator as they see it."""

    executor: Executor
    writer: Writer
    view: View
    failures: RepeatedFailures

    @property
    def running(self) -> dict[int, Run]:
        """Runs of every kind that were given to a worker and have not ended, by the number of their jobs."""

    def fail(self, run: Run, event: TrialFailed) -> None:
        """Fail a run for a reason of its own: it is not tried again as it is."""

    def end(self, run: Run, verdict: dict[str, Any]) -> None:
        """Let a run go that the study has heard of: in MLflow it ends as the verdict says."""


@dataclass(kw_only=True)
class Run:
    """One training under way.

    Attributes
    ----------
    label : what messages call it: `trial 3`, `control unseen`
    furthest : its last epoch (0-based) that was heard of, -1 before the first; of trials Optuna knows it
    stacked : trained with others in one worker, whose loss may be their fault
    """

    kind: RunKind[Any]
    label: str
    config: TrialConfig
    spool: TrialSpool
    job: Job
    furthest: int = -1
    stacked: bool = False
    retries: Retries = field(init=False)

    def __post_init__(self) -> None:
        self.retries = Retries(self.spool)


RunT = TypeVar("RunT", bound=Run)


class RunKind(ABC, Generic[RunT]):
    """One kind of run, as the coordinator asks for it. The defaults are those of what Optuna never hears of."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def begin(self) -> None:
        """Hear that the loop is about to start; what a dead process left in the study is put right."""

    @property
    @abstractmethod
    def has_more(self) -> bool:
        """Whether `next` may have something to give."""

    @abstractmethod
    def next(self) -> Sequence[RunT]:
        """What an idle worker is given: a run, a stack of them, or nothing."""

    def is_left(self, spool: TrialSpool) -> bool:
        """Whether this is the spool of a run that `next` is going to give, from its checkpoint or anew.

        Then MLflow is not told of what an earlier launch left there.
        """
        del spool
        return False

    def started(self, runs: Sequence[RunT]) -> None:
        """Tell MLflow and people that a worker was given these."""
        for run in runs:
            self.host.writer.notify(run.spool)
            self.host.view.message(f"{run.label}: started, {run.config.training.epochs} epochs")

    def epoch_done(self, run: RunT, event: EpochDone) -> bool:
        """Hear of an epoch that is spooled; whether the run is to stop there, pruned."""
        if event.epoch > run.furthest:
            run.furthest = event.epoch
            run.retries.came_further()
        return False

    def show_epoch(self, run: RunT, event: EpochDone) -> None:
        """Show people an epoch, once the worker was answered; nothing here."""

    @abstractmethod
    def completed(self, run: RunT, outcome: dict[str, Any]) -> None:
        """The run came to an outcome: have the study keep it, then `end` the run."""

    @abstractmethod
    def failed(self, run: RunT, failure: Failure) -> None:
        """The run cannot be done: have the study keep the reason, then `end` the run."""

    def retried(self, run: RunT) -> None:
        """Hear that the run lost its worker, and goes on from its checkpoint in another."""

    def leave_unfinished(self) -> None:
        """Have whatever has not ended wait for the next launch: the loop is over, or broken off."""
