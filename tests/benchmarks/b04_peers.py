"""B4: what a trial costs beside its training, under Ray Tune, under Hydra with its Optuna sweeper, and here.

One trial after another in one warm worker, features in memory or mapped from disk. A run of an arm is a study of its
own; what counts are the trials after the first, which loads libraries, makes features and templates:

    |-- start --|-- trial 0 --|-- trial 1 --| ... |-- trial n --|-- end --|
                              |<--------- (n trials) ---------->|           / n - the bare loop on the same rates

By the end times in MLflow; ours ends only when MLflow holds all of the last trial, which a thread brings it.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.core.seeds import derived_seed
from harness.study.storage.record import Record
from harness.training.trial import load_split
from models.front_ends.config import Mfcc
from tests.benchmarks.baselines.peer_trial import SCORE, Cached, training
from tests.benchmarks.baselines.plain_training import Recipe
from tests.benchmarks.demo_windows import demo_data, prepared_demo, shared_cache
from tests.benchmarks.peer_environments import Environment, environment
from tests.benchmarks.programs import ROOT, ProgramFailed, harness_sweep, run_program
from tests.benchmarks.records import empty_record
from tests.benchmarks.result import Result, judged, not_measured
from tests.benchmarks.rounds import SLOW_LIMIT_S, Arm, CannotRun, Reading, Rounds, interleaved
from tests.benchmarks.scale import Scale
from tests.benchmarks.stored_runs import (
    StoredRun,
    new_experiment,
    new_store,
    require_agreement,
    require_complete,
    runs_of,
    stored_runs,
)

WHAT = {
    "ray": "overhead of a trial: Ray Tune with reused actors / harness",
    "hydra": "overhead of a trial: Hydra with its Optuna sweeper / harness",
}
BASELINES = ROOT / "tests" / "benchmarks" / "baselines"
RATES = (0.001, 0.01)
WIDTH = 0.125
EPOCHS = 3
SEED = derived_seed("training", 0, 0)
NAME = "peers"
LIMIT_S = 600.0
TOLERANCE = 0.03  # equal features, weights and orders; kernels may round differently


@dataclass(frozen=True)
class Size:
    """Windows of the trials, short so that overhead is most of them, and trials of a study: of a peer's, of ours."""

    train: int
    val: int
    peer_trials: int
    our_trials: int
    cold: bool = True  # our record is made by our arm; before what is measured in either case


FULL = Size(96, 96, 3, 13)
QUICK = Size(64, 48, 2, 2, cold=False)


class PeerFailed(RuntimeError):  # noqa: N818 - what it is
    """A peer's program does not run here; the message has the end of what it printed, `reason` one line of it."""

    def __init__(self, name: str, failed: ProgramFailed) -> None:
        super().__init__(str(failed))
        self.name, self.reason = name, failed.reason


class Arms:
    """Three ways of running a study of the same short trials."""

    def __init__(self, size: Size, place: Path, environments: Mapping[str, Environment]) -> None:
        self.size, self.place, self.environments = size, place, dict(environments)
        self.runs = itertools.count()
        self.left_over = 0
        data = demo_data(size.train, size.val)
        prepared, self.cache = prepared_demo(data, place)
        splits = {
            split: load_split(prepared, split, Mfcc(), self.cache, torch.device("cpu"))[0]
            for split in ("train", "val")
        }
        self.cached = Cached(
            {split: part.features for split, part in splits.items()},
            {split: part.labels for split, part in splits.items()},
        )
        self.store = new_store(place)
        self.data = place / "features"
        self.data.mkdir()
        self.cached.save(self.data)
        self.sweep = place / "sweep.yaml"
        self.sweep.write_text(json.dumps(sweep_of(size, data)), encoding="utf-8")  # JSON is YAML
        self.bare([RATES[0]])  # loads what a first training loads

    def arms(self) -> dict[str, Arm]:
        """Those that can be run."""
        peers: dict[str, Arm] = {"ray": self.ray, "hydra": self.hydra}
        return {"ours": self.ours} | {name: arm for name, arm in peers.items() if name in self.environments}

    def ray(self) -> Reading:
        """A study by Ray Tune."""
        folder, job = self._peer("ray")
        words: list[str | Path] = [self.environments["ray"].python, "-P", BASELINES / "ray_tune.py", job]
        return self._peers_reading("ray", words, folder)

    def hydra(self) -> Reading:
        """A study by Hydra."""
        folder, job = self._peer("hydra")
        words: list[str | Path] = [
            self.environments["hydra"].python, "-P", BASELINES / "hydra_app.py", "--multirun", f"job={job}",
            f"hydra.sweep.dir={folder / 'multirun'}", f"hydra.sweeper.n_trials={self.size.peer_trials}",
            f"hydra.sweeper.sampler.seed={SEED}", f"learning_rate=tag(log, interval({RATES[0]}, {RATES[1]}))",
        ]  # fmt: skip
        return self._peers_reading("hydra", words, folder)

    def ours(self) -> Reading:
        """A study by the harness, in one worker."""
        folder = self._folder("ours")
        record = folder / "mlruns"
        if not self.size.cold:
            empty_record(record)
        words = harness_sweep(self.sweep, record, self.cache, "--workers", "1")
        reading = self._measured(words, folder)
        runs = runs_of(Record(record), NAME)
        # The folder of a trial's spool goes when MLflow holds the trial: that changed its parent last.
        stored_s = (record / "spool" / NAME).stat().st_mtime
        return self._reading(reading, runs, stored_s)

    def bare(self, rates: Sequence[float]) -> tuple[float, list[float]]:
        """Seconds of the bare loop for each of these trainings, and their final accuracies."""
        began = time.perf_counter()
        scores = [
            list(training(self.cached, Recipe(rate, EPOCHS, SEED), WIDTH)[1])[-1][SCORE] for rate in rates
        ]
        return (time.perf_counter() - began) / len(rates), scores

    def _peers_reading(self, name: str, words: Sequence[str | Path], folder: Path) -> Reading:
        try:
            reading = self._measured(words, folder)
        except ProgramFailed as error:
            raise PeerFailed(name, error) from error
        return self._reading(reading, stored_runs(self.store, folder.name, folder))

    def _measured(self, words: Sequence[str | Path], folder: Path) -> Reading:
        ran = run_program(words, folder, LIMIT_S)
        self.left_over += ran.left_over
        return ran.reading

    def _reading(self, reading: Reading, runs: list[StoredRun], stored_s: float = 0.0) -> Reading:
        """Overhead of the trials after the first; `stored_s` is when the last was stored, if later than it ended."""
        ours = stored_s > 0
        require_complete(runs, self.size.our_trials if ours else self.size.peer_trials, EPOCHS)
        trial_s = (max(stored_s, runs[-1].ended_s) - runs[0].ended_s) / (len(runs) - 1)
        bare_s, scores = self.bare([run.learning_rate for run in runs])
        if trial_s <= bare_s:
            raise CannotRun(
                f"a trial took {trial_s:.2f} s and its bare loop, after it, {bare_s:.2f} s: too unsteady"
            )
        pairs = [(run.curve[-1], score) for run, score in zip(runs, scores, strict=True)]
        difference = require_agreement(pairs, TOLERANCE, "B4")
        exports = [run.export_s for run in runs[1:] if not math.isnan(run.export_s)]
        details = {
            "trial_s": trial_s, "bare_s": bare_s, "overhead_s": trial_s - bare_s, "difference": difference,
            "export_s": sum(exports) / len(exports) if exports else 0.0,
        }  # fmt: skip
        return Reading(reading.wall_s, reading.cpu_s, details)

    def _peer(self, arm: str) -> tuple[Path, Path]:
        """A folder with an experiment of its own, and the job in it."""
        folder = self._folder(arm)
        scratch = folder / "r"  # Ray's sockets lie in it, and their paths may have 107 characters
        job: dict[str, Any] = {
            "data": str(self.data), "trials": self.size.peer_trials, "rates": RATES, "width": WIDTH,
            "recipe": {"epochs": EPOCHS, "seed": SEED}, "tracking_uri": self.store,
            "experiment": new_experiment(self.store, folder), "storage": str(folder / "tune"), "scratch": str(scratch),
        }  # fmt: skip
        path = folder / "job.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        return folder, path

    def _folder(self, arm: str) -> Path:
        folder = self.place / f"{arm}{next(self.runs)}"
        folder.mkdir()
        return folder


def sweep_of(size: Size, data: Mapping[str, Any]) -> dict[str, Any]:
    """The sweep of our arm."""
    return {
        "name": NAME,
        "data": data,
        "parameters": {
            "learning_rate": {"float": list(RATES), "log": True},
            "width": WIDTH,
            "epochs": EPOCHS,
        },
        "sampler": "tpe",
        "pruner": "none",
        "budget": {"trials": size.our_trials},
    }


def environments(cache: Path) -> tuple[dict[str, Environment], dict[str, str]]:
    """The peers' environments, made side by side, and why one cannot be."""
    made: dict[str, Environment] = {}
    missing: dict[str, str] = {}
    with ThreadPoolExecutor() as pool:
        waiting = {name: pool.submit(environment, name, cache) for name in WHAT}
        for name, one in waiting.items():
            try:
                made[name] = one.result()
            except (CannotRun, OSError) as reason:
                missing[name] = str(reason)
    return made, missing


def overhead(reading: Reading) -> float:
    """Seconds of a trial beside its training."""
    return reading.details["overhead_s"]


def without_export(reading: Reading) -> float:
    """The same, less torch's export; ours has none in it."""
    return overhead(reading) - reading.details["export_s"]


def run(scale: Scale, place: Path) -> list[Result]:
    """Measure B4."""
    made, missing = environments(shared_cache())
    results: list[Result] = []
    if made:
        arms = Arms(scale.of(FULL, QUICK), place, made)
        rounds = with_those_that_run(arms, scale.slow_rounds, missing)
        results = [_judged(name, scale, rounds, arms) for name in arms.environments if rounds]
    return results + [
        not_measured(f"B4 {name}", WHAT[name], reason, unit="x", target=">= 5", beyond=">= 10")
        for name, reason in missing.items()
    ]


def with_those_that_run(arms: Arms, rounds: int, missing: dict[str, str]) -> Rounds | None:
    """Measure; a peer whose program fails is left out from the beginning, and goes into `missing` with the reason."""
    while arms.environments:
        try:
            # A study's first trial is the warm-up.
            return interleaved(arms.arms(), rounds, warm_up=False, once=True, limit_s=SLOW_LIMIT_S)
        except PeerFailed as failed:
            print(failed, file=sys.stderr)
            del arms.environments[failed.name]
            missing[failed.name] = f"its program fails: {failed.reason}"
    return None


def _judged(name: str, scale: Scale, rounds: Rounds, arms: Arms) -> Result:
    def median(arm: str, detail: str) -> float:
        return rounds.median(arm, lambda reading: reading.details[detail])

    size, both = arms.size, (name, "ours")
    rest = rounds.ratio(name, "ours", without_export).value
    details = {
        **{f"{arm}_{detail}": median(arm, detail) for arm in both for detail in ("trial_s", "overhead_s")},
        **{f"{arm}_study_s": rounds.median(arm) for arm in both},
        "bare_loop_s": median("ours", "bare_s"),
        f"{name}_export_s": median(name, "export_s"),
        "ratio_without_export": rest,
        "largest_difference": max(median(arm, "difference") for arm in both),
        "setup_s": arms.environments[name].setup_s,
        "left_over_processes_ended": arms.left_over,
    }
    notes = (
        f"{size.train} + {size.val} windows, {EPOCHS} epochs, width {WIDTH}; one worker; "
        f"studies of {size.peer_trials} and {size.our_trials} trials, the first of each left out",
        f"overheads {details[f'{name}_overhead_s'] * 1000:.0f} and {details['ours_overhead_s'] * 1000:.0f} ms, "
        f"{details[f'{name}_export_s'] * 1000:.0f} ms of the first is torch's ONNX export; without it {rest:.1f}x",
        f"final accuracies agree within {details['largest_difference']:.3f}",
    )
    return judged(
        f"B4 {name}", WHAT[name], rounds.ratio(name, "ours", overhead), unit="x", target=">= 5", beyond=">= 10",
        notes=(*scale.notes, *rounds.notes, *notes), details=details,
    )  # fmt: skip
