"""The trainings of a confirmation: retried, recorded, stopped where all fail alike or the disk is full."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.preparation.prepare import prepare
from harness.core.disk_space import OutOfSpaceError
from harness.core.provenance import provenance
from harness.core.seeds import derived_seed
from harness.execution.coordinator import Coordinator
from harness.execution.executors.protocol import (
    EpochDone,
    Event,
    TrialDone,
    TrialFailed,
    WorkerLost,
    WorkersFailedError,
)
from harness.execution.runs.jobs import Jobs
from harness.execution.view import View
from harness.selection.choose_finalists import choose_finalists
from harness.selection.replicate_runs import ReplicateRuns, header_of
from harness.study.confirmation.definition import (
    ReplicateResult,
    key_of,
    results_of,
    save_definition,
    save_result,
)
from harness.study.confirmation.replicate import replicate_of
from harness.study.storage.record import Record
from harness.study.study import Study
from harness.training.job import Job
from tests.harness.places.untrained_study import MFCC, finished_study, outcome


class Scripted:
    """An executor whose trainings end as their seed says: 1 well after a worker's death, 2 badly, 3 lost for good."""

    def __init__(self, slots: int = 1, full: bool = False, events: Sequence[Event] = ()) -> None:
        self.slots, self.full, self.events = slots, full, list(events)
        self.jobs: list[Job] = []
        self.submitted: list[Job] = []
        self.replies: list[bool] = []

    @property
    def idle(self) -> int:
        return self.slots - len(self.jobs)

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        self.submitted.append(job)

    def poll(self, timeout_s: float) -> Iterator[Event]:
        if not self.jobs:
            return
        job = self.jobs.pop(0)
        times = sum(one.spool == job.spool for one in self.submitted)
        seed = int(job.specification["run_id"].rpartition("/")[2])
        if self.events:
            yield replace(self.events.pop(0), number=job.number)
        elif self.full:
            yield TrialFailed(job.number, "out_of_space", "[Errno 28] No space left on device", "")
        elif seed == 2:
            yield TrialFailed(job.number, "diverged", "the loss is nan", "Traceback: ...")
        elif seed == 3 or times == 1:
            yield WorkerLost(job.number, "worker 0 died")
        else:
            yield EpochDone(job.number, 0, {})
            yield TrialDone(job.number, outcome(0.75))

    def reply(self, number: int, *, stop: bool) -> None:
        self.replies.append(stop)

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


class Poked:
    """A writer that only notes what it is shown."""

    is_backlogged, unreachable_since, problem = False, None, None

    def __init__(self) -> None:
        self.folders: list[str] = []

    def notify(self, spool: Any, *, begun: bool = False) -> None:
        self.folders.append(spool.folder.name)

    def status_message(self) -> None:
        return None


def confirming(jobs: Jobs, executor: Any, writer: Any, view: View, left: Any, total: int) -> Coordinator:
    """The coordinator of a confirmation."""
    coordinator = Coordinator(jobs, executor, writer, view)
    coordinator.kinds = [ReplicateRuns(coordinator, jobs, left, total)]
    return coordinator


def jobs_of(study: Study, record: Record, cache: Path) -> Jobs:
    prepared = prepare(study.sweep.data, data_root=None, cache=cache)
    return Jobs(study, record, {study.sweep.data.digest(): prepared}, provenance("cpu"), cache)


def test_trainings_are_retried_recorded_and_never_pruned(record: Record, demo_cache: Path) -> None:
    study = finished_study(record, [(MFCC, outcome(0.6))], baseline=MFCC)
    planned = save_definition(study, choose_finalists(study, record, None, 1, None)[0], 3)
    executor, writer = Scripted(), Poked()
    jobs = jobs_of(study, record, demo_cache)
    left = planned.unfinished_trainings(results_of(study))
    confirming(jobs, executor, writer, View(), left, 3).run()  # type: ignore[arg-type]
    results = {seed: result for (_, seed), result in results_of(study).items()}
    assert results[1].outcome["score"] == 0.75
    assert (results[2].reason, results[2].again) == ("diverged: the loss is nan", False)
    assert results[3].reason.startswith("infrastructure, 3 times: worker 0 died")
    assert results[3].again
    assert executor.replies == [False]
    first = executor.submitted[0]
    assert first.specification["run_id"] == "told/0/1"
    assert first.seed == derived_seed("training", study.sweep.seed, 1)
    header = jobs.spool(Path(first.spool).name).read("trial")
    assert header is not None
    assert header["key"] == key_of(study, planned.arms[0].fingerprint, 1)
    kinds = {key: header["tags"][f"harness.{key}"] for key in ("kind", "trial", "replicate")}
    assert kinds == {"kind": "confirmation", "trial": "0", "replicate": "1"}
    assert [trial.number for trial in study.trials()] == [0]  # Optuna heard of none


def test_a_full_disk_stops_the_trainings_and_fails_none(record: Record, demo_cache: Path) -> None:
    study = finished_study(record, [(MFCC, outcome(0.6))], baseline=MFCC)
    planned = save_definition(study, choose_finalists(study, record, None, 1, None)[0], 2)
    jobs = jobs_of(study, record, demo_cache)
    runs = confirming(
        jobs, Scripted(full=True), Poked(), View(), planned.unfinished_trainings({}), 2  # type: ignore[arg-type]
    )  # fmt: skip
    with pytest.raises(OutOfSpaceError, match="run the same command again"):
        runs.run()
    assert results_of(study) == {}


def test_a_full_disk_of_mlflow_stops_the_trainings(record: Record, demo_cache: Path) -> None:
    study = finished_study(record, [(MFCC, outcome(0.6))], baseline=MFCC)
    planned = save_definition(study, choose_finalists(study, record, None, 1, None)[0], 3)
    writer: Any = Poked()
    writer.unreachable_since, writer.problem = 1.0, "OSError: [Errno 28] No space left on device"
    executor = Scripted(events=[EpochDone(0, 0, {})])
    runs = confirming(
        jobs_of(study, record, demo_cache), executor, writer, View(), planned.unfinished_trainings({}), 3
    )
    assert runs.must_leave()
    with pytest.raises(OutOfSpaceError, match="run the same command again"):
        runs.run()
    assert len(executor.submitted) == 1
    assert results_of(study) == {}


def test_no_training_begins_while_mlflow_is_behind(record: Record, demo_cache: Path) -> None:
    study = finished_study(record, [(MFCC, outcome(0.6))], baseline=MFCC)
    planned = save_definition(study, choose_finalists(study, record, None, 1, None)[0], 2)
    executor, began = Scripted(), []

    class Behind(Poked):
        is_backlogged = True

        def status_message(self) -> None:  # asked once a round
            began.append(len(executor.submitted))
            self.is_backlogged = len(began) < 3

    writer: Any = Behind()
    confirming(
        jobs_of(study, record, demo_cache), executor, writer, View(), planned.unfinished_trainings({}), 2
    ).run()  # fmt: skip
    assert began[:3] == [0, 0, 0]
    assert len(results_of(study)) == 2


BROKEN = TrialFailed(0, "configuration", "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED", "")
DIVERGED = TrialFailed(0, "diverged", "the loss is nan", "")


@pytest.mark.parametrize(
    ("events", "trained"),
    [([BROKEN] * 6, 5), ([DIVERGED] * 6, 6), ([BROKEN] * 4 + [TrialDone(0, outcome(0.7)), BROKEN], 6)],
)
def test_trainings_that_fail_alike_stop_a_confirmation(
    record: Record, demo_cache: Path, events: list[Event], trained: int
) -> None:
    study = finished_study(record, [(MFCC, outcome(0.6))], baseline=MFCC)
    planned = save_definition(study, choose_finalists(study, record, None, 1, None)[0], 6)
    writer: Any = Poked()
    runs = confirming(
        jobs_of(study, record, demo_cache),
        Scripted(events=events),
        writer,
        View(),
        planned.unfinished_trainings({}),
        6,
    )
    with pytest.raises(WorkersFailedError, match="5 trainings in a row") if trained < 6 else nullcontext():
        runs.run()
    assert len(results_of(study)) == trained


@pytest.mark.parametrize("state", ["complete", "pruned"])
def test_a_trial_that_ends_clears_the_failures_of_a_sweep(
    record: Record, demo_cache: Path, state: str
) -> None:
    from harness.execution.launch import study_coordinator

    space: Any = {"feature": ["mfcc"], "dropout": {"float": [0.0, 0.5]}}
    study = finished_study(record, [], budget={"trials": 11}, parameters=space)
    ended = TrialDone(0, {"windows_per_s": 1.0, **outcome(0.7, state=state)})
    events: list[Event] = [BROKEN, DIVERGED, BROKEN, BROKEN, BROKEN, ended, *[BROKEN] * 5]
    writer: Any = Poked()
    jobs = jobs_of(study, record, demo_cache)
    executor = Scripted(events=events)
    with pytest.raises(WorkersFailedError, match="5 trainings in a row failed the same way"):
        study_coordinator(jobs, executor, writer, View())[0].run()
    assert len(executor.submitted) == len(events)


def test_a_later_sweep_replays_what_ended_and_leaves_what_did_not(record: Record, demo_cache: Path) -> None:
    from harness.execution.launch import study_coordinator

    study = finished_study(record, [(MFCC, outcome(0.6))], baseline=MFCC, budget={"trials": 1})
    jobs = jobs_of(study, record, demo_cache)
    (arm,) = choose_finalists(study, record, None, 1, None)[0]
    for seed in (1, 2):
        spool = jobs.spool(f"confirm-x-{seed}")
        spool.write("trial", header_of(jobs, replicate_of(study, arm, seed, ReplicateResult({})), spool))
    save_result(study, arm.fingerprint, 1, ReplicateResult(outcome(0.7)))
    writer: Any = Poked()
    executor = Scripted()
    study_coordinator(jobs, executor, writer, View())[0].run()
    assert writer.folders == ["confirm-x-1"]
    verdict = jobs.spool("confirm-x-1").read("verdict")
    assert verdict is not None
    assert (verdict["status"], verdict["metrics"]["best/score"]) == ("FINISHED", 0.7)
    assert jobs.spool("confirm-x-2").read("verdict") is None
    assert jobs.spool("confirm-x-2").read("trial") is not None
    assert executor.submitted == []
