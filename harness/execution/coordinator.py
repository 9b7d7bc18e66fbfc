"""The study's one writer while trainings run: gives them to idle workers, hears of them, retries, ends.

kind.next -> job, spool/trial.json -> worker, alone or in a stack
          <- epoch: kind.epoch_done, go on or stop       -> MLflow through the spool
          <- done:  kind.completed -> end -> verdict     -> MLflow ends the run
          <- lost:  again from its checkpoint, in another worker, or kind.failed

One loop serves every kind of run. Where a training of a study waits, in the order in which idle workers take them::

    Coordinator._again       its worker was lost; it goes on from its checkpoint, and stays in `running` meanwhile
    ControlRuns.left         controls without a judgement
    TrialRuns.interrupted    trials that an earlier launch had given to a worker
    TrialRuns.asked          trials that the study knows and no worker was ever given

`Coordinator.running` has what workers were given, of every kind, until the study has heard how it ended. A confirmation
has the replicates of `ReplicateRuns` in place of controls and trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from harness.core.failpoints import failpoint
from harness.core.signals import handling_signals
from harness.execution.executors.protocol import (
    EpochDone,
    Event,
    Executor,
    TrialDone,
    TrialFailed,
    WorkerLost,
)
from harness.execution.recovery import ended_spools, reconcile_study
from harness.execution.runs.jobs import Jobs, count_attempt
from harness.execution.runs.run import Failure, Run, RunKind
from harness.execution.stopping import (
    RepeatedFailures,
    StopController,
    raise_if_tracking_disk_full,
    raise_if_trial_out_of_space,
    tracking_disk_full_reason,
)
from harness.execution.view import View
from harness.tracking.writer import Writer

POLL_S = 0.2


class Coordinator:
    """Runs trainings of some kinds until none has another, or somebody stops it.

    Attributes
    ----------
    kinds : set once they are made, with the coordinator as their host; an idle worker is given a run of the first
        that has one
    running : runs that were given to a worker and have not ended, by the number of their job
    failures : failures for one reason in a row, of all kinds together
    stopping : what signals do
    """

    def __init__(self, jobs: Jobs, executor: Executor, writer: Writer, view: View) -> None:
        self.jobs, self.executor, self.writer, self.view = jobs, executor, writer, view
        self.running: dict[int, Run] = {}
        self.failures = RepeatedFailures()
        self.stopping = StopController(executor, view)
        self._again: list[Run] = []
        self.kinds: Sequence[RunKind[Any]] = ()

    @property
    def signal(self) -> int | None:
        """Number of the signal that stopped the loop; None where none came."""
        return self.stopping.signal

    def must_leave(self) -> bool:
        """Whether MLflow is not to be waited for any more: a signal came, or the disk that it stores on is full."""
        return self.signal is not None or tracking_disk_full_reason(self.writer, self.jobs.record) is not None

    def raise_if_tracking_disk_full(self) -> None:
        """Raise OutOfSpaceError where MLflow does not store because its disk is full."""
        raise_if_tracking_disk_full(self.writer, self.jobs.record)

    def run(self) -> None:
        """Run the loop. Signals: the first stops at the next step and keeps checkpoints, the second leaves.

        Raises
        ------
        OutOfSpaceError, WorkersFailedError
            The machine is at fault; the same command goes on.
        """
        with handling_signals(self.stopping.on_signal):
            self._take_over()
            try:
                self._loop()
            finally:
                with suppress(OSError):  # a full disk: the next launch finds them running, and goes on
                    for kind in self.kinds:
                        kind.leave_unfinished()

    def _take_over(self) -> None:
        """Put right what a dead process left, and give MLflow what it lacks of runs that have ended."""
        reconcile_study(self.jobs.study, self.jobs.record)
        for spool in ended_spools(self.jobs.study, self.jobs.record):
            if not any(kind.is_left(spool) for kind in self.kinds):
                self.writer.notify(spool)
        for kind in self.kinds:
            kind.begin()

    def _loop(self) -> None:
        while True:
            behind = self.writer.is_backlogged
            if self.signal is None:
                self._give_again()
                while not behind and self.executor.idle > 0 and self.signal is None and self._start_next():
                    pass
            self.stopping.interrupt_workers()
            waits = behind and self.signal is None and any(kind.has_more for kind in self.kinds)
            if not (self.running or waits) or self.stopping.gave_up_waiting:
                return
            for event in self.executor.poll(POLL_S):
                self._handle(event)
            self.raise_if_tracking_disk_full()
            if (news := self.writer.status_message()) is not None:
                self.view.message(news)

    # Starting

    def _give_again(self) -> None:
        """Give runs whose worker was lost to idle ones, before anything new is started."""
        while self._again and self.executor.idle > 0:
            self.executor.submit(self._again.pop(0).job)

    def _start_next(self) -> bool:
        """Give an idle worker the next run, or stack; false where no kind has one."""
        for kind in self.kinds:
            if runs := kind.next():
                self._start(kind, runs)
                return True
        return False

    def _start(self, kind: RunKind[Any], runs: Sequence[Run]) -> None:
        for run in runs:
            self.running[run.job.number], run.stacked = run, len(runs) > 1
        self.executor.submit(*(run.job for run in runs))
        kind.started(runs)

    # Hearing

    def _handle(self, event: Event) -> None:
        raise_if_trial_out_of_space(event)
        run = self.running.get(event.number) if event.number is not None else None
        if run is None:
            if isinstance(event, WorkerLost) and self.signal is None:
                self.view.message(event.reason)
        elif isinstance(event, EpochDone):
            self.executor.reply(event.number, stop=run.kind.epoch_done(run, event))
            run.kind.show_epoch(run, event)  # the worker goes on meanwhile: a terminal may be slow
            self.writer.notify(run.spool)
        elif isinstance(event, TrialDone):
            if event.outcome["state"] != "interrupted":  # else it waits for the next launch
                run.kind.completed(run, event.outcome)
        elif isinstance(event, TrialFailed) and event.kind != "infrastructure":
            self.fail(run, event)
        else:
            self._retry(run, event)

    def fail(self, run: Run, event: TrialFailed) -> None:
        """Fail a run for a reason of its own: it is not tried again as it is.

        The traceback goes into its spool, from where MLflow has it; the study keeps what its kind makes of the reason.
        """
        run.spool.write_traceback(event.traceback)
        reason = f"{event.kind}: {event.reason}"
        run.kind.failed(run, Failure(event.kind, event.reason, reason, event.traceback))

    def _retry(self, run: Run, event: TrialFailed | WorkerLost) -> None:
        """Have a run wait for another worker, or fail it where it was tried often enough.

        After a signal neither: the next launch goes on with it.
        """
        if self.signal is not None:
            return
        given_up = None if run.stacked else run.retries.another(event)  # it may be another's fault
        if given_up is not None:
            run.kind.failed(run, Failure("infrastructure", event.reason, given_up))
            return
        run.stacked = False
        run.kind.retried(run)
        self.view.message(f"{run.label}: {event.reason}; going on from its checkpoint")
        count_attempt(run.spool)
        self._again.append(run)  # alone; of a stack only the first finds its slot free

    def end(self, run: Run, verdict: dict[str, Any]) -> None:
        """Let a run go that the study has heard of: in MLflow it ends as the verdict says."""
        del self.running[run.job.number]
        run.spool.write("verdict", verdict)
        failpoint("coordinator.verdict")
        self.writer.notify(run.spool)
