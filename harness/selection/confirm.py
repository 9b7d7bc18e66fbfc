"""`harness confirm`: the finalists of a study and its baseline on fresh seeds, priced before it is paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.config.cost import Cost, estimate_trainings, window_macs
from harness.config.files.policy_file import load_policy
from harness.config.parameters import Scalar
from harness.core.disk_space import disk_full_as_out_of_space, require_free_space
from harness.core.errors import FailedError
from harness.core.files import to_share
from harness.core.format import format_duration
from harness.core.provenance import provenance
from harness.core.settings import Settings
from harness.core.signals import Stopped
from harness.execution.coordinator import Coordinator
from harness.execution.executors.build import executor_class
from harness.execution.recovery import reconcile_runs, reconcile_study
from harness.execution.runs.jobs import Jobs
from harness.execution.session import run_session
from harness.execution.view import View
from harness.selection.candidate import require_unchanged
from harness.selection.choose_finalists import ConfirmationError, choose_finalists
from harness.selection.replicate_runs import ReplicateRuns
from harness.study.confirmation.conclusion import (
    Confirmation,
    confirmation_of,
    confirmation_progress,
    finalists_of,
    no_winner_reason,
    start_confirmation,
    unfinished_confirmation,
)
from harness.study.confirmation.definition import ConfirmationDefinition, ConfirmedConfig, results_of
from harness.study.storage.record import Record
from harness.study.study import Study, load_study
from harness.tracking.experiment import Tracking, connect
from harness.tracking.server.server import TrackingServer
from harness.tracking.writer import Writer, unstored_message

if TYPE_CHECKING:
    from data.preparation.prepare import Prepared


class ConfirmationFailedError(FailedError, RuntimeError):
    """No configuration has a score on every seed, or none whose median seed answers both classes."""


@dataclass(frozen=True)
class ConfirmationRequest:
    """What is asked of a confirmation.

    Attributes
    ----------
    run : the only finalist, who wins unless it may not ship; None: the best complete trials are finalists
    finalists, seeds : how many; None: as the policy `default` has it
    baseline : stands in for the sweep's own `baseline:`
    """

    run: str | None = None
    finalists: int | None = None
    seeds: int | None = None
    baseline: Mapping[str, Scalar] | None = None

    @property
    def names_nothing(self) -> bool:
        """Whether only the study was named: what is unfinished of it is then gone on with as it is."""
        return self.run is None and self.finalists is None and self.seeds is None


@dataclass(frozen=True)
class Plan:
    """What a confirmation will train, and what that costs.

    Attributes
    ----------
    left : configurations and seeds that have no result yet, or one to be tried again
    notes : lines on finalists that are left out, or on what is gone on with
    prepared : data by the digest of their configuration
    resumes : whether it goes on with what was set out to do before
    """

    study: Study
    definition: ConfirmationDefinition
    left: Sequence[tuple[ConfirmedConfig, int]]
    cost: Cost
    notes: Sequence[str]
    prepared: Mapping[str, Prepared]
    resumes: bool = False

    @property
    def trainings(self) -> int:
        """Trainings in all, done or not: configurations times seeds."""
        return len(self.definition.arms) * self.definition.seeds

    def lines(self) -> list[str]:
        """The finalists, a line each, then the price."""
        return [*self.notes, *map(_finalist_line, self.definition.arms), self._price()]

    def _price(self) -> str:
        arms, seeds = self.definition.arms, self.definition.seeds
        count = sum(arm.trial is not None and not arm.is_added for arm in arms)
        who = f"{count} finalist{'' if count == 1 else 's'}"
        who += " and the baseline" if count < len(arms) else ", the baseline among them"
        done = self.trainings - len(self.left)
        already = f" ({done} done)" if done else ""
        price = f" on {_price_of(self.cost)}" if self.left else ": nothing to train"
        return f"confirmation: {who} x {seeds} fresh seeds = {self.trainings} trainings{already}{price}"

    def as_json(self) -> dict[str, Any]:
        """The fields that `--dry-run --json` prints."""
        return {
            "study": self.study.name,
            "dry_run": True,
            "seeds": self.definition.seeds,
            "trainings": self.trainings,
            "done": self.trainings - len(self.left),
            "seconds": round(self.cost.seconds, 1),
            "disk_bytes": round(self.cost.disk_bytes),
            "finalists": [_finalist_json(one) for one in self.definition.arms],
        }


def _price_of(cost: Cost) -> str:
    """Workers, wall time and disk (MB of 10^6 bytes) of what is left to train."""
    workers = "1 worker" if cost.workers == 1 else f"{cost.workers} workers"
    disk = max(1, round(cost.disk_bytes / 1e6))
    return f"{workers}, about {format_duration(cost.seconds)}, {disk} MB of disk (an estimate)"


def _finalist_line(one: ConfirmedConfig) -> str:
    score = "" if one.sweep_score is None else f", score {one.sweep_score:.3f} in the sweep"
    luck = "" if one.optimism is None else f" (predicted optimism at its rank {one.optimism:.3f})"
    also = ", the baseline" if one.is_baseline and one.trial is not None else ""
    return f"  {one.label}: {one.name}{also}{score}{luck}"


def _finalist_json(one: ConfirmedConfig) -> dict[str, Any]:
    return {
        "label": one.label,
        "name": one.name,
        "trial": one.trial,
        "baseline": one.is_baseline,
        "fingerprint": one.fingerprint,
        "macs": window_macs(one.config),
        "sweep_score": one.sweep_score,
        "predicted_optimism": one.optimism,
    }


def confirm(study_name: str, settings: Settings, view: View, asked: ConfirmationRequest) -> Confirmation:
    """Train finalists and baseline on fresh seeds, as runs of the study; what was trained before is not repeated.

    Raises
    ------
    ConfirmationError, StudyError
        What was asked for cannot be confirmed.
    RecordError
        The study is being run.
    ConfirmationFailedError
        No configuration has a score on every seed, or none whose median seed answers both classes.
    OutOfSpaceError
        There is less room than it is expected to need, or a disk is full; there, the same call goes on.
    WorkersFailedError
        The workers cannot do their work here, or all that they train fails alike.
    Stopped
        A signal; the same call goes on.
    """
    executor_class().check()  # before anything is prepared
    record = Record(settings.record).require()
    load_study(record, study_name)  # before the lock is made: a wrong name leaves nothing behind
    record.open()
    lock = record.lock_study(study_name)
    try:
        study = load_study(record, study_name)
        plan = make_plan(study, record, settings, view, asked)
        for line in plan.lines():
            view.message(line)
        if plan.left:
            require_free_space(record.root, plan.cost.disk_bytes)
        definition = plan.definition
        if not plan.resumes:
            start_confirmation(study, definition.arms, definition.seeds, named=definition.named)
        _train(plan, record, settings, view)
        if confirmation_progress(study, definition.run):  # without a winner; one from before is none of this
            raise ConfirmationFailedError(no_winner(plan))
        confirmed = confirmation_of(study, definition.run)
        assert confirmed is not None
        return confirmed
    finally:
        lock.release()


def make_plan(
    study: Study, record: Record, settings: Settings, view: View, asked: ConfirmationRequest
) -> Plan:
    """Choose what is trained, make its data ready, and price it; trains nothing.

    Raises
    ------
    ConfirmationError, StudyError
        What was asked for cannot be confirmed.
    DataChangedError
        The windows are no longer the ones of the study.
    """
    unfinished = unfinished_confirmation(study) if asked.names_nothing else None
    if unfinished is not None:
        definition = unfinished
        notes = ["going on with the confirmation that is not finished, as it was asked for"]
    else:
        definition, notes = _new_definition(study, record, asked)
    left = definition.unfinished_trainings(results_of(study), again=True)
    prepared = _prepare(definition, settings, view)
    require_unchanged(study, list(prepared.values()))
    cost = _cost_of(study, left, prepared, settings)
    return Plan(study, definition, left, cost, notes, prepared, resumes=unfinished is not None)


def _new_definition(
    study: Study, record: Record, asked: ConfirmationRequest
) -> tuple[ConfirmationDefinition, list[str]]:
    """What is confirmed as asked, and a line for each trial that is left out; at least 2 seeds have a spread."""
    rule = load_policy("default").confirmation
    seeds = rule.seeds if asked.seeds is None else asked.seeds
    if seeds < 2:
        raise ConfirmationError(f"{seeds} seeds have no spread: give 2 or more (5 is usual)")
    count = asked.finalists or rule.finalists
    finalists, notes = choose_finalists(study, record, asked.run, count, asked.baseline)
    return ConfirmationDefinition(tuple(finalists), seeds, asked.run is not None), notes


def _prepare(definition: ConfirmationDefinition, settings: Settings, view: View) -> dict[str, Prepared]:
    """The data of every configuration that is confirmed, by the digest of their own, ready in the cache."""
    from data.preparation.prepare import prepare

    configs = {one.config.data.digest(): one.config.data for one in definition.arms}
    with to_share():
        return {
            digest: prepare(config, data_root=settings.data_root, cache=settings.cache, progress=view.message)
            for digest, config in configs.items()
        }


def _cost_of(
    study: Study,
    left: Sequence[tuple[ConfirmedConfig, int]],
    prepared: Mapping[str, Prepared],
    settings: Settings,
) -> Cost:
    """What these trainings cost, at the pace that the sweep had with each configuration, where it tells."""
    device = settings.resolved_device
    default_slots = executor_class().default_slots
    workers = settings.workers or study.sweep.workers or default_slots(device)
    windows = {digest: (len(one.train.manifest), len(one.val.manifest)) for digest, one in prepared.items()}
    paces = _paces(study, device)
    trainings = [(one.config, paces.get(one.fingerprint)) for one, _ in left]
    return estimate_trainings(trainings, max(1, min(workers, len(left))), device, windows)


def _paces(study: Study, device: str) -> dict[str, float]:
    """Training windows a second of every configuration that the sweep trained alone on this kind of device."""
    return {
        trial.fingerprint: float(trial.outcome["windows_per_s"])
        for trial in study.trials()
        if {"windows_per_s", "stack"} & trial.outcome.keys() == {"windows_per_s"}
        and (trial.outcome["device"] == "cpu") == (device == "cpu")
    }


def _train(plan: Plan, record: Record, settings: Settings, view: View) -> None:
    """Train what is left, and have MLflow take it.

    Raises
    ------
    Stopped
        A signal; the same call goes on.
    """
    study, device = plan.study, settings.resolved_device
    reconcile_study(study, record)
    if not plan.left and not any(record.spooled(study.name)):
        return  # all is trained, and stored
    jobs = Jobs(study, record, plan.prepared, provenance(device), settings.cache)
    with disk_full_as_out_of_space((record.root, settings.cache)), TrackingServer(record) as server:
        writer = Writer(server, lambda uri: _tracking(uri, study))
        slots = plan.cost.workers if plan.left else 0
        executor = executor_class()(slots, device, record.root / "logs")
        coordinator = Coordinator(jobs, executor, writer, view)
        coordinator.kinds = [ReplicateRuns(coordinator, jobs, plan.left, plan.trainings)]
        end = run_session(coordinator)
    if end.unstored:
        view.message(unstored_message(len(end.unstored), end.problem, hurried=end.signal is not None))
    if end.signal is not None:
        raise Stopped(end.signal)


def _tracking(uri: str, study: Study) -> Tracking:
    """The study's experiment; runs on fresh seeds stand below its last launch."""
    tracking = Tracking(connect(uri), study.name, study.sweep.description, study.identity)
    reconcile_runs(tracking)
    tracking.parent = tracking.latest("launch")
    return tracking


def no_winner(plan: Plan) -> str:
    """What a confirmation that ended without a winner says: why, then a line for every finalist."""
    finalists = finalists_of(plan.study, plan.definition)
    return "\n".join(
        [
            no_winner_reason(finalists, named=plan.definition.named),
            *(f"  {finalist.line()}" for finalist in finalists),
        ]
    )
