"""What a process that died left behind, put right: at every start of a study, and by `harness doctor --fix`.

In the study: trials that nobody trains wait for the next launch, those that never began are given up.
In the spool: what ended gets its verdict, what was stored already is removed.
In MLflow: what ended is stored, trainings that nobody runs are shown as waiting, other runs are ended.

Each step is one repair that may be repeated, so the whole may be killed anywhere and started again. All of it happens
under the study's lock, which only a living process holds: whatever is running then belongs to a dead one.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.core.failpoints import failpoint
from harness.study.ask import tell_duplicate
from harness.study.confirmation.definition import KIND as CONFIRMATION
from harness.study.ensembles import KIND as ENSEMBLE
from harness.study.skipped_front_ends import fail_skipped_trial, skip_reason
from harness.study.storage.mlflow_schema import read_only_connection
from harness.study.storage.promotion_lock import PromotionError, only_promotion
from harness.study.storage.record import Record, is_locked
from harness.study.storage.trial_spool import TrialSpool
from harness.study.study import Study, load_study, study_names
from harness.tracking.experiment import Tracking, connect
from harness.tracking.run_verdict import verdict_of, verdict_of_left_control, verdict_of_left_replicate
from harness.tracking.server.server import TrackingServer

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

PROMOTION = "promotion"
# Runs of trainings: they wait for whoever goes on with them. Runs of the other kinds end with their process.
TRAININGS = ("trial", "control", CONFIRMATION)
OTHERS = ("launch", ENSEMBLE)


@dataclass(frozen=True)
class StaleState:
    """Something that a dead process left in a study that nobody runs; `text` is the line that people read."""

    study: str
    text: str


@dataclass(frozen=True)
class _Repair:
    """One thing to put right: the line that says so, and what does it, as often as it is called."""

    text: str
    do: Callable[[], object]


def find_stale(record: Record) -> list[StaleState]:
    """What `reconcile` would put right; starts no server, and leaves out studies that are being run."""
    found = []
    for name in study_names(record):
        if record.is_run(name):
            continue
        study = load_study(record, name)
        texts = [repair.text for repair in _repairs(study, record)]
        texts += [
            f"{spool.folder.name}: ended, MLflow may lack some of it" for spool in ended_spools(study, record)
        ]
        texts += [
            f"the run {run!r} ({kind}) is shown as running" for kind, run in _shown_running(study, record)
        ]
        found += [StaleState(name, text) for text in texts]
    return found


def reconcile(record: Record, name: str) -> list[str]:
    """Put right what a dead process left in this study: a line for each thing done, none the second time.

    An MLflow server is started only where there is something for it.

    Raises
    ------
    RecordError
        The study is being run; nothing of it was touched.
    StudyError
        There is no such study.
    """
    load_study(record, name)  # before the lock is made: a wrong name leaves nothing behind
    lock = record.lock_study(name)
    try:
        study = load_study(record, name)
        done = reconcile_study(study, record)
        ended = list(ended_spools(study, record))
        needed = bool(ended) or may_show_running(study, record)
        with TrackingServer(record) if needed else nullcontext() as server:
            if server is not None:
                tracking = Tracking(connect(server.uri), name, study.sweep.description, study.identity)
                done += _store(tracking, ended) + reconcile_runs(tracking) + _end_promotions(tracking, record)
        return done
    finally:
        lock.release()


def reconcile_study(study: Study, record: Record) -> list[str]:
    """Put the study and its spool right, and say what was done; call it under the study's lock.

    Afterwards every trial is told, or waits with its configuration; `ended_spools` are what MLflow may lack.
    """
    done = []
    for repair in _repairs(study, record):
        repair.do()
        done.append(repair.text)
        failpoint("reconciler.repaired")
    return done


def ended_spools(study: Study, record: Record) -> Iterator[TrialSpool]:
    """Spools of trainings that ended: MLflow may not hold them completely."""
    for folder in record.spooled(study.name):
        spool = TrialSpool(folder)
        if spool.read("trial") is not None and spool.read("verdict") is not None:
            yield spool


def reconcile_runs(tracking: Tracking) -> list[str]:
    """Show in MLflow what nobody runs any more; call it under the study's lock, before anything of it runs."""
    done = []
    for kind in TRAININGS:
        for name in tracking.pause_orphans(kind):
            done.append(f"the run {name!r} waits for the next launch")
            failpoint("reconciler.paused")
    for kind in OTHERS:
        for name in tracking.end_orphans(kind):
            done.append(f"the run {name!r} ({kind}) was ended as killed")
            failpoint("reconciler.ended")
    return done


def _store(tracking: Tracking, ended: list[TrialSpool]) -> list[str]:
    tracking.parent = tracking.latest("launch")
    done = []
    for spool in ended:
        tracking.store_trial(spool)
        failpoint("reconciler.stored")
        spool.remove()
        done.append(f"{spool.folder.name}: stored in MLflow")
    return done


def _end_promotions(tracking: Tracking, record: Record) -> list[str]:
    """A promotion's run; what it had done so far, the next `harness promote` finishes."""
    try:
        with only_promotion(record):
            return [
                f"the run {name!r} (promotion) was ended as killed"
                for name in tracking.end_orphans(PROMOTION)
            ]
    except PromotionError:  # somebody is at it
        return []


# What there is to do: each repair sees what those before it have done


def _repairs(study: Study, record: Record) -> Iterator[_Repair]:
    for frozen in study.optuna_study.get_trials(deepcopy=False):
        if not frozen.state.is_finished():
            yield from _of_trial(study, frozen)
    trials = {trial.number: trial for trial in study.optuna_study.get_trials(deepcopy=False)}
    for folder in record.spooled(study.name):
        spool = TrialSpool(folder)
        header = spool.read("trial")
        if header is None or _is_unknown(header, trials):
            yield _Repair(f"{folder.name}: removed what was left of its spool", spool.remove)
        elif spool.read("verdict") is None:
            verdict = _verdict(study, spool, header, trials)
            if verdict is not None:
                write = partial(spool.write, "verdict", verdict)
                yield _Repair(f"{folder.name}: ended, and its run is told so", write)


def _of_trial(study: Study, frozen: FrozenTrial) -> Iterator[_Repair]:
    from optuna.trial import TrialState

    number, attributes, running = frozen.number, frozen.user_attrs, frozen.state == TrialState.RUNNING
    if "fingerprint" in attributes:
        reason = skip_reason(study, frozen)
        if reason is not None:
            yield _Repair(
                f"trial {number}: {reason}: nobody can go on with it",
                partial(fail_skipped_trial, study, frozen, reason),
            )
        elif running:
            wait = partial(study.storage.set_trial_state_values, study.trial_id(number), TrialState.WAITING)
            yield _Repair(f"trial {number}: nobody trains it, it waits for the next launch", wait)
    elif running and "duplicate_of" in attributes:
        yield _Repair(
            f"trial {number}: told as the trial that it repeats", partial(_finish_duplicate, study, frozen)
        )
    elif running:
        yield _Repair(
            f"trial {number}: asked for and never begun, given up", partial(_give_up, study, frozen)
        )


def _finish_duplicate(study: Study, twin: FrozenTrial) -> None:
    tell_duplicate(study, twin.number, study.trial(twin.user_attrs["duplicate_of"]))


def _give_up(study: Study, frozen: FrozenTrial) -> None:
    """Its number is not used again, its configuration is: the next trial is seeded as this one was."""
    from optuna.trial import TrialState

    if "state" not in frozen.user_attrs:  # else it was skipped
        study.storage.set_trial_user_attr(study.trial_id(frozen.number), "state", "abandoned")
    failpoint("reconciler.given_up")
    study.optuna_study.tell(frozen.number, state=TrialState.FAIL)


def _is_unknown(header: dict[str, Any], trials: dict[int, FrozenTrial]) -> bool:
    return header["tags"].get("harness.kind") == "trial" and header["number"] not in trials


def _verdict(
    study: Study, spool: TrialSpool, header: dict[str, Any], trials: dict[int, FrozenTrial]
) -> dict[str, Any] | None:
    """How a spooled training ended; None where it has not."""
    kind = header["tags"].get("harness.kind")
    if kind == CONFIRMATION:
        return verdict_of_left_replicate(study, header)
    if kind == "control":
        return verdict_of_left_control(study, spool, header["tags"]["harness.control"])
    if trials[header["number"]].state.is_finished():
        return verdict_of(study.trial(header["number"]), header)
    return None


# MLflow, without a server


def may_show_running(study: Study, record: Record) -> bool:
    """Whether MLflow may show runs of the study as running; call it where none does."""
    team = bool(os.environ.get("MLFLOW_TRACKING_URI"))  # what that one holds, only it can say
    return team or bool(_shown_running(study, record))


def _shown_running(study: Study, record: Record) -> list[tuple[str, str]]:
    """Kind and name of the study's runs that the record's own database shows as running."""
    query = """
        select kinds.value, runs.name from runs
        join experiment_tags owners on owners.experiment_id = runs.experiment_id
        join tags kinds on kinds.run_uuid = runs.run_uuid
        where runs.status = 'RUNNING' and runs.lifecycle_stage = 'active' and kinds.key = 'harness.kind'
        and owners.key = 'harness.identity' and owners.value = ? order by runs.start_time
    """
    kinds = [*TRAININGS, *OTHERS]
    if not is_locked(record.locks / "promotion.lock"):
        kinds.append(PROMOTION)
    with suppress(sqlite3.Error), read_only_connection(record.database) as database:
        return [(kind, name) for kind, name in database.execute(query, (study.identity,)) if kind in kinds]
    return []
