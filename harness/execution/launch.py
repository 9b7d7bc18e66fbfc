"""One launch of a sweep: gate, study, workers, record, in that order."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from harness.config.control_configs import control_config
from harness.config.cost import Cost, estimate
from harness.config.search_space import SearchSpace
from harness.config.sweep import Sweep
from harness.config.trial.trial_config import TrialConfig
from harness.core.disk_space import disk_full_as_out_of_space, require_free_space
from harness.core.files import write_json
from harness.core.format import format_duration
from harness.core.provenance import Provenance, provenance
from harness.core.settings import Settings
from harness.execution.cache_quota import keep_within_quota, lease_features, quota_from_environment
from harness.execution.coordinator import Coordinator
from harness.execution.data_gate import DataInspection, audit_data_configs, require_audits_pass
from harness.execution.executors.build import executor_class
from harness.execution.executors.protocol import Executor
from harness.execution.recovery import may_show_running, reconcile_runs
from harness.execution.runs.control_runs import ControlRuns
from harness.execution.runs.jobs import Jobs
from harness.execution.runs.trial_runs import TrialRuns
from harness.execution.session import SessionEnd, run_session
from harness.execution.view import View
from harness.study.controls import Control, controls_left, controls_of
from harness.study.skipped_front_ends import skip_unavailable_front_ends, skipped_front_ends
from harness.study.storage.record import Record
from harness.study.study import Study, open_study
from harness.study.trials import TrialSummary, best_of, spent
from harness.tracking.experiment import Tracking, connect
from harness.tracking.server.server import TrackingServer, team_uri
from harness.tracking.writer import Writer


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How a launch ended.

    Attributes
    ----------
    resumed : whether the study was there before
    trials : all of the study's, those of earlier launches too
    new_trials : how many this launch began
    inspections : its data configurations, prepared and audited
    seconds : wall time, with the preparation of data
    signal : number of the signal that stopped it; None where it came to its end
    exhausted : whether every combination of the parameters has been run
    out_of_time : whether the hours of the budget were over before its trials
    unstored : spools that MLflow does not hold completely
    problem : why not; None where it holds all, or a signal is reason enough
    budget : trials that the sweep file allows, over all launches
    controls : those of the study that ended, with what they showed
    skipped : front ends whose file is missing here
    """

    study: str
    resumed: bool
    trials: list[TrialSummary]
    new_trials: int
    inspections: list[DataInspection]
    seconds: float
    signal: int | None
    exhausted: bool
    out_of_time: bool
    unstored: list[Path]
    problem: str | None
    budget: int
    controls: tuple[Control, ...] = ()
    skipped: tuple[dict[str, str], ...] = ()

    @property
    def best(self) -> TrialSummary | None:
        """The complete trial of the highest score."""
        return best_of(self.trials)

    @property
    def spent(self) -> int:
        """Trials of all launches that count against the budget."""
        return spent(self.trials)


OnComplete = Callable[[Study, Record, Tracking | None], None]


def launch(sweep: Sweep, settings: Settings, view: View, on_complete: OnComplete | None = None) -> Launch:
    """Run a sweep to the end of its budget, or until a signal.

    `on_complete` is called when all trainings have ended undisturbed and MLflow answers, before the launch's run
    ends: what it writes there belongs to that run.

    Raises
    ------
    GateRefusedError
        The data would make every score worthless.
    DataChangedError
        The study's earlier trials were judged on other windows.
    RecordError
        The record cannot be used, or the study is being run.
    OutOfSpaceError, WorkersFailedError
        The machine is at fault; the same command goes on.
    """
    began = time.monotonic()
    space = SearchSpace(sweep)
    record = Record(settings.record)
    record.check()  # this and the next three before hours of preparation
    executor_class().check()
    team_uri()
    quota_from_environment()
    skip_unavailable_front_ends(space, view.message)
    with record.beginning() as begun:
        inspections = _pass_gate(space, settings, view)
        _enforce_cache_quota(inspections, settings, view)
        record.open(begun)
    with disk_full_as_out_of_space((record.root, settings.cache)), TrackingServer(record) as server:
        study = open_study(record, sweep)
        study.space = space
        try:
            study.check_manifests({i.prepared.config.digest(): i.digests for i in inspections})
            _announce(study, inspections, settings, view)
            code = provenance(settings.resolved_device)
            study.describe([one.described() for one in inspections], code.tags, skipped_front_ends(space))
            prepared = {one.prepared.config.digest(): one.prepared for one in inspections}
            jobs = Jobs(study, record, prepared, code, settings.cache)
            launched = time.time_ns()
            writer = Writer(server, lambda uri: open_tracking(uri, study, code, inspections, launched))
            trials, end = _train(jobs, writer, settings, view, on_complete)
        finally:
            study.release()
    keep_within_quota(settings.cache, view.message)  # this launch has added to it
    problem = end.problem or (None if end.signal is not None else "MLflow did not answer")
    return Launch(
        study=study.name,
        resumed=study.resumed,
        trials=study.trials(),
        new_trials=trials.new_trials,
        inspections=inspections,
        seconds=time.monotonic() - began,
        signal=end.signal,
        exhausted=trials.asker.exhausted,
        out_of_time=trials.out_of_time,
        unstored=end.unstored,
        problem=problem if end.unstored else None,
        budget=sweep.budget.trials,
        controls=tuple(controls_of(study)),
        skipped=tuple(skipped_front_ends(space)),
    )


def _pass_gate(space: SearchSpace, settings: Settings, view: View) -> list[DataInspection]:
    """Prepare and audit the data and say what it is; GateRefusedError where an audit refuses."""
    inspections = audit_data_configs(space, settings, view.message)
    for inspection in inspections:
        sizes = ", ".join(f"{len(part.manifest)} {name}" for name, part in inspection.prepared.splits.items())
        view.message(f"data: {inspection.name}: {sizes} windows, {inspection.prepared.split_rule}")
        for check in inspection.audit.checks:
            if not check.ok and check.level == "warn":
                view.message(f"  warning: {check.message}")
        if inspection.prepared.dropped_line:
            view.message(f"  dropped as ambiguous: {inspection.prepared.dropped_line}")
        if inspection.prepared.lost:
            view.message(
                f"  {len(inspection.prepared.lost)} of {inspection.prepared.examined} recordings unusable"
            )
    require_audits_pass(inspections)
    return inspections


def _enforce_cache_quota(inspections: list[DataInspection], settings: Settings, view: View) -> None:
    """Keep the store within its quota, and in it what this launch needs."""
    if quota_from_environment() is not None:
        lease_features(settings.cache, {digest for one in inspections for digest in one.digests.values()})
        keep_within_quota(settings.cache, view.message)


def _announce(study: Study, inspections: list[DataInspection], settings: Settings, view: View) -> None:
    """Say what is left to train and what that costs; OutOfSpaceError where the disk has less room."""
    if study.note:
        view.message(study.note)
    ended = sum(trial.state in ("complete", "pruned", "failed") for trial in study.trials())
    left = max(0, study.sweep.budget.trials - ended)
    controls = [control_config(study.space, name) for name in controls_left(study)]
    if left or controls:
        cost = expected_cost(study.space, left, inspections, settings, controls)
        view.message(cost_line(cost))
        require_free_space(settings.record, cost.disk_bytes)


def expected_cost(
    space: SearchSpace,
    trials: int,
    inspections: list[DataInspection],
    settings: Settings,
    controls: Sequence[TrialConfig] = (),
) -> Cost:
    """What the next `trials` trials of this sweep, and these controls, will cost on this machine.

    A space of fewer combinations costs as many trials as it has.
    """
    combinations = space.combinations()
    if combinations is not None:
        trials = min(trials, sum(1 for _ in combinations))
    windows = {
        one.prepared.config.digest(): (len(one.prepared.train.manifest), len(one.prepared.val.manifest))
        for one in inspections
    }
    return estimate(space, trials, slots(space.sweep, settings), settings.resolved_device, windows, controls)


def cost_line(cost: Cost) -> str:
    """The line that announces a launch: trainings, workers, wall time, disk in MB of 10^6 bytes."""
    workers = "1 worker" if cost.workers == 1 else f"{cost.workers} workers"
    controls = {0: "", 1: " and 1 control"}.get(cost.controls, f" and {cost.controls} controls")
    return (
        f"cost: {cost.trials} trials{controls} on {workers}, about {format_duration(cost.seconds)}, "
        f"{max(1, round(cost.disk_bytes / 1e6))} MB of disk (an estimate)"
    )


def slots(sweep: Sweep, settings: Settings) -> int:
    """Workers of a launch: the option, else the sweep file, else the executor's default for the device."""
    default_slots = executor_class().default_slots
    return settings.workers or sweep.workers or default_slots(settings.resolved_device)


def _train(
    jobs: Jobs, writer: Writer, settings: Settings, view: View, on_complete: OnComplete | None
) -> tuple[TrialRuns, SessionEnd]:
    """Train what is left of the study's controls and trials."""
    study, record, device = jobs.study, jobs.record, settings.resolved_device
    if may_show_running(study, record):
        writer.open()
    count = min(slots(study.sweep, settings), max(1, study.sweep.budget.trials))
    executor = executor_class()(count, device, record.root / "logs")
    coordinator, trials = study_coordinator(jobs, executor, writer, view)
    end = run_session(
        coordinator,
        on_complete=on_complete and partial(on_complete, study, record),
        on_close=partial(_close_launch, study),
    )
    return trials, end


def study_coordinator(
    jobs: Jobs, executor: Executor, writer: Writer, view: View
) -> tuple[Coordinator, TrialRuns]:
    """The coordinator of a study, which starts its controls and then its trials; and those trials."""
    coordinator = Coordinator(jobs, executor, writer, view)
    trials = TrialRuns(coordinator, jobs)
    coordinator.kinds = [ControlRuns(coordinator, jobs), trials]
    return coordinator, trials


def _close_launch(study: Study, tracking: Tracking, complete: bool) -> None:
    """End the launch's own run, with what the controls say."""
    assert tracking.parent is not None, "a launch has its run from the beginning"
    tags = {"harness.state": "complete" if complete else "interrupted"}
    if controls := controls_of(study):
        tags["harness.controls"] = "; ".join(map(str, controls))
        tags["harness.controls.broken"] = ", ".join(one.name for one in controls if one.verdict == "broken")
    tracking.end(tracking.parent, "FINISHED" if complete else "KILLED", tags, {})


def open_tracking(
    uri: str, study: Study, code: Provenance, inspections: list[DataInspection], launched: int
) -> Tracking:
    """The study's experiment, with a parent run for this launch that holds the sweep and the audit.

    `launched` (ns since 1970) names the run: whoever connects anew with the same finds it again.
    """
    tracking = Tracking(connect(uri), study.name, study.sweep.description, study.identity)
    key = f"{study.identity}/launch/{launched}"
    if tracking.find(key) is None:
        reconcile_runs(tracking)  # the study's lock is held, and nothing of this launch is stored before
    started = datetime.fromtimestamp(launched / 1e9).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    tags = {**code.tags, "harness.kind": "launch", "harness.study": study.name, "harness.state": "running"}
    if study.space.skipped:
        tags["harness.skipped"] = "; ".join(study.space.skipped.values())
    tracking.parent = tracking.run(key, f"launch {started}", tags)
    with tempfile.TemporaryDirectory(prefix="harness-launch-") as folder:
        write_json(Path(folder) / "sweep.json", study.sweep.model_dump(mode="json", by_alias=True))
        write_json(Path(folder) / "audit.json", [inspection.as_json() for inspection in inspections])
        tracking.client.log_artifacts(tracking.parent, folder)
    return tracking


def summary_json(result: Launch) -> dict[str, Any]:
    """The document that `harness sweep --json` prints."""
    best = result.best
    return {
        "study": result.study,
        "resumed": result.resumed,
        "budget": result.budget,
        "spent": result.spent,
        "new_trials": result.new_trials,
        "seconds": round(result.seconds, 1),
        "interrupted": result.signal is not None,
        "exhausted": result.exhausted,
        "out_of_time": result.out_of_time,
        "best": best.as_json() if best is not None else None,
        "controls": [control.as_json() for control in result.controls],
        "skipped": list(result.skipped),
        "trials": [trial.as_json() for trial in result.trials if trial.state != "abandoned"],
        "data": [inspection.as_json() for inspection in result.inspections],
        "unstored": [str(path) for path in result.unstored],
        "problem": result.problem,
    }
