"""A sweep whose trials are stacked: who goes with whom, the budget, deaths; the trials of a sweep without stacks."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from data.preparation.prepare import Prepared, prepare
from harness.config.sweep import Sweep
from harness.config.trial.trial_config import TrialConfig
from harness.core.provenance import provenance
from harness.execution import coordinator
from harness.execution.executors.local import LocalExecutor
from harness.execution.executors.protocol import EpochDone, Event, TrialDone, WorkerLost
from harness.execution.launch import study_coordinator
from harness.execution.runs import jobs, trial_runs
from harness.execution.runs.jobs import Jobs
from harness.execution.runs.retries import MAX_RETRIES
from harness.execution.runs.trial_runs import TrialRuns
from harness.execution.view import View
from harness.study import ask
from harness.study.storage.record import Record
from harness.study.study import Study, open_study
from harness.training.job import Job
from tests.benchmarks.synthetic import SpoolOnly, outcome_of
from tests.faults.small_study import DATA, bare_record, run, spooled_epochs
from tests.harness.places.workplace import wait_for

RATE = {"float": [3e-4, 3e-3], "log": True}


def sweep(**changes: Any) -> Sweep:
    base = {
        "name": "small", "data": DATA, "sampler": "random", "pruner": "none", "budget": {"trials": 7}, "stack": 3,
        "parameters": {"feature": ["mfcc", "log_mel"], "learning_rate": RATE, "width": 0.0625, "epochs": 3},
    }  # fmt: skip
    return Sweep.model_validate(base | changes)


class Scripted:
    """Slots whose trainings end at once after an epoch, but for so many deaths of each worker's first trials."""

    def __init__(self, slots: int = 1, deaths: int = 0) -> None:
        self.slots, self.deaths = slots, deaths
        self.stacks: list[tuple[int, ...]] = []
        self.configs: dict[int, TrialConfig] = {}
        self._events: deque[Event] = deque()
        self._busy: list[set[int]] = []

    @property
    def idle(self) -> int:
        return self.slots - len(self._busy)

    def submit(self, *given: Job) -> None:
        assert self.idle > 0
        self.stacks.append(tuple(job.number for job in given))
        self.configs |= {job.number: TrialConfig.model_validate(job.config) for job in given}
        self._busy.append(set(self.stacks[-1]))
        self.deaths -= 1
        if self.deaths >= 0:
            self._events.extend(WorkerLost(job.number, "worker 0 died") for job in given)
        else:
            self._events.extend(EpochDone(job.number, 0, {"smoothed": 0.5}) for job in given)

    def poll(self, timeout_s: float) -> Iterator[Event]:
        while self._events:
            event = self._events.popleft()
            if isinstance(event, WorkerLost | TrialDone):
                for busy in self._busy:
                    busy.discard(event.number or 0)
                self._busy = [busy for busy in self._busy if busy]
            yield event

    def reply(self, number: int, *, stop: bool) -> None:
        rate = self.configs[number].training.learning_rate  # a score that the sampler can learn from
        self._events.append(TrialDone(number, outcome_of([1 - rate], stop=stop)))

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


class KilledError(BaseException):
    """Nothing is put right any more."""


@pytest.fixture(scope="module")
def prepared(demo_cache: Path) -> Prepared:
    return prepare(sweep().data, data_root=None, cache=demo_cache)


def coordinate(record: Record, definition: Sweep, prepared: Prepared, executor: Scripted) -> Study:
    study = open_study(record, definition)
    digests = {name: part.manifest.digest for name, part in prepared.splits.items()}
    study.check_manifests({definition.data.digest(): digests})
    place, writer, made = prepared.folder.parents[1], SpoolOnly(), {definition.data.digest(): prepared}
    try:
        study_coordinator(Jobs(study, record, made, provenance("cpu"), place), executor, writer, View())[
            0
        ].run()  # type: ignore[arg-type]
    finally:
        study.release()
    return study


def told(study: Study) -> list[tuple[int, str, float | None, Any]]:
    return [(one.number, one.state, one.score, one.values) for one in study.trials() if one.fingerprint]


def test_stacks_are_alike_and_the_budget_is_exact(tmp_path: Path, prepared: Prepared) -> None:
    executor = Scripted(slots=2)
    study = coordinate(bare_record(tmp_path / "stacked"), sweep(), prepared, executor)
    assert sorted(number for stack in executor.stacks for number in stack) == list(range(7))
    assert 1 < max(map(len, executor.stacks)) <= 3
    for stack in executor.stacks:
        assert len({executor.configs[number].stack_key() for number in stack}) == 1
    alone = Scripted()
    plain = coordinate(bare_record(tmp_path / "alone"), sweep(stack=1), prepared, alone)
    assert alone.stacks == [(number,) for number in range(7)]
    assert told(study) == told(
        plain
    )  # what a random sampler asks for does not depend on who trains with whom
    more = coordinate(
        Record(tmp_path / "stacked" / "mlruns"), sweep(budget={"trials": 8}), prepared, Scripted()
    )
    assert len(told(more)) == 8


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_a_space_that_ends_is_walked_once(tmp_path: Path, prepared: Prepared, sampler: str) -> None:
    parameters = {"feature": ["mfcc", "log_mel"], "learning_rate": [1e-3, 2e-3], "width": 0.0625, "epochs": 1}
    executor = Scripted()
    study = coordinate(
        bare_record(tmp_path), sweep(sampler=sampler, parameters=parameters), prepared, executor
    )
    assert [one[1] for one in told(study)] == ["complete"] * 4
    assert sorted(map(len, executor.stacks)) == [2, 2]


def test_killed_anywhere_it_asks_for_the_same_trials(
    tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = sweep(sampler={"type": "tpe", "startup_trials": 2}, budget={"trials": 5}, stack=2)
    whole = Scripted()
    expected = told(coordinate(bare_record(tmp_path / "whole"), definition, prepared, whole))
    monkeypatch.setattr(TrialRuns, "leave_unfinished", lambda self: None)
    for at in range(0, 36, 5):
        passes = iter(range(at))

        def dies(name: str, passes: Iterator[int] = passes) -> None:
            if next(passes, None) is None:
                raise KilledError

        record, executors = bare_record(tmp_path / str(at)), [Scripted(), Scripted()]
        with monkeypatch.context() as patch:
            for module in (coordinator, trial_runs, ask, jobs):
                patch.setattr(module, "failpoint", dies)
            with pytest.raises(KilledError):
                coordinate(record, definition, prepared, executors[0])
        found = told(coordinate(record, definition, prepared, executors[1]))
        assert [one[1:] for one in found] == [one[1:] for one in expected], at  # a number may be lost


def test_a_lost_stack_is_tried_again_one_by_one_and_nobody_is_blamed(
    tmp_path: Path, prepared: Prepared
) -> None:
    definition = sweep(parameters={"learning_rate": RATE, "width": 0.0625}, budget={"trials": 3})
    executor = Scripted(deaths=1 + MAX_RETRIES)
    study = coordinate(bare_record(tmp_path), definition, prepared, executor)
    assert executor.stacks == [(0, 1, 2), (0,), (1,), (2,), (0,), (1,)]
    assert [one[1] for one in told(study)] == ["complete"] * 3


# Real workers


def test_a_pruned_trial_leaves_and_a_killed_worker_costs_the_others_nothing(
    tmp_path: Path, demo_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # asked from the third epoch on
    monkeypatch.setattr("optuna.trial.Trial.should_prune", lambda trial: trial.number == 1)
    record, parameters = bare_record(tmp_path), {"learning_rate": RATE, "width": 0.0625, "epochs": 8}
    definition = sweep(parameters=parameters, budget={"trials": 3})
    spool, seen = record.spool / "small", []

    def kill(executor: LocalExecutor) -> None:
        def wait() -> None:
            wait_for((spool / "00001/outcome.json").exists)
            wait_for(lambda: len((spool / "00002/events.jsonl").read_bytes().splitlines()) > 4)
            seen.append((spool / "00002/outcome.json").exists())
            psutil.Process(executor._workers[0].process.pid).kill()

        threading.Thread(target=wait, daemon=True).start()

    study, said = run(record, demo_cache, definition, during=kill)
    assert seen == [False]  # in the midst of its stack
    assert [line.split(":")[0] for line in said if "killed by signal 9" in line] == ["trial 0", "trial 2"]
    trials = study.trials()
    assert [(one.state, one.epochs) for one in trials] == [
        ("pruned", 3) if one.number == 1 else ("complete", 8) for one in trials
    ]
    for one in trials:
        assert spooled_epochs(record, one) == list(range(one.epochs))
    assert [one.outcome.get("stack") for one in trials] == [None, 3, None]  # the others alone in the end
