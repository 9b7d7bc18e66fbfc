"""The replicates of a confirmation: configurations on fresh seeds, through the workers into the study and MLflow."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.config.trial.trial_config import TrialConfig
from harness.core.failpoints import failpoint
from harness.core.format import format_duration
from harness.execution.runs.jobs import Jobs
from harness.execution.runs.run import Failure, Host, Run, RunKind
from harness.study.confirmation.definition import (
    KIND,
    ConfirmedConfig,
    ReplicateResult,
    folder_of,
    save_result,
)
from harness.study.confirmation.replicate import Replicate, replicate_of
from harness.study.storage.trial_spool import TrialSpool
from harness.tracking.run_header import trial_header
from harness.tracking.run_verdict import verdict_of


@dataclass(kw_only=True)
class ReplicateRun(Run):
    """A configuration under way on a fresh seed; `seed` counts them from 1, 0 being the sweep's own."""

    arm: ConfirmedConfig
    seed: int


class ReplicateRuns(RunKind[ReplicateRun]):
    """Trains configurations on fresh seeds until every one has ended.

    With `stack: N` in the sweep a worker trains up to N at once: the seeds of a configuration, and of those alike but
    for rate and decay.

    Parameters
    ----------
    left : configurations and seeds that have no result yet
    total : trainings of the confirmation in all, done or not
    """

    def __init__(
        self, host: Host, jobs: Jobs, left: Sequence[tuple[ConfirmedConfig, int]], total: int
    ) -> None:
        super().__init__(host)
        self.jobs, self.study = jobs, jobs.study
        self._left = list(left)
        self._anew = {folder_of(arm.fingerprint, seed) for arm, seed in left}
        self._new, self._total = len(self._left), total
        self._numbers = itertools.count(1)
        self._began = time.monotonic()

    @property
    def has_more(self) -> bool:
        """Whether one was given to no worker yet."""
        return bool(self._left)

    def is_left(self, spool: TrialSpool) -> bool:
        """Whether this is the spool of one that this confirmation trains: what an earlier one left is not its end."""
        return spool.folder.name in self._anew

    def next(self) -> Sequence[ReplicateRun]:
        """Take the next, with those that can be trained as one with it.

        A stack is never so high that another idle worker would have nothing: ceil(left / idle) at most.
        """
        if not self._left:
            return ()
        first = self._left[0][0].config
        most = min(first.stack, math.ceil(len(self._left) / self.host.executor.idle))
        key = first.stack_key()
        alike = [one for one in self._left if one[0].config.stack_key() == key][:most]
        self._left = [one for one in self._left if one not in alike]
        return [self._run_of(arm, seed) for arm, seed in alike]

    def _run_of(self, arm: ConfirmedConfig, seed: int) -> ReplicateRun:
        spool = self.jobs.spool(folder_of(arm.fingerprint, seed))
        if spool.read("verdict") is not None:  # it failed in an earlier launch, and is tried again
            spool.remove()
        replicate = replicate_of(self.study, arm, seed, ReplicateResult({}))
        subject = "baseline" if arm.trial is None else str(arm.trial)
        header = header_of(self.jobs, replicate, spool)
        number = next(self._numbers)
        job = self.jobs.make(
            number, replicate.label, arm.config, spool, replicate=seed, subject=subject, header=header
        )
        return ReplicateRun(
            kind=self, label=replicate.label, config=arm.config, spool=spool, job=job, arm=arm, seed=seed
        )

    def completed(self, run: ReplicateRun, outcome: dict[str, Any]) -> None:
        """Keep the outcome under fingerprint and seed, so that nothing trains it again."""
        self._keep(run, ReplicateResult(outcome))
        self.host.failures.clear()

    def failed(self, run: ReplicateRun, failure: Failure) -> None:
        """Keep the reason; where the machine was at fault, the next `harness confirm` tries again."""
        again = failure.kind in ("infrastructure", "out_of_memory")
        self._keep(run, ReplicateResult({}, failure.reason, again=again))
        self.host.failures.add(failure.kind, failure.reason)

    def _keep(self, run: ReplicateRun, result: ReplicateResult) -> None:
        save_result(self.study, run.arm.fingerprint, run.seed, result)
        failpoint("confirmation result kept")
        replicate = replicate_of(self.study, run.arm, run.seed, result)
        self.host.end(run, verdict_of(replicate, run.spool.read("trial") or {}))
        self.host.view.message(self._progress_line(run, replicate))

    def _progress_line(self, run: ReplicateRun, replicate: Replicate) -> str:
        ended = self._new - len(self._left) - len(self.host.running)
        left = self._new - ended
        pace = (time.monotonic() - self._began) / ended
        how = (
            f"score {replicate.score:.3f}" if replicate.score is not None else f"failed ({replicate.reason})"
        )
        about = f", about {format_duration(pace * left)} left" if left else ""
        return f"{run.label}: {how}  {self._total - left}/{self._total}{about}"


def header_of(jobs: Jobs, replicate: Replicate, spool: TrialSpool) -> dict[str, Any]:
    """What the run of a replicate is called and made of (trial.json); what its spool has already is kept."""
    begun = spool.read("trial")
    if begun is not None:
        return begun
    config = TrialConfig.from_record(replicate.config)
    name = f"{replicate.name or replicate.label} seed {replicate.replicate}"
    seed = jobs.seed(replicate.replicate)
    header = trial_header(
        replicate.number, name, config, jobs.prepared[config.data.digest()], seed, jobs.tags
    )
    tags = {
        **header["tags"],
        "harness.kind": KIND,
        "harness.replicate": str(replicate.replicate),
        "harness.trial": "baseline" if replicate.number < 0 else str(replicate.number),
    }
    own = {"key": replicate.key, "number": None, "config": dict(replicate.config)}
    return {**header, **own, "tags": tags}
