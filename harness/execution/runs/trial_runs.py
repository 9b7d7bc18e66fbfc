"""The trials of a study: ask, begin, report, prune, tell, within the budget.

ask -> (duplicate? told at once) -> begun: the study knows its configuration -> a worker
    <- epoch: report the smoothed value, prune or go on
    <- done:  outcome -> tell -> verdict

A trial has begun once its fingerprint is in the study. It is in `asked` until a worker is given it, then in
`Host.running` until Optuna is told; what a launch leaves in there, the next one has in `interrupted`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.config.search_space import Values
from harness.config.trial.trial_config import TrialConfig
from harness.core.failpoints import failpoint
from harness.execution.executors.protocol import EpochDone, TrialFailed
from harness.execution.runs.jobs import Jobs
from harness.execution.runs.run import Failure, Host, Run, RunKind
from harness.execution.runs.trial_queue import PendingTrial, TrialQueue, resume_trial
from harness.study.ask import BATCH_SIZE, OOM_RETRY_OF, RETRY_BATCH_SIZE, TrialAsker
from harness.study.sampling.pruning_decision import should_prune
from harness.study.storage.trial_attributes import set_attributes
from harness.tracking.run_header import run_name
from harness.tracking.run_verdict import verdict_of

if TYPE_CHECKING:
    import optuna

# Characters of a traceback's end that the study keeps; the whole is an artifact of the trial's run.
TRACEBACK = 2_000


@dataclass(kw_only=True)
class TrialRun(Run):
    """A trial under way: Optuna's, and the name of its run.

    new : MLflow never heard of it
    told : Optuna knows its end; what is left is to let it go
    """

    trial: optuna.Trial
    name: str
    new: bool
    told: bool = False


class TrialRuns(RunKind[TrialRun]):
    """Runs a study's trials until its budget is spent or its space is exhausted.

    Attributes
    ----------
    interrupted : begun by an earlier launch and given to a worker by it; they come first
    asked : begun by this launch or an earlier one, and never given to a worker
    new_trials : how many this launch began
    out_of_time : whether the hours of the budget were over when a trial was next
    """

    def __init__(self, host: Host, jobs: Jobs) -> None:
        super().__init__(host)
        self.jobs, self.study = jobs, jobs.study
        stack = self.study.sweep.stack
        self.asker = TrialAsker(self.study, host.executor.slots * stack)
        self.interrupted, self.asked = TrialQueue(stack), TrialQueue(stack)
        self.new_trials = 0
        self.out_of_time = False
        self._stack = stack
        self._spent = 0
        hours = self.study.sweep.budget.hours
        self._deadline = time.monotonic() + hours * 3600 if hours is not None else None

    def begin(self) -> None:
        """Queue the trials to go on with; the budget counts every one that has begun.

        One with a trial.json in its spool was given to a worker, so it is `interrupted`; else it was only `asked`.
        """
        begun = [
            frozen
            for frozen in self.study.optuna_study.get_trials(deepcopy=False)
            if "fingerprint" in frozen.user_attrs and "duplicate_of" not in frozen.user_attrs
        ]
        for frozen in begun:
            self.asker.record_fingerprint(frozen.user_attrs["fingerprint"], frozen.number)
            if not frozen.state.is_finished():
                given = self.jobs.spool(f"{frozen.number:05d}").read("trial") is not None
                (self.interrupted if given else self.asked).add(resume_trial(self.study, frozen))
        self._spent = len(begun)
        ended = self._spent - len(self.interrupted) - len(self.asked)
        best = self.study.best()
        shown = (best.number, best.score) if best is not None and best.score is not None else None
        self.host.view.begin(self.study.name, self.study.sweep.budget.trials, ended, shown)

    # Which trial is next

    @property
    def has_more(self) -> bool:
        """Whether there may be another: only asking tells."""
        return True

    def next(self) -> Sequence[TrialRun]:
        """Take the next trial, or stack; none where the budget, its hours or the space has no more.

        So many are asked for as may be stacked: those that cannot go with the oldest wait, and more are asked for when
        a worker is idle next. A launch that goes on asks at the same points.
        """
        trials = self.interrupted.pop_stack()
        if not trials:
            if (self._budget_is_spent() and not self.asked) or self._is_past_deadline():
                return ()
            while len(self.asked) < self._stack and not self._budget_is_spent():
                asked = self.asker.next()
                if asked is None:
                    break
                self.asked.add(self._begin_trial(*asked))
            trials = self.asked.pop_stack()
        return [self._run_of(pending) for pending in trials]

    def _budget_is_spent(self) -> bool:
        return self._spent >= self.study.sweep.budget.trials

    def _is_past_deadline(self) -> bool:
        self.out_of_time = self._deadline is not None and time.monotonic() > self._deadline
        return self.out_of_time

    def _begin_trial(self, trial: optuna.Trial, values: Values, config: TrialConfig) -> PendingTrial:
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
        return PendingTrial(trial, config, name, new=True)

    def _run_of(self, pending: PendingTrial) -> TrialRun:
        number = pending.trial.number
        spool = self.jobs.spool(f"{number:05d}")
        job = self.jobs.make(number, pending.name, pending.config, spool)
        return TrialRun(
            kind=self,
            label=f"trial {number}",
            config=pending.config,
            spool=spool,
            job=job,
            trial=pending.trial,
            name=pending.name,
            new=pending.new,
        )

    def started(self, runs: Sequence[TrialRun]) -> None:
        """Tell MLflow and people that a worker was given these, and after how many epochs they go on."""
        failpoint("coordinator.dispatched")
        for run in runs:
            self.host.writer.notify(run.spool, begun=run.new)
            self.host.view.started(
                run.trial.number, run.name, run.config.training.epochs, len(run.spool.epochs())
            )

    # What becomes of it

    def epoch_done(self, run: TrialRun, event: EpochDone) -> bool:
        """Report the epoch's smoothed score to Optuna, once; whether the pruner stops the trial there.

        What is no number is not reported. The pruner is not asked before `warmup_epochs` epochs.
        """
        smoothed = event.metrics["smoothed"]
        stored = self.study.storage.get_trial(self.study.trial_id(run.trial.number)).intermediate_values
        if event.epoch not in stored and math.isfinite(smoothed):
            run.trial.report(smoothed, event.epoch)
            failpoint("coordinator.reported")
            run.retries.came_further()
        # Optuna judges the last epoch that it knows: one that is repeated after a kill was not the trial's end.
        last = event.epoch >= max(stored, default=-1)
        due = last and event.epoch + 1 >= self.study.sweep.pruner.warmup_epochs
        return due and should_prune(self.study.optuna_study, self.study.sweep.pruner, run.trial)

    def show_epoch(self, run: TrialRun, event: EpochDone) -> None:
        """Show the epoch in the view of the sweep."""
        self.host.view.epoch(run.trial.number, event.epoch, event.metrics)

    def completed(self, run: TrialRun, outcome: dict[str, Any]) -> None:
        """Keep the outcome and tell the score; one that is no number fails the trial."""
        from optuna.trial import TrialState

        if not math.isfinite(outcome["score"]):  # Optuna would take -inf, and inf for the best of all
            no_number = f"the score is {outcome['score']}"
            self.host.fail(run, TrialFailed(run.trial.number, "diverged", no_number, ""))
            return
        score = float(outcome["score"])
        set_attributes(self.study.storage, run.trial, {"outcome": outcome, "score": score})
        failpoint("coordinator.outcome")
        self.host.failures.clear()
        if outcome["state"] == "pruned":
            seen = f"after epoch {outcome['epochs']} of {run.config.training.epochs}"
            reason = f"the {self.study.sweep.pruner.type} pruner stopped it {seen}"
            self._tell(run, TrialState.PRUNED, None, reason)
        else:
            self._tell(run, TrialState.COMPLETE, score, "")

    def failed(self, run: TrialRun, failure: Failure) -> None:
        """Tell Optuna that it failed, and why; what ran out of memory is asked for once more, smaller."""
        from optuna.trial import TrialState

        reason = failure.reason
        if failure.kind != "infrastructure":
            run.trial.set_user_attr("traceback", failure.traceback[-TRACEBACK:])
        if failure.kind == "out_of_memory":
            reason += self._try_smaller(run)
        self._tell(run, TrialState.FAIL, None, reason)
        self.host.failures.add(failure.kind, failure.cause)

    def _try_smaller(self, run: TrialRun) -> str:
        """Have a trial that ran out of memory tried once more, smaller; what its reason says of that."""
        windows = len(self.jobs.prepared[run.config.data.digest()].train.manifest)
        batch_size = self.asker.reduced_batch_size(run.trial, run.config, windows)
        if batch_size is None:
            return ""
        run.trial.set_user_attr(RETRY_BATCH_SIZE, batch_size)
        return f"; to be tried with {BATCH_SIZE} {batch_size}, as another trial of the budget"

    def retried(self, run: TrialRun) -> None:
        """Count the retry in the trial's attribute `retries`, of which `harness why` tells."""
        run.trial.set_user_attr("retries", run.trial.user_attrs.get("retries", 0) + 1)

    def _tell(self, run: TrialRun, state: optuna.trial.TrialState, value: float | None, reason: str) -> None:
        """Tell Optuna how a trial ended; then MLflow, its duplicates and people."""
        number = run.trial.number
        note = run.trial.user_attrs["reason"] if OOM_RETRY_OF in run.trial.user_attrs else ""
        reason = "; ".join(part for part in (reason, note) if part)
        if reason:
            run.trial.set_user_attr("reason", reason)
        self.study.optuna_study.tell(number, value, state=state)
        run.told = True
        failpoint("coordinator.told")
        summary = self.study.trial(number)
        self.host.end(run, verdict_of(summary, run.spool.read("trial") or {}))
        self.asker.tell_duplicates(summary)
        self.host.view.finished(number, summary.state, summary.score, reason)

    def leave_unfinished(self) -> None:
        """Leave unfinished trials waiting, not running: the next launch takes them first."""
        from optuna.trial import TrialState

        running = [run for run in self.host.running.values() if isinstance(run, TrialRun) and not run.told]
        for one in (*running, *self.interrupted, *self.asked):
            self.study.storage.set_trial_state_values(
                self.study.trial_id(one.trial.number), TrialState.WAITING
            )
            self.asker.fail_duplicates(one.trial.number)
        for run in running:
            self.host.view.finished(run.trial.number, "interrupted", None, "")
