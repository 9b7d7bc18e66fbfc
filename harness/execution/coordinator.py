"""The study's one writer: ask, dispatch, report, prune, tell, within the budget.

ask -> (duplicate? told at once) -> spool/trial.json -> worker, alone or in a stack
    <- epoch: report the smoothed value, prune or go on        -> MLflow through the spool
    <- done:  outcome -> tell -> spool/verdict.json            -> MLflow ends the run
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.search_space import Values
from harness.config.trial_config import TrialConfig
from harness.core.failpoints import failpoint
from harness.core.provenance import Provenance
from harness.core.signals import handling_signals
from harness.execution.control_runs import ControlRuns
from harness.execution.executors.protocol import (
    EpochDone,
    Event,
    Executor,
    TrialDone,
    TrialFailed,
    WorkerLost,
)
from harness.execution.jobs import Jobs, Retries, count_attempt
from harness.execution.recovery import ended_spools, settle
from harness.execution.stopping import (
    RepeatedFailures,
    Stopping,
    raise_if_tracking_disk_full,
    raise_if_trial_out_of_space,
    tracking_disk_full_reason,
)
from harness.execution.trial_queue import Begun, TrialQueue, resumed
from harness.execution.view import View
from harness.study.ask import BATCH_SIZE, OOM_RETRY_OF, RETRY_BATCH_SIZE, TrialAsker
from harness.study.sampling.pruning_decision import should_prune
from harness.study.storage.record import Record
from harness.study.storage.trial_attributes import set_attributes
from harness.study.storage.trial_spool import TrialSpool
from harness.study.study import Study
from harness.study.trials import TrialSummary
from harness.tracking.run_header import run_name
from harness.tracking.run_verdict import verdict_of
from harness.tracking.writer import Writer
from harness.training.job import Job

if TYPE_CHECKING:
    import optuna

    from data.preparation.prepare import Prepared

POLL_S = 0.2
# Characters of a traceback's end that the study keeps; the whole is an artifact of the trial's run.
TRACEBACK = 2_000


@dataclass
class _Running:
    trial: optuna.Trial
    config: TrialConfig
    name: str
    spool: TrialSpool
    job: Job
    retries: Retries
    stacked: bool


class Coordinator:
    """Runs one study until its budget is spent, its space is exhausted, or somebody stops it."""

    def __init__(
        self,
        study: Study,
        record: Record,
        prepared: Mapping[str, Prepared],
        executor: Executor,
        writer: Writer,
        view: View,
        code: Provenance,
        cache: Path,
    ) -> None:
        self.study, self.record, self.prepared = study, record, prepared
        self.executor, self.writer, self.view = executor, writer, view
        self.jobs = Jobs(study, record, prepared, code, cache)
        self.running: dict[int, _Running] = {}
        self.stopping = Stopping(executor, view)
        self._stack = study.sweep.stack
        self.asking = TrialAsker(study, executor.slots * self._stack)
        self.interrupted = TrialQueue(self._stack)  # begun by an earlier launch, and given to a worker by it
        self.asked = TrialQueue(self._stack)  # never given to any
        self._again: list[_Running] = []
        self.controls = ControlRuns(self, self.jobs)
        self.new_trials = 0
        self._spent = 0
        self.out_of_time = False
        self._alike = RepeatedFailures()
        hours = study.sweep.budget.hours
        self._deadline = time.monotonic() + hours * 3600 if hours is not None else None

    @property
    def signal(self) -> int | None:
        """The signal that stopped the study."""
        return self.stopping.signal

    def run(self) -> None:
        """Run the study. Signals: the first stops at the next step and keeps checkpoints, the second leaves."""
        with handling_signals(self.stopping.on_signal):
            self._take_over()
            self.view.begin(
                self.study.name,
                self.study.sweep.budget.trials,
                self._spent - len(self.interrupted) - len(self.asked),
                self._best_so_far(),
            )
            try:
                self._loop()
            finally:
                with suppress(OSError):  # a full disk: the next launch finds them running, and goes on
                    self._requeue_unfinished()

    def _loop(self) -> None:
        while True:
            while self._again and self.executor.idle > 0 and self.signal is None:
                self.executor.submit(self._again.pop(0).job)
            behind = self.writer.behind
            while self.executor.idle > 0 and self.signal is None and not behind:
                if self.controls.start_next():
                    continue
                if not self._start_next():
                    break
            self.stopping.interrupt_workers()
            busy = self.running or self.controls.running or (behind and self.signal is None)
            if not busy or self.stopping.gave_up_waiting:
                return
            for event in self.executor.poll(POLL_S):
                self._handle(event)
            self.raise_if_tracking_disk_full()
            if (news := self.writer.news()) is not None:
                self.view.message(news)

    def must_leave(self) -> bool:
        """Whether nothing more can be waited for: after a signal, or on a full disk."""
        return self.signal is not None or tracking_disk_full_reason(self.writer, self.record) is not None

    def raise_if_tracking_disk_full(self) -> None:
        """Raise OutOfSpaceError where MLflow does not store because its disk is full."""
        raise_if_tracking_disk_full(self.writer, self.record)

    # Starting trials

    def _take_over(self) -> None:
        """Put right what a dead coordinator left, give MLflow what it lacks, and find the trials to go on with."""
        settle(self.study, self.record)
        for spool in ended_spools(self.study, self.record):
            if not self.controls.is_left(spool):
                self.writer.notify(spool)
        begun = [
            frozen
            for frozen in self.study.optuna_study.get_trials(deepcopy=False)
            if "fingerprint" in frozen.user_attrs and "duplicate_of" not in frozen.user_attrs
        ]
        for frozen in begun:
            self.asking.remember(frozen.user_attrs["fingerprint"], frozen.number)
        self._spent = len(begun)
        for frozen in begun:
            if not frozen.state.is_finished():
                given = self.jobs.spool(f"{frozen.number:05d}").read("trial") is not None
                (self.interrupted if given else self.asked).add(resumed(self.study, frozen))

    def _start_next(self) -> bool:
        """Give an idle worker the next trial, or stack; false where the budget or the space has no more.

        So many are asked for as may be stacked: those that cannot go with the oldest wait, and more are asked for when
        a worker is idle next. A launch that goes on asks at the same points.
        """
        trials = self.interrupted.take()
        if not trials:
            if (self._spent >= self.study.sweep.budget.trials and not self.asked) or self._past_deadline():
                return False
            while len(self.asked) < self._stack and self._spent < self.study.sweep.budget.trials:
                asked = self.asking.next()
                if asked is None:
                    break
                self.asked.add(self._begin(*asked))
            trials = self.asked.take()
        if trials:
            self._dispatch(trials)
        return bool(trials)

    def _past_deadline(self) -> bool:
        self.out_of_time = self._deadline is not None and time.monotonic() > self._deadline
        return self.out_of_time

    def _best_so_far(self) -> tuple[int, float] | None:
        best = self.study.best()
        return (best.number, best.score) if best is not None and best.score is not None else None

    def _begin(self, trial: optuna.Trial, values: Values, config: TrialConfig) -> Begun:
        shown = self.study.space.searched
        if OOM_RETRY_OF in trial.user_attrs and BATCH_SIZE not in shown:
            shown = (*shown, BATCH_SIZE)
        name = run_name(trial.number, values, shown)
        attributes = {"name": name, "values": dict(values), "config": config.model_dump(mode="json")}
        # The fingerprint last: from there on the trial exists.
        set_attributes(self.study.storage, trial, {**attributes, "fingerprint": config.fingerprint()})
        failpoint("coordinator.started")
        self._spent += 1
        self.new_trials += 1
        return Begun(trial, config, name, new=True)

    def _dispatch(self, trials: Sequence[Begun]) -> None:
        runs = []
        for one in trials:
            number = one.trial.number
            spool = self.jobs.spool(f"{number:05d}")
            job = self.jobs.make(number, one.name, one.config, spool)
            run = _Running(one.trial, one.config, one.name, spool, job, Retries(spool), len(trials) > 1)
            self.running[number] = run
            runs.append(run)
        self.executor.submit(*(run.job for run in runs))
        failpoint("coordinator.dispatched")
        for one, run in zip(trials, runs, strict=True):
            self.writer.notify(run.spool, begun=one.new)
            epochs = run.config.training.epochs
            self.view.started(run.trial.number, run.name, epochs, len(run.spool.epochs()))

    # Hearing from trials

    def _handle(self, event: Event) -> None:
        raise_if_trial_out_of_space(event)
        if self.controls.handle(event):
            return
        run = self.running.get(event.number) if event.number is not None else None
        if run is None:
            if isinstance(event, WorkerLost) and self.signal is None:
                self.view.message(event.reason)
            return
        if isinstance(event, EpochDone):
            self._on_epoch(run, event)
        elif isinstance(event, TrialDone):
            self._on_done(run, event.outcome)
        elif isinstance(event, TrialFailed):
            self._on_failed(run, event)
        else:
            self._retry(run, event)

    def _on_epoch(self, run: _Running, event: EpochDone) -> None:
        stored = self.study.storage.get_trial(self.study.trial_id(run.trial.number)).intermediate_values
        if event.epoch not in stored and math.isfinite(event.metrics["smoothed"]):
            run.trial.report(event.metrics["smoothed"], event.epoch)
            failpoint("coordinator.reported")
            run.retries.came_further()
        # Optuna judges the last epoch that it knows: one that is repeated after a kill was not the trial's end.
        last = event.epoch >= max(stored, default=-1)
        due = last and event.epoch + 1 >= self.study.sweep.pruner.warmup_epochs
        stop = due and should_prune(self.study.optuna_study, self.study.sweep.pruner, run.trial)
        self.executor.reply(run.trial.number, stop=stop)
        self.view.epoch(run.trial.number, event.epoch, event.metrics)
        self.writer.notify(run.spool)

    def _on_done(self, run: _Running, outcome: dict[str, Any]) -> None:
        from optuna.trial import TrialState

        if outcome["state"] == "interrupted":
            return  # it stays in `running`, and `_requeue_unfinished` keeps it for the next launch
        if not math.isfinite(outcome["score"]):  # Optuna would take -inf, and inf for the best of all
            failed = TrialFailed(run.trial.number, "diverged", f"the score is {outcome['score']}", "")
            self._on_failed(run, failed)
            return
        set_attributes(self.study.storage, run.trial, {"outcome": outcome, "score": float(outcome["score"])})
        failpoint("coordinator.outcome")
        self._alike.clear()
        if outcome["state"] == "pruned":
            seen = f"after epoch {outcome['epochs']} of {run.config.training.epochs}"
            reason = f"the {self.study.sweep.pruner.type} pruner stopped it {seen}"
            self._end(run, TrialState.PRUNED, None, reason)
        else:
            self._end(run, TrialState.COMPLETE, float(outcome["score"]), "")

    def _on_failed(self, run: _Running, event: TrialFailed) -> None:
        from optuna.trial import TrialState

        if event.kind == "infrastructure":
            self._retry(run, event)
            return
        run.spool.write_traceback(event.traceback)
        run.trial.set_user_attr("traceback", event.traceback[-TRACEBACK:])
        reason = f"{event.kind}: {event.reason}"
        if event.kind == "out_of_memory":
            reason += self._try_smaller(run)
        self._end(run, TrialState.FAIL, None, reason)
        self._alike.add(event.kind, event.reason)

    def _try_smaller(self, run: _Running) -> str:
        """Have a trial that ran out of memory tried once more, smaller; what its reason says of that."""
        windows = len(self.prepared[run.config.data.digest()].train.manifest)
        batch_size = self.asking.smaller(run.trial, run.config, windows)
        if batch_size is None:
            return ""
        run.trial.set_user_attr(RETRY_BATCH_SIZE, batch_size)
        return f"; to be tried with {BATCH_SIZE} {batch_size}, as another trial of the budget"

    def _retry(self, run: _Running, event: TrialFailed | WorkerLost) -> None:
        from optuna.trial import TrialState

        if self.signal is not None:
            return
        given_up = None if run.stacked else run.retries.another(event)  # it may be another's fault
        if given_up is not None:
            self._end(run, TrialState.FAIL, None, given_up)
            self._alike.add("infrastructure", event.reason)
            return
        run.stacked = False
        run.trial.set_user_attr("retries", run.trial.user_attrs.get("retries", 0) + 1)
        self.view.message(f"trial {run.trial.number}: {event.reason}; going on from its checkpoint")
        count_attempt(run.spool)
        self._again.append(run)  # alone; of a stack only the first finds its slot free

    def _end(self, run: _Running, state: optuna.trial.TrialState, value: float | None, reason: str) -> None:
        number = run.trial.number
        note = run.trial.user_attrs["reason"] if OOM_RETRY_OF in run.trial.user_attrs else ""
        reason = "; ".join(part for part in (reason, note) if part)
        if reason:
            run.trial.set_user_attr("reason", reason)
        self.study.optuna_study.tell(number, value, state=state)
        failpoint("coordinator.told")
        del self.running[number]
        summary = self.study.trial(number)
        self._write_verdict(run.spool, summary)
        self.writer.notify(run.spool)
        self.asking.ended(summary)
        self.view.finished(number, summary.state, summary.score, reason)

    def _write_verdict(self, spool: TrialSpool, trial: TrialSummary) -> None:
        spool.write("verdict", verdict_of(trial, spool.read("trial") or {}))
        failpoint("coordinator.verdict")

    # Stopping

    def _requeue_unfinished(self) -> None:
        """Leave unfinished trials waiting, not running: the next launch takes them first."""
        from optuna.trial import TrialState

        for one in (*self.running.values(), *self.interrupted, *self.asked):
            number = one.trial.number
            self.study.storage.set_trial_state_values(self.study.trial_id(number), TrialState.WAITING)
            self.asking.fail_duplicates(number)
        for run in self.running.values():
            self.view.finished(run.trial.number, "interrupted", None, "")
