"""The product with its start behind it: a record, an MLflow server and workers that wait for their next trial.

Each `sweep` is a study of its own, run by the real coordinator, workers and writer. What is left out is what
`harness sweep` does once, before its first trial and after its last: the gate, starting processes, the report.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock

import psutil

from harness.config.search_space import SearchSpace
from harness.config.sweep import Sweep
from harness.core.provenance import provenance
from harness.core.settings import Settings
from harness.execution.data_gate import DataInspection, audit_data_configs, require_audits_pass
from harness.execution.executors.local import LocalExecutor
from harness.execution.launch import open_tracking, study_coordinator
from harness.execution.runs.jobs import Jobs
from harness.execution.view import View
from harness.study.study import Study, open_study
from harness.study.trials import TrialSummary
from harness.tracking.server.server import TrackingServer
from harness.tracking.writer import Writer
from tests.benchmarks.demo_windows import cache_with_speech
from tests.benchmarks.forks import Forked
from tests.benchmarks.records import empty_record, store_of
from tests.benchmarks.scale import TRACED

WORKER = "harness.execution.executors.worker"
CLOCKED_WORKER = "tests.benchmarks.bench_worker"
ROOT = Path(__file__).parents[2]
STORED_S = 60.0
READY_S = 120.0


@dataclass(frozen=True)
class Swept:
    """A study that ended, and what it took from the first question to the last stored row.

    coordinator_s, workers_s, server_s : CPU seconds of each, the coordinator's writer thread included
    """

    study: Study
    wall_s: float
    coordinator_s: float
    workers_s: float
    server_s: float

    @property
    def trials(self) -> list[TrialSummary]:
        """Its trials, all complete."""
        return self.study.trials()

    @property
    def cpu_s(self) -> float:
        """CPU seconds of everybody."""
        return self.coordinator_s + self.workers_s + self.server_s


class Workers(LocalExecutor):
    """The product's executor; `environment` beside a program of ours makes a benchmark's workers of it."""

    def __init__(
        self, slots: int, logs: Path, program: str = WORKER, environment: Mapping[str, str] | None = None
    ) -> None:
        self._program, self._environment = program, dict(environment or {})
        super().__init__(slots, "cpu", logs)

    def _start(self, index: int) -> Any:
        popen = subprocess.Popen

        def started(command: Sequence[str], *, env: Mapping[str, str], **options: Any) -> Any:
            named = [self._program if word == WORKER else word for word in command]
            path = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
            if TRACED in os.environ:  # the quick form
                number, *arguments = named[named.index(self._program) + 1 :]
                return Forked(
                    self._program,
                    int(number),
                    arguments,
                    {**env, **self._environment},
                    options["stdout"].name,
                )
            return popen(named, env={**env, "PYTHONPATH": path, **self._environment}, **options)

        with mock.patch.object(subprocess, "Popen", started):
            return super()._start(index)

    @property
    def processes(self) -> list[int]:
        """Their ids."""
        return [worker.process.pid for worker in self._workers]

    def wait_ready(self) -> None:
        """Wait until every worker has imported what it needs.

        Raises
        ------
        RuntimeError
            They do not come up.
        """
        deadline = time.monotonic() + READY_S
        while not all(worker.ready for worker in self._workers):
            for event in self.poll(0.2):
                raise RuntimeError(f"a worker of the benchmark does not start: {event}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"a worker of the benchmark was not ready after {READY_S:.0f} s")


class WarmHarness:
    """A record and its MLflow server, for studies on the same windows.

    Parameters
    ----------
    place : a folder of its own, for windows and features too; generated speech is shared
    data : the sweeps' `data:` section
    """

    def __init__(self, place: Path, data: Mapping[str, Any]) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self.place, self.data = place, dict(data)
        self.cache = cache_with_speech(place, (str(self.data.get("subset", "clean")),))
        self.record = empty_record(place / "mlruns")
        self._exits = ExitStack()
        self._name, self._studies = f"bench-{uuid.uuid4().hex[:8]}", 0

    def __enter__(self) -> Self:
        self.server = self._exits.enter_context(TrackingServer(self.record))
        space = SearchSpace(self.sweep_of({"feature": "mfcc_delta"}))
        settings = Settings(record=self.record.root, cache=self.cache, device="cpu")
        self.inspections: list[DataInspection] = audit_data_configs(space, settings, _silent)
        require_audits_pass(self.inspections)
        self._prepared = {one.prepared.config.digest(): one.prepared for one in self.inspections}
        self._code = provenance("cpu")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()

    def workers(
        self, slots: int, program: str = WORKER, environment: Mapping[str, str] | None = None
    ) -> Workers:
        """Start workers and wait until they are warm; they end with this harness."""
        workers = Workers(slots, self.record.root / f"logs-{time.monotonic_ns()}", program, environment)
        self._exits.callback(workers.close)
        workers.wait_ready()
        return workers

    def sweep_of(self, parameters: Mapping[str, Any], trials: int = 1, **changes: Any) -> Sweep:
        """A sweep over these windows, under a name that no study has yet."""
        self._studies += 1
        fields = {
            "name": f"{self._name}-{self._studies}", "data": self.data, "parameters": dict(parameters), "sampler": "grid",
            "pruner": "none", "budget": {"trials": trials}, **changes,
        }  # fmt: skip
        return Sweep.model_validate(fields)

    def sweep(self, workers: Workers, sweep: Sweep) -> Swept:
        """Run a sweep to the end of its budget and until MLflow holds all of it.

        Raises
        ------
        RuntimeError
            A trial did not complete, or a row was not stored: speed is not bought by dropping work.
        """
        study = open_study(self.record, sweep)
        try:
            return self._run(study, workers)
        finally:
            study.release()

    def _run(self, study: Study, workers: Workers) -> Swept:
        study.check_manifests({one.prepared.config.digest(): one.digests for one in self.inspections})
        study.describe([one.described() for one in self.inspections], self._code.tags, [])
        launched = time.time_ns()
        writer = Writer(
            self.server, lambda uri: open_tracking(uri, study, self._code, self.inspections, launched)
        )
        writer.tracking()  # the experiment and the launch's run: once a sweep, not once a trial
        jobs = Jobs(study, self.record, self._prepared, self._code, self.cache)
        coordinator, _ = study_coordinator(jobs, workers, writer, View())
        server = self._server_processes(workers)
        before = [_cpu_s([os.getpid()]), _cpu_s(workers.processes), _cpu_s(server)]
        start = time.perf_counter()
        coordinator.run()
        unstored = writer.drain(STORED_S)
        wall_s = time.perf_counter() - start
        after = [_cpu_s([os.getpid()]), _cpu_s(workers.processes), _cpu_s(server)]
        writer.stop(STORED_S)
        ended = Swept(study, wall_s, *(b - a for a, b in zip(before, after, strict=True)))
        _require_complete(ended, unstored, writer)
        return ended

    def _server_processes(self, workers: Workers) -> list[int]:
        """The MLflow server and its supervisor: descendants of this process that are called so."""
        found = []
        for child in psutil.Process().children(recursive=True):
            if child.pid not in workers.processes and any("mlflow" in word for word in child.cmdline()):
                found.append(child.pid)
        return found

    def artifact(self, swept: Swept, number: int, name: str) -> Path:
        """Where the record stores an artifact of a trial's run.

        Raises
        ------
        RuntimeError
            MLflow has no such run or file.
        """
        from harness.tracking.experiment import connect

        client = connect(self.server.uri)
        experiment = client.get_experiment_by_name(swept.study.name)
        runs = client.search_runs([experiment.experiment_id], f"tags.`harness.trial` = '{number}'")
        found = [store_of(self.record).artifacts / _inside(run.info.artifact_uri) / name for run in runs]
        if len(found) != 1 or not found[0].is_file():
            raise RuntimeError(f"trial {number} of {swept.study.name} left no {name}: {found}")
        return found[0]


def _inside(uri: str) -> str:
    """The path of `mlflow-artifacts:/1/abc/artifacts` in the folder of artifacts."""
    return uri.partition(":")[2].lstrip("/")


def _require_complete(swept: Swept, unstored: Sequence[Path], writer: Writer) -> None:
    wrong = [trial for trial in swept.trials if trial.state not in ("complete", "duplicate")]
    if wrong or not swept.trials:
        raise RuntimeError(
            f"trials did not complete: {[(one.number, one.state, one.reason) for one in wrong]}"
        )
    if unstored:
        raise RuntimeError(f"MLflow did not store {unstored}: {writer.reason}")


def _cpu_s(processes: Sequence[int]) -> float:
    """CPU seconds of processes, all their threads included; to the nanosecond where the kernel has such a clock."""
    if sys.platform == "linux":
        return sum(time.clock_gettime((~process << 3) | 2) for process in processes)  # CPUCLOCK_SCHED
    times = [psutil.Process(process).cpu_times() for process in processes]
    return float(sum(one.user + one.system for one in times))


def _silent(message: str) -> None:
    del message


def features_of(warm: WarmHarness, feature: Mapping[str, Any], folder: Path) -> Path:
    """Write the stored features of the training and validation windows as plain files, for an arm without a harness.

    train.npy, val.npy (window, feature, frame) float32; train_labels.npy, val_labels.npy (window,)
    """
    import numpy as np
    import torch

    from harness.training.trial import load_split
    from models.front_ends.config import parse_front_end

    prepared = warm.inspections[0].prepared
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "val"):
        split, _ = load_split(prepared, name, parse_front_end(feature), warm.cache, torch.device("cpu"))
        np.save(folder / f"{name}.npy", split.features.numpy())
        np.save(folder / f"{name}_labels.npy", split.labels.numpy())
    return folder
