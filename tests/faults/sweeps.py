"""Sweeps that are killed: how they are started and killed, and what their record holds afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

from harness.study.storage.mlflow_schema import read_only_connection
from harness.study.storage.record import Record
from harness.study.storage.trial_spool import TIMING_METRICS
from harness.study.study import load_study
from harness.study.trials import TrialSummary
from harness.tracking.server.server import TrackingServer
from tests.faults.warm import RECONCILE
from tests.harness.places.workplace import Workspace

SWEEP = """\
name: tiny
data: {{corpus: demo, train_windows: 120, val_windows: 96, test_windows: 96}}
parameters: {{feature: mfcc, learning_rate: {{float: [1e-3, 1e-2], log: true}}, width: 0.0625, epochs: {epochs}}}
sampler: {sampler}
pruner: none
budget: {{trials: {trials}}}
"""

Place = Callable[[Path, str], Workspace]


def sweep_of(trials: int, epochs: int, sampler: str = "random") -> str:
    """The cheapest sweep of so many trials of so many epochs, of a space that has no end."""
    return SWEEP.format(trials=trials, epochs=epochs, sampler=sampler)


class Running:
    """A process that a `Warm` one has forked."""

    def __init__(self, pid: int, exit_file: Path, out: Path) -> None:
        self.pid, self._exit, self._out = pid, exit_file, out

    @property
    def code(self) -> int | None:
        """Exit code (negative: the signal that killed it); None while it runs."""
        return int(self._exit.read_text()) if self._exit.exists() else None

    @property
    def said(self) -> str:
        """What it printed, on either stream."""
        return self._out.read_text(errors="replace")

    def kill(self) -> None:
        """Kill it alone: its workers and its server have to find out for themselves."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds: float = 400.0) -> int:
        """Its exit code, once it has ended."""
        deadline = time.monotonic() + seconds
        while self.code is None:
            assert time.monotonic() < deadline, f"it goes on and on:\n{self.said}"
            time.sleep(0.05)
        assert self.code is not None
        return self.code

    def lives(self, seconds: float) -> bool:
        """Whether it has not ended after so many seconds."""
        deadline = time.monotonic() + seconds
        while self.code is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.code is None

    def workers(self) -> list[psutil.Process]:
        """Its living worker processes."""
        with suppress(psutil.Error):
            return [one for one in psutil.Process(self.pid).children() if _is_worker(one)]
        return []


def _is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return (
            "harness.execution.executors.worker" in process.cmdline()
            and process.status() != psutil.STATUS_ZOMBIE
        )
    return False


class Warm:
    """Starts real processes that need not import anything; see `tests.faults.warm`."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.warm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def start(self, place: Workspace, *words: str, **extra: str) -> Running:
        """Start a command in a workplace; `extra` are variables of its environment."""
        self._count += 1
        out, ended = self._folder / f"{self._count}.out", self._folder / f"{self._count}.exit"
        order = {
            "folder": str(place.folder), "words": words, "out": str(out), "exit": str(ended),
            "environment": {**place.environment, **extra},
        }  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Running(int(self._process.stdout.readline()), ended, out)

    def run(self, place: Workspace, *words: str, **extra: str) -> str:
        """Run a command that must succeed; what it printed."""
        running = self.start(place, *words, **extra)
        assert running.wait() == 0, running.said
        return running.said

    def sweep(self, place: Workspace, workers: int = 1, **extra: str) -> Running:
        """Start the workplace's sweep; each epoch that a worker is acknowledged goes into its ledger."""
        return self.start(
            place, "sweep", "tiny.yaml", "--quiet", "--workers", str(workers), HARNESS_LEDGER=str(ledger_of(place)), **extra
        )  # fmt: skip

    def reconcile(self, place: Workspace, study: str = "tiny", **extra: str) -> list[str]:
        """What `reconcile` says it has done."""
        return self.run(place, RECONCILE, str(place.record.root), study, **extra).splitlines()

    def close(self) -> None:
        """End it, and whatever it forked that runs still."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@contextmanager
def warmed(folder: Path) -> Iterator[Warm]:
    """A warm process for the time of a block."""
    folder.mkdir(parents=True, exist_ok=True)
    warm = Warm(folder)
    try:
        yield warm
    finally:
        warm.close()


# The ledger


def ledger_of(place: Workspace) -> Path:
    """Where the workers of a workplace note what they were acknowledged."""
    return place.folder / "ledger.txt"


def acknowledged(place: Workspace) -> dict[tuple[int, int], float]:
    """Smoothed score of every acknowledged epoch, by trial and epoch; a repeated epoch had the same one."""
    path = ledger_of(place)
    found: dict[tuple[int, int], float] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        trial, epoch, value = line.split()
        key = (int(trial), int(epoch))
        assert found.setdefault(key, float(value)) == float(value), (
            f"epoch {key} came out differently: {line}"
        )
    return found


# The record


@dataclass(frozen=True)
class Found:
    """What is wrong with a finished study: counts of what must not be, and its trials."""

    lost: int
    doubled: int
    running: int
    epochs: int
    trials: tuple[TrialSummary, ...]
    runs: tuple[str, ...]
    left: str  # what is running, in words

    @property
    def finished(self) -> bool:
        """Whether each trial is complete and has one FINISHED run, of a configuration of its own."""
        configurations = {trial.fingerprint for trial in self.trials}
        complete = all(trial.state == "complete" for trial in self.trials)
        return (
            complete
            and len(configurations) == len(self.trials)
            and Counter(self.runs) == {"FINISHED": len(self.trials)}
        )


def found_in(place: Workspace) -> Found:
    """Hold the record of a study that has ended against its ledger."""
    stored = stored_epochs(place)
    points = Counter((trial, epoch) for trial, epoch, _ in stored)
    values = {(trial, epoch): value for trial, epoch, value in stored}
    promised = acknowledged(place)
    kinds = statuses(place)
    optuna = load_study(place.record, "tiny").optuna_study.get_trials(deepcopy=False)
    unfinished = [
        f"trial {trial.number} {trial.state.name}" for trial in optuna if not trial.state.is_finished()
    ]
    running = [f"{kind} run {status}" for kind, status in kinds if status in ("RUNNING", "SCHEDULED")]
    return Found(
        lost=sum(values.get(key) != value for key, value in promised.items()),
        doubled=sum(count > 1 for count in points.values()),
        running=len(running) + len(unfinished),
        epochs=len(promised),
        trials=tuple(begun(place)),
        runs=tuple(status for kind, status in kinds if kind == "trial"),
        left=", ".join([*running, *unfinished]),
    )


def begun(place: Workspace) -> list[TrialSummary]:
    """The trials that spent budget, in order."""
    return [trial for trial in load_study(place.record, "tiny").trials() if trial.fingerprint]


def statuses(place: Workspace) -> list[tuple[str, str]]:
    """Kind and status of every run of the study that MLflow holds."""
    query = (
        "select tags.value, own.status from own join tags using (run_uuid) where tags.key = 'harness.kind'"
    )
    return _query(place, query)


def stored_epochs(place: Workspace) -> list[tuple[int, int, float]]:
    """Trial, epoch and smoothed score of every point that MLflow holds, however often."""
    query = _POINTS.format(where="metrics.key = 'smoothed'")
    return [(int(trial), int(step), float(value)) for trial, _, step, value in _query(place, query)]


def outcomes(place: Workspace) -> list[tuple[Any, ...]]:
    """Of each trial, in order, its configuration, how it ended and every metric of every epoch; no clock's readings."""
    points: dict[int, list[list[Any]]] = {}
    for trial, key, step, value in _query(place, _POINTS.format(where="true")):
        if key.removeprefix("best/") not in TIMING_METRICS:
            points.setdefault(int(trial), []).append([key, step, value])
    return [
        [one.fingerprint, one.state, one.score, one.epochs, one.outcome.get("best_epoch"), points.get(one.number)]
        for one in begun(place)
    ]  # fmt: skip


def dump(place: Workspace) -> dict[str, Any]:
    """All that the record holds: trials, every row of MLflow's database, the digest of every file kept for a run."""
    kept = kept_by(place)
    with read_only_connection(kept.database) as database:
        rows = sorted(line for line in database.iterdump() if line.startswith("INSERT"))
    trials = load_study(place.record, "tiny").optuna_study.get_trials(deepcopy=False)
    files = {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in (kept.artifacts, place.record.spool)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return {"trials": [repr(trial) for trial in trials], "rows": rows, "files": files}


def _query(place: Workspace, query: str) -> list[Any]:
    """Rows of MLflow's database, read beside its server; `own` are the runs of the workplace's study."""
    own = """
        with own as (select runs.* from runs join experiment_tags using (experiment_id)
        where experiment_tags.key = 'harness.identity' and experiment_tags.value = ?)
    """
    identity = load_study(place.record, "tiny").identity
    with read_only_connection(kept_by(place).database) as database:
        return database.execute(f"{own} {query}", (identity,)).fetchall()


_POINTS = """
    select trials.value, metrics.key, metrics.step, metrics.value from own
    join tags trials on trials.run_uuid = own.run_uuid and trials.key = 'harness.trial'
    join tags kinds on kinds.run_uuid = own.run_uuid and kinds.key = 'harness.kind' and kinds.value = 'trial'
    join metrics on metrics.run_uuid = own.run_uuid and {where}
    order by 1, 2, 3
"""


def kept_by(place: Workspace) -> Record:
    """The record whose MLflow server the workplace's sweeps use: its own, or that of `Server`."""
    return Record(Path(place.environment.get(KEPT_BY, place.record.root)))


KEPT_BY = "TESTS_KEPT_BY"


def undisturbed(folder: Path, place: Place, warm: Warm, sweep: str) -> list[Any]:
    """`outcomes` of a sweep that nobody disturbs, on one worker; `place` makes the workplace it is run in."""
    name = hashlib.sha256(sweep.encode()).hexdigest()[:16]
    kept = folder / f"undisturbed-{name}.json"
    with FileLock(kept.with_suffix(".lock")):
        if not kept.exists():
            own = place(folder / f"undisturbed-{name}", sweep)
            assert warm.sweep(own).wait() == 0
            kept.write_text(json.dumps(outcomes(own)))
    return list(json.loads(kept.read_text()))


def empty(make: Callable[[Path], Record], cache: Path, shared: tuple[Record, str] | None = None) -> Place:
    """`place(folder, sweep)`: a workplace with an empty record.

    `shared` is a record and the address of its server, which then keeps MLflow's half: one costs 6 s of CPU a launch.
    """

    def place(folder: Path, sweep: str) -> Workspace:
        folder.mkdir(parents=True, exist_ok=True)
        make(folder / "mlruns")
        made = Workspace(folder, cache, sweep)
        if shared is not None:
            made.environment |= {"MLFLOW_TRACKING_URI": shared[1], KEPT_BY: str(shared[0].root)}
        return made

    return place


# Fixtures (conftest.py has them for all)


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """A process that launches are forked from."""
    with warmed(tmp_path_factory.mktemp("warm")) as warm:
        yield warm


@pytest.fixture(scope="session")
def own_server(demo_cache: Path, new_record: Callable[[Path], Record]) -> Place:
    """Makes a workplace with an empty record, whose launches start a server each."""
    return empty(new_record, demo_cache)


@pytest.fixture(scope="session")
def place_of(
    demo_cache: Path, new_record: Callable[[Path], Record], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """Makes a workplace with an empty record; one MLflow server serves all of them."""
    kept = new_record(tmp_path_factory.mktemp("kept") / "mlruns")
    with TrackingServer(kept) as server:
        yield empty(new_record, demo_cache, (kept, server.uri))
