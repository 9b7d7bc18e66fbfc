"""A confirmation while it runs: its trainings through the workers, its results into the study and MLflow."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.config.trial_config import TrialConfig
from harness.core.failpoints import failpoint
from harness.core.format import duration
from harness.core.signals import handling_signals
from harness.execution.auxiliary_runs import AuxiliaryRun, AuxiliaryRuns
from harness.execution.executors.protocol import Executor, WorkerLost
from harness.execution.jobs import Jobs
from harness.execution.stopping import (
    RepeatedFailures,
    Stopping,
    raise_if_tracking_disk_full,
    raise_if_trial_out_of_space,
    tracking_disk_full_reason,
)
from harness.execution.view import View
from harness.study.confirmation.definition import KIND, Arm, Result, folder_of, results_of, save_result
from harness.study.confirmation.replicate import Replicate, replicate_of
from harness.study.storage.trial_spool import TrialSpool
from harness.tracking.run_header import trial_header
from harness.tracking.run_verdict import verdict_of
from harness.tracking.writer import Writer
from harness.training.job import FailureKind

if TYPE_CHECKING:
    from harness.study.study import Study

POLL_S = 0.2


@dataclass(kw_only=True)
class _Run(AuxiliaryRun):
    arm: Arm
    seed: int


class ConfirmationRuns(AuxiliaryRuns[_Run]):
    """Trains arms on fresh seeds until every one has ended, or somebody stops it.

    With `stack: N` in the sweep a worker trains up to N at once: the seeds of an arm, and of arms alike but for rate
    and decay.
    """

    def __init__(
        self,
        jobs: Jobs,
        executor: Executor,
        writer: Writer,
        view: View,
        left: Sequence[tuple[Arm, int]],
        total: int,
    ) -> None:
        super().__init__(self)
        self.jobs, self.study = jobs, jobs.study
        self.executor, self.writer, self.view = executor, writer, view
        self.stopping = Stopping(executor, view)
        self._alike = RepeatedFailures()
        self._left = list(left)
        self._new, self._total = len(self._left), total
        self._numbers = itertools.count(1)
        self._began = time.monotonic()

    @property
    def signal(self) -> int | None:
        """The signal that stopped it."""
        return self.stopping.signal

    def must_leave(self) -> bool:
        """Whether nothing more can be waited for: after a signal, or on a full disk."""
        return self.signal is not None or tracking_disk_full_reason(self.writer, self.jobs.record) is not None

    def run(self) -> None:
        """Train what is left.

        Raises
        ------
        OutOfSpaceError, WorkersFailedError
            The machine is at fault; the same command goes on.
        """
        with handling_signals(self.stopping.on_signal):
            while True:
                behind = self.writer.behind and bool(self._left) and self.signal is None
                if self.signal is None:
                    self.go_on()
                while self._left and self.executor.idle > 0 and self.signal is None and not behind:
                    self._start_next()
                self.stopping.interrupt_workers()
                if not (self.running or behind) or self.stopping.gave_up_waiting:
                    return
                for event in self.executor.poll(POLL_S):
                    raise_if_trial_out_of_space(event)
                    if not self.handle(event) and isinstance(event, WorkerLost):
                        self.view.message(event.reason)
                raise_if_tracking_disk_full(self.writer, self.jobs.record)
                if (news := self.writer.news()) is not None:
                    self.view.message(news)

    def _start_next(self) -> None:
        first = self._left[0][0].config
        most = min(
            first.stack, math.ceil(len(self._left) / self.executor.idle)
        )  # no worker stands idle for a stack
        key = first.stack_key()
        alike = [one for one in self._left if one[0].config.stack_key() == key][:most]
        self._left = [one for one in self._left if one not in alike]
        self.start(*(self._run_of(arm, seed) for arm, seed in alike))

    def _run_of(self, arm: Arm, seed: int) -> _Run:
        spool = self.jobs.spool(folder_of(arm.fingerprint, seed))
        if spool.read("verdict") is not None:  # it failed in an earlier launch, and is tried again
            spool.remove()
        replicate = replicate_of(self.study, arm, seed, Result({}))
        job = self.jobs.make(
            next(self._numbers), replicate.label, arm.config, spool,
            replicate=seed, subject="baseline" if arm.trial is None else str(arm.trial),
            header=header_of(self.jobs, replicate, spool),
        )  # fmt: skip
        return _Run(replicate.label, arm.config, spool, job, arm=arm, seed=seed)

    def completed(self, run: _Run, outcome: dict[str, Any]) -> None:
        """Keep the score."""
        self._keep(run, Result(outcome))
        self._alike.clear()

    def failed(self, run: _Run, kind: FailureKind, reason: str) -> None:
        """Keep the reason; where the machine was at fault, the next `harness confirm` tries again."""
        self._keep(run, Result({}, reason, again=kind in ("infrastructure", "out_of_memory")))
        self._alike.add(kind, reason)

    def _keep(self, run: _Run, result: Result) -> None:
        save_result(self.study, run.arm.fingerprint, run.seed, result)
        failpoint("confirmation result kept")
        told = replicate_of(self.study, run.arm, run.seed, result)
        header = run.spool.read("trial") or {}
        self.end(run, verdict_of(told, header), self._told(run, told))

    def _told(self, run: _Run, replicate: Replicate) -> str:
        ended = self._new - len(self._left) - len(self.running) + 1  # this one still counts as running
        left = self._new - ended
        pace = (time.monotonic() - self._began) / ended
        how = (
            f"score {replicate.score:.3f}" if replicate.score is not None else f"failed ({replicate.reason})"
        )
        about = f", about {duration(pace * left)} left" if left else ""
        return f"{run.label}: {how}  {self._total - left}/{self._total}{about}"


def header_of(jobs: Jobs, replicate: Replicate, spool: TrialSpool) -> dict[str, Any]:
    """What the run of a replicate is called and made of; one that was begun keeps its own."""
    begun = spool.read("trial")
    if begun is not None:
        return begun
    config = TrialConfig.model_validate(replicate.config)
    name = f"{replicate.name or replicate.label} seed {replicate.replicate}"
    seed = jobs.seed(replicate.replicate)
    header = trial_header(
        replicate.number, name, config, jobs.prepared[config.data.digest()], seed, jobs.tags
    )
    tags = {
        **header["tags"], "harness.kind": KIND, "harness.replicate": str(replicate.replicate),
        "harness.trial": "baseline" if replicate.number < 0 else str(replicate.number),
    }  # fmt: skip
    own = {"key": replicate.key, "number": None, "config": dict(replicate.config)}
    return {**header, **own, "tags": tags}


def is_confirmation(header: Mapping[str, Any]) -> bool:
    """Whether a spool's trial.json is of a training on a fresh seed."""
    return bool(header["tags"].get("harness.kind") == KIND)


def unfinished(study: Study, jobs: Jobs) -> list[str]:
    """Keys of the runs of trainings that were begun and have not ended."""
    ended = results_of(study)
    headers = [TrialSpool(folder).read("trial") for folder in jobs.record.spooled(study.name)]
    return [
        header["key"]
        for header in headers
        if header is not None
        and is_confirmation(header)
        and (
            header["tags"]["harness.fingerprint"],
            int(header["tags"]["harness.replicate"]),
        )
        not in ended
    ]
