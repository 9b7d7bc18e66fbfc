"""B1: a bare loop over resident tensors / a trial of the harness in a warm worker with logging on, same steps.

The trial is the whole of it: asked for, dispatched, trained with an event, a checkpoint and a snapshot of the weights
each epoch, exported, drawn, told, and stored in MLflow. The loop leaves nothing behind. Both must end with the same
weights, bit for bit: what they differ in is then time alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from harness.core.seeds import derived_seed
from models.checkpoints import load_weights
from tests.benchmarks.baselines.bare_loop import digest
from tests.benchmarks.bench_worker import STAGES
from tests.benchmarks.result import Result, judged
from tests.benchmarks.rounds import Reading, Rounds, cpu, interleaved
from tests.benchmarks.scale import Scale
from tests.benchmarks.stage_table import stages_ms
from tests.benchmarks.warm import CLOCKED_WORKER, Swept, WarmHarness, Workers, features_of

WHAT = "bare loop over resident tensors / harness trial, same steps, logging on"
FEATURE = "mfcc_delta"
RATE, WEIGHT_DECAY, WARMUP, BATCH, SCORED = 2e-3, 1e-2, 0.1, 32, 512


def sizes(scale: Scale) -> tuple[dict[str, Any], dict[str, Any]]:
    """The data section, and the parameters of the one trial: some 15 to 25 s on one core, where the notebooks' took an hour."""
    windows = scale.of((800, 128), (96, 48))
    data = {
        "corpus": "demo", "task": "pseudo", "variant": "seen",
        "train_windows": windows[0], "val_windows": windows[1], "test_windows": 48,
    }  # fmt: skip
    parameters = {
        "feature": FEATURE, "learning_rate": RATE, "weight_decay": WEIGHT_DECAY, "warmup_share": WARMUP,
        "batch_size": BATCH, "train_score_windows": SCORED, "width": scale.of(1.0, 0.125), "epochs": scale.of(2, 1),
    }  # fmt: skip
    return data, parameters


class BareLoop:
    """The baseline's process, warm; `reading` is one training."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.baselines.bare_loop", str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.last: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._read("ready")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def train(self, parameters: Mapping[str, Any]) -> Reading:
        """Train once, as long as the process says it took."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(dict(parameters)) + "\n")
        self._process.stdin.flush()
        self.last = json.loads(self._read())
        return Reading(self.last["wall_s"], self.last["cpu_s"])

    def _read(self, wanted: str = "") -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line or (wanted and line != wanted):
            raise RuntimeError(f"the bare loop ended: {line!r}, exit code {self._process.poll()}")
        return line


def reading_of(swept: Swept) -> Reading:
    """A sweep's times, and whose CPU they were."""
    parts = {
        "coordinator_s": swept.coordinator_s, "worker_s": swept.workers_s, "server_s": swept.server_s,
    }  # fmt: skip
    return Reading(swept.wall_s, swept.cpu_s, parts)


def bare_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The same training as the bare loop calls it."""
    left = {name: parameters[name] for name in parameters if name not in ("feature", "train_score_windows")}
    return {**left, "seed": derived_seed("training", 0, 0), "scored": parameters["train_score_windows"]}


def require_agreement(warm: WarmHarness, swept: Swept, bare: Mapping[str, Any]) -> dict[str, Any]:
    """Hold the trial's accuracies and weights against the bare loop's.

    Raises
    ------
    RuntimeError
        They differ in a single bit: then the arms did not do the same work.
    """
    (trial,) = swept.trials
    found = list(trial.outcome["val_accuracy"])
    if found != list(bare["accuracy"]):
        raise RuntimeError(f"the arms disagree: accuracies {found} of the harness, {bare['accuracy']} bare")
    weights = digest(load_weights(warm.artifact(swept, trial.number, "model/weights.pt")))
    epoch = int(trial.outcome["best_epoch"])
    if weights != bare["digests"][epoch]:
        raise RuntimeError(f"the arms disagree in the weights after epoch {epoch}")
    for name in ("model/model.onnx", "labels/histograms.json"):
        warm.artifact(swept, trial.number, name)
    return {"accuracy": found[-1], "weights": weights}


def run(scale: Scale, place: Path) -> list[Result]:
    """Measure both, check that they agree, and say where the rest goes."""
    torch.set_num_threads(1)
    data, parameters = sizes(scale)
    swept: list[Swept] = []
    with WarmHarness(place, data) as warm:
        workers = warm.workers(1)
        folder = features_of(warm, {"kind": FEATURE}, place / "features")
        with BareLoop(folder) as bare:

            def harness() -> Reading:
                swept.append(warm.sweep(workers, warm.sweep_of(parameters)))
                return reading_of(swept[-1])

            arms = {"bare": lambda: bare.train(bare_parameters(parameters)), "harness": harness}
            warm_up(warm, workers, parameters)
            bare.train(bare_parameters({**parameters, "epochs": 1, "batch_size": 64}))
            rounds = interleaved(arms, scale.rounds, once=True)
            agreed = require_agreement(warm, swept[-1], bare.last)
        stages = {} if scale.quick else clocked(warm, place / "stages.jsonl", parameters)
    return [judged_loop(scale, rounds, {**agreed, **stages, "data": data, "parameters": parameters})]


def warm_up(warm: WarmHarness, workers: Workers, parameters: Mapping[str, Any]) -> None:
    """One short trial before the first that counts: the template's trace, fonts, the features' digests."""
    warm.sweep(workers, warm.sweep_of({**parameters, "epochs": 1, "batch_size": 64}))


def clocked(warm: WarmHarness, file: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The same trial once more, in a worker that clocks its stages."""
    workers = warm.workers(1, CLOCKED_WORKER, {STAGES: str(file)})
    warm_up(warm, workers, parameters)
    file.unlink()
    warm.sweep(workers, warm.sweep_of(parameters))
    return {"stages_ms": stages_ms(file.read_text(encoding="utf-8"))}


def part(name: str) -> Callable[[Reading], float]:
    """One of a reading's details."""
    return lambda one: one.details[name]


def judged_loop(scale: Scale, rounds: Rounds, details: Mapping[str, Any]) -> Result:
    """The row."""
    bare, harness = rounds.median("bare"), rounds.median("harness")
    by_cpu = rounds.ratio("bare", "harness", cpu)
    notes = (
        *scale.notes, *rounds.notes, "weights equal bit for bit",
        f"bare {bare:.2f} s, harness {harness:.2f} s: {1000 * (harness - bare):.0f} ms more a trial",
        f"by CPU, server included: {by_cpu.value:.3f}",
    )  # fmt: skip
    more = {
        "bare_s": bare, "harness_s": harness,
        **{name: rounds.median("harness", part(name)) for name in ("coordinator_s", "worker_s", "server_s")},
        "cpu_ratio": by_cpu.value,
    }  # fmt: skip
    return judged(
        "B1", WHAT, rounds.ratio("bare", "harness"), unit="x", target=">= 0.95", beyond=">= 0.99",
        notes=notes, details={**details, **more},
    )  # fmt: skip
