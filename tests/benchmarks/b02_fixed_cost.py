"""B2: what a trial costs beside its arithmetic, and the usual way / ours.

A 0-step trial goes the whole way of a trial through the real coordinator, worker and writer (asked, dispatched, one
epoch's event, snapshot and checkpoint, ONNX, histograms, predictions, told, stored in MLflow): only the network's
forward and backward passes are left out, its logits come from a generator. The usual way is a process per trial that
does the same: imports, model, the same logits, fluent logging, a dynamo export, `mlflow.onnx.log_model`.

CPU milliseconds of coordinator and worker count. Those of MLflow's server and of drawing are listed apart, for both.

What is fixed is seen on a network whose weights weigh nothing (an eighth of the notebooks' width, 0.2 MB). The notebooks'
own, whose 9 MB are copied, written and digested as weights and as ONNX file, has a row of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Any

from tests.benchmarks.bench_worker import FIGURES, STAGES, ZERO_STEPS
from tests.benchmarks.coordinator_stages import watch_coordinator
from tests.benchmarks.result import Result, judged
from tests.benchmarks.rounds import Reading, Rounds, interleaved, median_estimate
from tests.benchmarks.scale import Scale
from tests.benchmarks.stage_table import Ms, per_trial_ms, stages_ms
from tests.benchmarks.stages import Stages
from tests.benchmarks.warm import CLOCKED_WORKER, Swept, WarmHarness, Workers, features_of

FEATURE = "mfcc_delta"
WIDTH, FULL_WIDTH = 0.125, 1.0
FIXED, NAIVE = "fixed_ms", "naive_ms"
# Stages whose time grows with the weights.
OF_THE_WEIGHTS = ("model made", "snapshot of weights", "weights.pt", "ONNX by template", "sha256 of outputs")


def data_of(scale: Scale) -> dict[str, Any]:
    """The data section: manifests, statistics and predictions grow with it, and nothing else does."""
    windows = scale.of((2000, 500, 500), (96, 48, 48))
    return {
        "corpus": "demo", "task": "pseudo", "variant": "seen",
        "train_windows": windows[0], "val_windows": windows[1], "test_windows": windows[2],
    }  # fmt: skip


class Ours:
    """Sweeps of 0-step trials by one warm worker; a reading's details are CPU milliseconds a trial."""

    def __init__(self, warm: WarmHarness, workers: Workers, file: Path, trials: int, width: float) -> None:
        self._warm, self._workers, self._file, self._trials = warm, workers, file, trials
        self.width = width
        self._stages = Stages()
        watch_coordinator(self._stages)
        self.worker: Ms = {}
        self.coordinator: Ms = {}

    def __call__(self) -> Reading:
        """Run one study."""
        self._file.unlink(missing_ok=True)
        self._stages.taken()
        parameters = {
            "feature": FEATURE, "learning_rate": {"float": [1e-4, 1e-2], "log": True}, "width": self.width, "epochs": 1,
        }  # fmt: skip
        sweep = self._warm.sweep_of(parameters, self._trials, sampler="tpe")
        self.last = self._warm.sweep(self._workers, sweep)
        count = len(self.last.trials)
        taken = self._stages.taken()
        lines = [json.loads(line) for line in self._file.read_text(encoding="utf-8").splitlines()]
        if len(lines) != count:
            raise RuntimeError(f"{len(lines)} trials were clocked, {count} were told")
        drawn_s = taken.get(FIGURES, (0.0, 0.0))[0] + sum(line[FIGURES][0] for line in lines)
        self.worker = stages_ms(self._file.read_text(encoding="utf-8"))
        self.coordinator = per_trial_ms(taken, count)
        return _reading(self.last, drawn_s, count)


def _reading(swept: Swept, drawn_s: float, count: int) -> Reading:
    """The fixed cost a trial: all that coordinator and worker computed, less what they drew."""
    ours_s = swept.coordinator_s + swept.workers_s
    parts = {
        FIXED: ours_s - drawn_s, "with_figures_ms": ours_s, "figures_ms": drawn_s,
        "coordinator_ms": swept.coordinator_s, "worker_ms": swept.workers_s, "server_ms": swept.server_s,
        "wall_ms": swept.wall_s,
    }  # fmt: skip
    return Reading(swept.wall_s, swept.cpu_s, {name: 1000 * value / count for name, value in parts.items()})


class Naive:
    """One trial the usual way, in a process of its own, to the same MLflow server."""

    def __init__(self, folder: Path, uri: str, width: float) -> None:
        self._command = [
            sys.executable, "-m", "tests.benchmarks.baselines.naive_trial", str(folder), uri, str(width),
        ]  # fmt: skip
        self.last: dict[str, Any] = {}

    def __call__(self) -> Reading:
        """Run one process."""
        before, start = getrusage(RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(self._command, capture_output=True, text=True, check=False)
        wall_s, after = time.perf_counter() - start, getrusage(RUSAGE_CHILDREN)
        if done.returncode:
            raise RuntimeError(f"the naive trial failed:\n{done.stderr[-2000:]}")
        self.last = json.loads(done.stdout.splitlines()[-1])
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        drawn_s = float(self.last["figures_s"])
        details = {NAIVE: 1000 * (cpu_s - drawn_s), "figures_ms": 1000 * drawn_s}
        return Reading(wall_s, cpu_s, details)


def run(scale: Scale, place: Path) -> list[Result]:
    """Measure both, check that they left the same behind, and say where ours goes."""
    file = place / "stages.jsonl"
    with WarmHarness(place, data_of(scale)) as warm:
        workers = warm.workers(1, CLOCKED_WORKER, {STAGES: str(file), ZERO_STEPS: "1"})
        folder = features_of(warm, {"kind": FEATURE}, place / "features")
        ours = Ours(warm, workers, file, scale.of(20, 2), WIDTH)
        naive = Naive(folder, warm.server.uri, WIDTH)
        ours()  # the first trial of a worker traces the template and reads fonts
        rounds = interleaved(
            {"naive": naive, "ours": ours}, scale.rounds, once=True
        )  # the naive one takes 15 s
        details = {**require_agreement(warm, ours.last, naive.last), "data": warm.data}
        found = rows(scale, rounds, ours, details)
        ours.width = scale.of(FULL_WIDTH, WIDTH)
        return [*found, full_width(scale, ours)]


def full_width(scale: Scale, ours: Ours) -> Result:
    """The row of the notebooks' network, measured alone: nothing is compared."""
    if not scale.quick:
        ours()  # traces its template
    found = [ours() for _ in range(scale.slow_rounds)]
    stages = dict(ours.worker)
    weights = sum(stages[name]["cpu_ms"] for name in OF_THE_WEIGHTS)
    return judged(
        "B2 wide", "the same with the notebooks' network, 9 MB of weights",
        median_estimate([one.details[FIXED] for one in found]), unit="ms", target="<= 60", beyond="<= 30",
        notes=(*scale.notes, f"of it the weights (drawn, copied, saved, into the ONNX file, digested): {weights:.0f} ms"),
        details={"stages_worker": ours.worker, "stages_coordinator": ours.coordinator},
    )  # fmt: skip


def require_agreement(warm: WarmHarness, swept: Swept, naive: Mapping[str, Any]) -> dict[str, Any]:
    """Hold what the store has of both against each other.

    Raises
    ------
    RuntimeError
        The accuracies differ, or one left no ONNX file or label histogram.
    """
    from harness.tracking.experiment import connect

    client = connect(warm.server.uri)
    theirs = client.get_run(naive["run_id"]).data.metrics["val_accuracy"]
    found = {trial.outcome["val_accuracy"][-1] for trial in swept.trials}
    if found != {theirs}:
        raise RuntimeError(f"the arms disagree: val accuracy {found} ours, {theirs} the naive one's")
    for name in ("model/model.onnx", "labels/histograms.json"):
        warm.artifact(swept, swept.trials[-1].number, name)
    if not any(one.path == "labels.png" for one in client.list_artifacts(naive["run_id"])):
        raise RuntimeError("the naive arm left no label histogram")
    if naive["onnx_bytes"] < 1000:
        raise RuntimeError(f"the naive arm's ONNX file has {naive['onnx_bytes']} bytes")
    return {"accuracy": theirs}


def rows(scale: Scale, rounds: Rounds, ours: Ours, details: Mapping[str, Any]) -> list[Result]:
    """Both rows."""

    def ms(name: str) -> float:
        return rounds.median("ours", lambda one: one.details[name])

    apart = f"apart: figures {ms('figures_ms'):.0f} ms, MLflow's server {ms('server_ms'):.0f} ms"
    all_notes = (*scale.notes, *rounds.notes)
    measured = {
        **details, "stages_worker": ours.worker, "stages_coordinator": ours.coordinator,
        **{name: ms(name) for name in
           ("coordinator_ms", "worker_ms", "figures_ms", "server_ms", "with_figures_ms", "wall_ms")},
    }  # fmt: skip
    fixed = judged(
        "B2", "fixed cost: a 0-step trial in a warm worker, CPU of coordinator + worker",
        rounds.estimate("ours", lambda one: one.details[FIXED]), unit="ms", target="<= 60", beyond="<= 30",
        notes=(*all_notes, apart), details=measured,
    )  # fmt: skip
    ratio = rounds.ratio("naive", "ours", lambda one: one.details.get(NAIVE) or one.details[FIXED])
    naive_ms = rounds.median("naive", lambda one: one.details[NAIVE])
    naive = judged(
        "B2 naive", "a process per trial, dynamo export, mlflow.onnx.log_model / ours, CPU without figures",
        ratio, unit="x", target=">= 100", beyond="",
        notes=(*all_notes, f"{naive_ms:.0f} ms a trial"),
        details={"naive_ms": naive_ms, "figures_ms": rounds.median("naive", lambda one: one.details["figures_ms"])},
    )  # fmt: skip
    return [fixed, naive]
