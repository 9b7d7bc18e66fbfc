"""B5: trials an hour, two single-thread workers / one, on two cores; and against two workers of two threads each.

All arms are the harness: the same sweep of two configurations, the same record, the same artefacts. The naive packing
differs in one thing, the threads that torch, BLAS and OpenMP are given in its workers. It is so slow that it gets a
sweep of its own, half as long, and fewer rounds; packed is measured again beside it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_worker import THREADS
from tests.benchmarks.result import Result, judged
from tests.benchmarks.rounds import CannotRun, Reading, Rounds, cpu, interleaved
from tests.benchmarks.scale import Scale
from tests.benchmarks.warm import CLOCKED_WORKER, Swept, WarmHarness, Workers

TRIALS = 2
NAIVE_THREADS = 2
LIMIT_S = 50.0  # of each of two comparisons
# What two threads may add up differently: the naive arm's accuracy is held against the others' to this.
TOLERANCE = 0.1


def sizes(scale: Scale) -> tuple[dict[str, Any], dict[str, Any]]:
    """The data section, and the parameters of the two trials: some 10 s each on one core."""
    data = {
        "corpus": "demo", "task": "pseudo", "variant": "seen",
        "train_windows": scale.of(320, 64), "val_windows": scale.of(128, 48), "test_windows": 48,
    }  # fmt: skip
    parameters = {
        "feature": "mfcc_delta", "learning_rate": [1e-3, 2e-3], "batch_size": 32, "train_score_windows": 128,
        "width": scale.of(1.0, 0.125), "epochs": scale.of(2, 1),
    }  # fmt: skip
    return data, parameters


class Packing:
    """An arm: the same two trials on these workers."""

    def __init__(self, warm: WarmHarness, workers: Workers, parameters: Mapping[str, Any]) -> None:
        self._warm, self._workers, self._parameters = warm, workers, parameters
        self.scores: list[float] = []

    def __call__(self) -> Reading:
        """Run them."""
        swept = self._warm.sweep(self._workers, self._warm.sweep_of(self._parameters, TRIALS))
        self.scores = scores_of(swept)
        self.swept = swept
        return Reading(swept.wall_s, swept.cpu_s, {"worker_s": swept.workers_s, "server_s": swept.server_s})


def scores_of(swept: Swept) -> list[float]:
    """The trials' scores, in the order of their learning rates, whichever began first."""
    by_rate = {float(one.config["training"]["learning_rate"]): one.score for one in swept.trials}
    if len(by_rate) != TRIALS or None in by_rate.values():
        raise RuntimeError(f"{TRIALS} trials were wanted: {by_rate}")
    return [float(by_rate[rate] or 0.0) for rate in sorted(by_rate)]


def require_agreement(serial: Packing, packed: Packing, short: Packing, naive: Packing) -> None:
    """Hold the arms' scores against each other.

    Raises
    ------
    RuntimeError
        Packed and serial differ at all, or the naive arm's by more than threads explain.
    """
    if serial.scores != packed.scores:
        raise RuntimeError(f"the arms disagree: {serial.scores} serial, {packed.scores} packed")
    if max(abs(a - b) for a, b in zip(short.scores, naive.scores, strict=True)) > TOLERANCE:
        raise RuntimeError(f"the arms disagree: {short.scores} packed, {naive.scores} with more threads")


def run(scale: Scale, place: Path) -> list[Result]:
    """Measure the packings, long and short."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < TRIALS:
        raise CannotRun(f"{TRIALS} workers need {TRIALS} cores, this process may use {cores}")
    data, parameters = sizes(scale)
    brief = {**parameters, "epochs": 1}  # 10 and 2 steps
    with WarmHarness(place, data) as warm:
        one, two = warm.workers(1), warm.workers(TRIALS)
        threads = {name: str(NAIVE_THREADS) for name in (THREADS, "OMP_NUM_THREADS", "MKL_NUM_THREADS",
                                                         "OPENBLAS_NUM_THREADS")}  # fmt: skip
        many = warm.workers(TRIALS, CLOCKED_WORKER, threads)
        serial, packed = Packing(warm, one, parameters), Packing(warm, two, parameters)
        short, naive = Packing(warm, two, brief), Packing(warm, many, brief)
        for arm in () if scale.quick else (Packing(warm, one, brief), short):
            arm()  # the warm-up: it traces the templates
        settings: dict[str, Any] = {"warm_up": False, "once": True, "limit_s": LIMIT_S}
        long = interleaved({"serial": serial, "packed": packed}, scale.rounds, **settings)
        few = interleaved({"naive": naive, "short": short}, scale.slow_rounds, **settings)
        require_agreement(serial, packed, short, naive)
        warm.artifact(naive.swept, 0, "model/model.onnx")
    return rows(
        scale, long, few, {"data": data, "parameters": parameters, "cores": cores, "scores": packed.scores}
    )


def rows(scale: Scale, long: Rounds, few: Rounds, details: Mapping[str, Any]) -> list[Result]:
    """Both rows."""
    wall = {name: long.median(name) for name in ("serial", "packed")}
    by_hour = {f"{name}_trials_per_h": 3600 * TRIALS / seconds for name, seconds in wall.items()}
    cpu_more = long.ratio("packed", "serial", cpu)
    packed = judged(
        "B5", "trials an hour, packed (2 workers of 1 thread) / serial (1 worker), CPU",
        long.ratio("serial", "packed"), unit="x", target=">= 1.85", beyond="",
        notes=(
            *scale.notes, *long.notes, "scores equal",
            f"the packed trials take {cpu_more.value:.2f} times the CPU of the serial ones",
        ),
        details={**details, **by_hour, "cpu_packed_over_serial": cpu_more.value},
    )  # fmt: skip
    naive = judged(
        "B5 naive", "trials an hour, packed / 2 workers of 2 threads each, CPU", few.ratio("naive", "short"),
        unit="x", target=">= 4", beyond="",
        notes=(*scale.notes, *few.notes, "trials of 10 steps: the harness's fixed cost counts in both"),
        details={"naive_s": few.median("naive"), "packed_s": few.median("short")},
    )  # fmt: skip
    return [packed, naive]
