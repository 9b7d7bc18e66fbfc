"""Trainings of a study that Optuna never hears of: they cost no budget, teach no sampler, are never pruned.

They take a trial's way through worker, spool and MLflow; what becomes of one that ends, its kind decides
(`ControlRuns`, `ConfirmationRuns`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from harness.config.trial_config import TrialConfig
from harness.execution.executors.protocol import (
    EpochDone,
    Event,
    Executor,
    TrialDone,
    TrialFailed,
    WorkerLost,
)
from harness.execution.jobs import Retries, count_attempt
from harness.execution.view import View
from harness.study.storage.trial_spool import TrialSpool
from harness.tracking.writer import Writer
from harness.training.job import FailureKind, Job


class Host(Protocol):
    """What the loop that such trainings run in lends them."""

    executor: Executor
    writer: Writer
    view: View

    @property
    def signal(self) -> int | None:
        """The signal that stops the loop, if there was one."""


@dataclass
class AuxiliaryRun:
    """A training under way; its number is in `job`. `stacked`: with others, in one worker."""

    label: str
    config: TrialConfig
    spool: TrialSpool
    job: Job
    furthest: int = -1
    stacked: bool = False

    def __post_init__(self) -> None:
        self.retries = Retries(self.spool)


RunT = TypeVar("RunT", bound=AuxiliaryRun)


class AuxiliaryRuns(Generic[RunT]):
    """Starts trainings, hears of them, tries again what the machine spoilt."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.running: dict[int, RunT] = {}
        self._again: list[RunT] = []

    def start(self, *runs: RunT) -> None:
        """Give a training, or a stack, to an idle worker; it goes on from its checkpoint where there is one."""
        for run in runs:
            self.running[run.job.number], run.stacked = run, len(runs) > 1
        self._host.executor.submit(*(run.job for run in runs))
        for run in runs:
            self._host.writer.notify(run.spool)
            self._host.view.message(f"{run.label}: started, {run.config.training.epochs} epochs")

    def go_on(self) -> None:
        """Give what is to be tried again to the workers that are idle."""
        while self._again and self._host.executor.idle > 0:
            self._host.executor.submit(self._again.pop(0).job)

    def handle(self, event: Event) -> bool:
        """Take an event in; false where it is of no such training."""
        run = self.running.get(event.number) if event.number is not None else None
        if run is None:
            return False
        if isinstance(event, EpochDone):
            if event.epoch > run.furthest:
                run.furthest = event.epoch
                run.retries.came_further()
            self._host.executor.reply(event.number, stop=False)
            self._host.writer.notify(run.spool)
        elif isinstance(event, TrialDone):
            if event.outcome["state"] != "interrupted":  # else the next launch goes on from its checkpoint
                self.completed(run, event.outcome)
        elif isinstance(event, TrialFailed) and event.kind != "infrastructure":
            run.spool.write_traceback(event.traceback)
            self.failed(run, event.kind, f"{event.kind}: {event.reason}")
        else:
            self._retry(run, event)
        return True

    def completed(self, run: RunT, outcome: dict[str, Any]) -> None:
        """A training ended with an outcome: keep it, and `end` the run."""
        raise NotImplementedError

    def failed(self, run: RunT, kind: FailureKind, reason: str) -> None:
        """A training cannot be done: keep the reason, and `end` the run."""
        raise NotImplementedError

    def end(self, run: RunT, verdict: dict[str, Any], told: str) -> None:
        """Let a training go that was kept in the study: its run in MLflow ends as the verdict says."""
        del self.running[run.job.number]
        run.spool.write("verdict", verdict)
        self._host.writer.notify(run.spool)
        self._host.view.message(told)

    def _retry(self, run: RunT, event: TrialFailed | WorkerLost) -> None:
        if self._host.signal is not None:
            return
        given_up = None if run.stacked else run.retries.another(event)  # it may be another's fault
        if given_up is not None:
            self.failed(run, "infrastructure", given_up)
            return
        self._host.view.message(f"{run.label}: {event.reason}; going on from its checkpoint")
        count_attempt(run.spool)
        run.stacked = False
        self._again.append(run)  # alone; of a stack only the first finds its slot free
        self.go_on()
