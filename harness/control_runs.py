"""The controls of a study while its coordinator runs: beside the trials, and outside all that trials decide.

Optuna never hears of a control, so it spends no budget, teaches no sampler, is never pruned, best or
promoted. It takes a trial's way through worker, spool and MLflow under a negative number.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.controls import (
    CONTROLS,
    Control,
    Judgement,
    control_config,
    controls_left,
    controls_of,
    keep_control,
)
from harness.executors.protocol import EpochDone, Event, Job, TrialDone, TrialFailed
from harness.spool import TrialSpool

if TYPE_CHECKING:
    from harness.coordinator import Coordinator
    from harness.trial_config import ControlName, TrialConfig

# A control whose worker dies is tried again this often, from its checkpoint.
MAX_RETRIES = 2


def number_of(name: ControlName) -> int:
    """The number under which a control travels: -1, -2."""
    return -1 - CONTROLS.index(name)


@dataclass
class _Run:
    name: ControlName
    config: TrialConfig
    spool: TrialSpool
    job: Job
    retries: int = 0


class ControlRuns:
    """Runs what is left of a study's controls, each once, before the trials.

    First, because a broken one makes every hour after it a waste, and a sweep that is stopped half-way
    has its controls all the same.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self.study = coordinator.study
        self.left = controls_left(self.study)
        self.running: dict[int, _Run] = {}

    def start_next(self) -> bool:
        """Start a control that was not judged yet, or go on with it; false where none is left."""
        if not self.left:
            return False
        name = self.left.pop(0)
        config = control_config(self.study.space, name)
        spool = self._coordinator.jobs.spool(f"control-{name}")
        header = spool.read("trial")
        changed = header is not None and header["tags"]["harness.fingerprint"] != config.fingerprint()
        if changed or spool.read("verdict") is not None:  # begun otherwise, or failed in an earlier launch
            spool.remove()
        job = self._coordinator.jobs.make(number_of(name), f"control {name}", config, spool)
        self.running[number_of(name)] = _Run(name, config, spool, job)
        self._coordinator.executor.submit(job)
        self._coordinator.writer.poke(spool)
        self._coordinator.view.message(f"control {name}: started, {config.training.epochs} epochs")
        return True

    def handle(self, event: Event) -> bool:
        """Take an event in; false where it is of no control."""
        run = self.running.get(event.number) if event.number is not None else None
        if run is None:
            return False
        if isinstance(event, EpochDone):
            self._coordinator.executor.reply(event.number, stop=False)
            self._coordinator.writer.poke(run.spool)
        elif isinstance(event, TrialDone):
            self._on_done(run, event.outcome)
        elif isinstance(event, TrialFailed) and event.kind != "infrastructure":
            run.spool.write_traceback(event.traceback)
            self._end(run, _failed(run, f"{event.kind}: {event.reason}"))
        else:
            self._retry(run, event.reason)
        return True

    def replay(self, spool: TrialSpool, trial: dict[str, Any]) -> None:
        """Give MLflow what it lacks of a control that a dead coordinator left."""
        name = trial["tags"]["harness.control"]
        if name in self.left:
            return  # it is started soon, and goes on
        if spool.read("verdict") is None:
            ended = [control for control in controls_of(self.study) if control.name == name]
            _write_verdict(spool, ended[0] if ended else Control(name, None, "taken out of the sweep"))
        self._coordinator.writer.poke(spool)

    def _on_done(self, run: _Run, outcome: dict[str, Any]) -> None:
        if outcome["state"] == "interrupted":
            return  # the next launch goes on from its checkpoint
        self._end(run, Control(run.name, Judgement(**outcome["control"]), "", run.config.fingerprint()))

    def _retry(self, run: _Run, reason: str) -> None:
        if self._coordinator.signal is not None:
            return
        if run.retries >= MAX_RETRIES:
            self._end(run, _failed(run, f"infrastructure, {run.retries + 1} times: {reason}"))
            return
        run.retries += 1
        self._coordinator.view.message(f"control {run.name}: {reason}; going on from its checkpoint")
        self._coordinator.executor.submit(run.job)  # its own slot is the free one

    def _end(self, run: _Run, control: Control) -> None:
        keep_control(self.study, control)
        del self.running[number_of(run.name)]
        _write_verdict(run.spool, control)
        self._coordinator.writer.poke(run.spool)
        self._coordinator.view.message(str(control))


def _failed(run: _Run, reason: str) -> Control:
    return Control(run.name, None, reason, run.config.fingerprint())


def _write_verdict(spool: TrialSpool, control: Control) -> None:
    """How the control's run ends in MLflow. It has no `best/` metric: it stands in no ranking."""
    outcome, judgement = spool.read("outcome") or {}, control.judgement
    tags = {
        "harness.state": "complete" if judgement else "failed",
        "harness.verdict": control.verdict,
        "harness.reason": str(control),
    }
    metrics: dict[str, float] = {}
    if judgement is not None:
        names = ("value", "low", "windows", "clusters")
        metrics = {f"control/{name}": float(getattr(judgement, name)) for name in names}
        tags |= {"harness.device": outcome["device"]} if outcome else {}
        tags |= {f"harness.sha256.{name}": digest for name, digest in outcome.get("sha256", {}).items()}
    status = "FINISHED" if judgement else "FAILED"
    spool.write(
        "verdict", {"status": status, "tags": tags, "metrics": metrics, "time_ms": int(time.time() * 1000)}
    )
