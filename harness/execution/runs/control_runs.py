"""The controls of a study, before its trials and outside all that trials decide.

Optuna never hears of a control, so it spends no budget, teaches no sampler, is never pruned, best or
promoted. It takes a trial's way through worker, spool and MLflow under a negative number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.config.control_configs import CONTROLS, control_config
from harness.execution.runs.jobs import Jobs
from harness.execution.runs.run import Failure, Host, Run, RunKind
from harness.metrics.chance_level import ChanceTestResult
from harness.study.controls import Control, controls_left, keep_control
from harness.study.storage.trial_spool import TrialSpool
from harness.tracking.run_verdict import verdict_of_control

if TYPE_CHECKING:
    from harness.config.trial.trial_config import ControlName


def number_of(name: ControlName) -> int:
    """Number of a control's job: -1, -2, by its place in `CONTROLS`; trials have those from 0 on."""
    return -1 - CONTROLS.index(name)


@dataclass(kw_only=True)
class ControlRun(Run):
    """A control under way; it ends in a judgement, not in a score to compare."""

    name: ControlName


class ControlRuns(RunKind[ControlRun]):
    """Runs what is left of a study's controls, each once, before the trials.

    First, because a broken one makes every hour after it a waste, and a sweep that is stopped half-way
    has its controls all the same.

    Attributes
    ----------
    left : controls that the sweep asks for, have no judgement, and were given to no worker of this launch
    """

    def __init__(self, host: Host, jobs: Jobs) -> None:
        super().__init__(host)
        self.jobs, self.study = jobs, jobs.study
        self.left = controls_left(self.study)

    @property
    def has_more(self) -> bool:
        """Whether one is left."""
        return bool(self.left)

    def next(self) -> Sequence[ControlRun]:
        """Take the next that is left: from its checkpoint, or anew where it failed or is configured otherwise now."""
        if not self.left:
            return ()
        name = self.left.pop(0)
        config = control_config(self.study.space, name)
        spool = self.jobs.spool(f"control-{name}")
        header = spool.read("trial")
        changed = header is not None and header["tags"]["harness.fingerprint"] != config.fingerprint()
        if (
            changed or spool.read("verdict") is not None
        ):  # configured otherwise, or failed in an earlier launch
            spool.remove()
        label = f"control {name}"
        job = self.jobs.make(number_of(name), label, config, spool)
        return [ControlRun(kind=self, label=label, config=config, spool=spool, job=job, name=name)]

    def is_left(self, spool: TrialSpool) -> bool:
        """Whether this is the spool of a control that is started soon, from its checkpoint or anew."""
        return spool.folder.name in [f"control-{name}" for name in self.left]

    def completed(self, run: ControlRun, outcome: dict[str, Any]) -> None:
        """Keep the judgement; a broken control fails guards of every promotion, never the sweep."""
        result = ChanceTestResult(**outcome["control"])
        self._keep(run, Control(run.name, result, "", run.config.fingerprint()))

    def failed(self, run: ControlRun, failure: Failure) -> None:
        """A control without a judgement; whatever the reason, the next launch tries it again."""
        self._keep(run, Control(run.name, None, failure.reason, run.config.fingerprint()))

    def _keep(self, run: ControlRun, control: Control) -> None:
        keep_control(self.study, control)
        self.host.end(run, verdict_of_control(run.spool, control))
        self.host.view.message(str(control))
