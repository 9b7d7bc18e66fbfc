"""The study's one writer: ask, dispatch, report, prune, tell, within the budget.

ask -> (duplicate? told at once) -> spool/trial.json -> worker
    <- epoch: report the smoothed value, prune or go on        -> MLflow through the spool
    <- done:  outcome -> tell -> spool/verdict.json            -> MLflow ends the run
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.asking import Asking
from harness.confirmation_runs import is_confirmation, replay
from harness.control_runs import ControlRuns
from harness.executors.protocol import (
    EpochDone,
    Event,
    Executor,
    Job,
    TrialDone,
    TrialFailed,
    WorkerLost,
    WorkersFailedError,
)
from harness.jobs import Jobs
from harness.provenance import Provenance
from harness.record import Record
from harness.run_page import run_name, verdict_of
from harness.search_space import Values
from harness.side_runs import MAX_RETRIES
from harness.signals import handling_signals
from harness.spool import TrialSpool
from harness.stopping import OutOfSpaceError as OutOfSpaceError
from harness.stopping import Stopping, require_space
from harness.study import Study, TrialSummary
from harness.trial_config import TrialConfig
from harness.view import View
from harness.writer import Writer

if TYPE_CHECKING:
    import optuna

    from data.prepare import Prepared

# Trials that may fail in a row for one and the same reason.
MAX_ALIKE = 5
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
    retries: int = 0


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
        self.asking = Asking(study, executor.slots)
        self.controls = ControlRuns(self)
        self.new_trials = 0
        self._spent = 0
        self.out_of_time = False
        self._failures_alike: list[str] = []
        hours = study.sweep.budget.hours
        self._deadline = time.monotonic() + hours * 3600 if hours is not None else None

    @property
    def signal(self) -> int | None:
        """The signal that stopped the study."""
        return self.stopping.signal

    def run(self) -> None:
        """Run the study. Signals: the first stops at the next step and keeps checkpoints, the second leaves."""
        with handling_signals(self.stopping.on_signal):
            resumable = self._recover()
            self.view.begin(
                self.study.name,
                self.study.sweep.budget.trials,
                self._spent - len(resumable),
                self._best_so_far(),
            )
            try:
                self._loop(resumable)
            finally:
                with suppress(OSError):  # a full disk: the next launch finds them running, and goes on
                    self._park()

    def _loop(self, resumable: list[optuna.trial.FrozenTrial]) -> None:
        while True:
            while self.executor.idle > 0 and self.signal is None:
                if self.controls.start_next():
                    continue
                if resumable:
                    self._resume(resumable.pop(0))
                elif not self._start_next():
                    break
            self.stopping.pass_on()
            if not (self.running or self.controls.running) or self.stopping.gave_up_waiting:
                return
            for event in self.executor.poll(POLL_S):
                self._handle(event)
            if (news := self.writer.news()) is not None:
                self.view.message(news)

    # Starting trials

    def _recover(self) -> list[optuna.trial.FrozenTrial]:
        """Take over what a dead coordinator left: trials to go on with, and spools MLflow lacks."""
        from optuna.trial import TrialState

        unfinished = []
        for frozen in self.study.optuna_study.get_trials(deepcopy=False):
            fingerprint = frozen.user_attrs.get("fingerprint")
            if frozen.state.is_finished():
                if fingerprint is not None and "duplicate_of" not in frozen.user_attrs:
                    self.asking.remember(fingerprint, frozen.number)
                    self._spent += 1
            elif fingerprint is not None:
                unfinished.append(frozen)
                self.asking.remember(fingerprint, frozen.number)
                self._spent += 1
            elif frozen.state == TrialState.RUNNING:  # asked for and never started
                self.study.storage.set_trial_user_attr(frozen._trial_id, "state", "abandoned")
                self.study.optuna_study.tell(frozen.number, state=TrialState.FAIL)
        waiting = {frozen.number for frozen in unfinished}
        for folder in self.record.spooled(self.study.name):
            spool = TrialSpool(folder)
            trial = spool.read("trial")
            if trial is None:
                spool.remove()
            elif is_confirmation(trial):
                replay(self.study, spool, trial, self.prepared, self.writer)
            elif trial["number"] < 0:
                self.controls.replay(spool, trial)
            elif trial["number"] not in waiting:
                self._replay(spool, int(trial["number"]))
        return unfinished

    def _replay(self, spool: TrialSpool, number: int) -> None:
        """A trial that was told before its run was ended: give the writer what it needs."""
        if spool.read("verdict") is None:
            trials = self.study.trials()
            if number >= len(trials):
                spool.remove()
                return
            self._write_verdict(spool, trials[number])
        self.writer.poke(spool)

    def _start_next(self) -> bool:
        """Start a configuration nobody ran yet; false where the budget or the space has no more."""
        if self._spent >= self.study.sweep.budget.trials or self._past_deadline():
            return False
        asked = self.asking.next()
        if asked is None:
            return False
        self._start(*asked)
        return True

    def _past_deadline(self) -> bool:
        self.out_of_time = self._deadline is not None and time.monotonic() > self._deadline
        return self.out_of_time

    def _best_so_far(self) -> tuple[int, float] | None:
        best = self.study.best()
        return (best.number, best.score) if best is not None and best.score is not None else None

    def _start(self, trial: optuna.Trial, values: Values, config: TrialConfig) -> None:
        name = run_name(trial.number, values, self.study.space.searched)
        fingerprint = config.fingerprint()
        trial.set_user_attr("name", name)
        trial.set_user_attr("values", dict(values))
        trial.set_user_attr("config", config.model_dump(mode="json"))
        trial.set_user_attr("fingerprint", fingerprint)  # last: from here on the trial exists
        self._spent += 1
        self.new_trials += 1
        self._dispatch(trial, config, name)

    def _resume(self, frozen: optuna.trial.FrozenTrial) -> None:
        import optuna
        from optuna.trial import TrialState

        if frozen.state == TrialState.WAITING:
            self.study.storage.set_trial_state_values(frozen._trial_id, TrialState.RUNNING)
        trial = optuna.Trial(self.study.optuna_study, frozen._trial_id)
        config = TrialConfig.model_validate(frozen.user_attrs["config"])
        self._dispatch(trial, config, frozen.user_attrs["name"])

    def _dispatch(self, trial: optuna.Trial, config: TrialConfig, name: str) -> None:
        spool = self.jobs.spool(f"{trial.number:05d}")
        job = self.jobs.make(trial.number, name, config, spool)
        self.running[trial.number] = _Running(trial, config, name, spool, job)
        self.executor.submit(job)
        self.writer.poke(spool)
        self.view.started(trial.number, name, config.training.epochs, len(spool.epochs()))

    # Hearing from trials

    def _handle(self, event: Event) -> None:
        require_space(event)
        if self.controls.handle(event):
            return
        run = self.running.get(event.number) if event.number is not None else None
        if run is None:
            if isinstance(event, WorkerLost):
                self.view.message(event.reason)
            return
        if isinstance(event, EpochDone):
            self._on_epoch(run, event)
        elif isinstance(event, TrialDone):
            self._on_done(run, event.outcome)
        elif isinstance(event, TrialFailed):
            self._on_failed(run, event)
        else:
            self._retry(run, event.reason)

    def _on_epoch(self, run: _Running, event: EpochDone) -> None:
        stored = self.study.storage.get_trial(run.trial._trial_id).intermediate_values
        if event.epoch not in stored:
            run.trial.report(event.metrics["smoothed"], event.epoch)
        warm = event.epoch + 1 >= self.study.sweep.pruner.warmup_epochs
        self.executor.reply(run.trial.number, stop=bool(warm and run.trial.should_prune()))
        self.view.epoch(run.trial.number, event.epoch, event.metrics)
        self.writer.poke(run.spool)

    def _on_done(self, run: _Running, outcome: dict[str, Any]) -> None:
        from optuna.trial import TrialState

        if outcome["state"] == "interrupted":
            return  # it stays in `running`, and `_park` keeps it for the next launch
        run.trial.set_user_attr("outcome", outcome)
        if outcome["state"] == "pruned":
            seen = f"after epoch {outcome['epochs']} of {run.config.training.epochs}"
            reason = f"the {self.study.sweep.pruner.type} pruner stopped it {seen}"
            self._end(run, TrialState.PRUNED, None, reason)
        else:
            self._end(run, TrialState.COMPLETE, float(outcome["score"]), "")
            self._failures_alike.clear()

    def _on_failed(self, run: _Running, event: TrialFailed) -> None:
        from optuna.trial import TrialState

        if event.kind == "infrastructure":
            self._retry(run, event.reason)
            return
        run.spool.write_traceback(event.traceback)
        run.trial.set_user_attr("traceback", event.traceback[-TRACEBACK:])
        self._end(run, TrialState.FAIL, None, f"{event.kind}: {event.reason}")
        self._stop_failing_alike(event.reason)

    def _stop_failing_alike(self, reason: str) -> None:
        """A broken machine must not burn the budget: trials that all fail one way are not the trials' fault."""
        self._failures_alike = [*(one for one in self._failures_alike if one == reason), reason]
        if len(self._failures_alike) >= MAX_ALIKE:
            raise WorkersFailedError(
                f"{MAX_ALIKE} trials in a row failed the same way, the sweep stops: {reason}"
            )

    def _retry(self, run: _Running, reason: str) -> None:
        from optuna.trial import TrialState

        if self.signal is not None:
            return
        if run.retries >= MAX_RETRIES:
            self._end(run, TrialState.FAIL, None, f"infrastructure, {run.retries + 1} times: {reason}")
            return
        run.retries += 1
        run.trial.set_user_attr("retries", run.retries)
        self.view.message(f"trial {run.trial.number}: {reason}; going on from its checkpoint")
        self.executor.submit(run.job)  # its own slot is the free one

    def _end(self, run: _Running, state: optuna.trial.TrialState, value: float | None, reason: str) -> None:
        number = run.trial.number
        if reason:
            run.trial.set_user_attr("reason", reason)
        self.study.optuna_study.tell(number, value, state=state)
        del self.running[number]
        summary = self.study.trial(number)
        self._write_verdict(run.spool, summary)
        self.writer.poke(run.spool)
        self.asking.ended(summary)
        self.view.finished(number, summary.state, summary.score, reason)

    def _write_verdict(self, spool: TrialSpool, trial: TrialSummary) -> None:
        spool.write("verdict", verdict_of(trial, self.prepared))

    # Stopping

    def _park(self) -> None:
        """Leave unfinished trials waiting, not running: the next launch takes them first."""
        from optuna.trial import TrialState

        for run in self.running.values():
            self.study.storage.set_trial_state_values(run.trial._trial_id, TrialState.WAITING)
            self.asking.abandon(run.trial.number)
        for run in self.running.values():
            self.view.finished(run.trial.number, "interrupted", None, "")
