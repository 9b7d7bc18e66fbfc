"""B3: eight trials the notebooks' way, one process after the other, against the same eight by `harness sweep`.

The eight are two front ends times four rates, so a pair of trials, one of each front end, is a quarter of the eight: a
notebook trial shares nothing with the next and costs the same whatever its rate. An arm's run of the notebooks' is
such a pair, its seconds times four, another rate in each round. The harness always runs the eight, from a cold start:
no server, no record, no worker, no windows, no features. Both begin from the corpus on disk; the notebook is told which
samples of which files its windows are, and decodes them in its loop. Both score the validation windows after each epoch;
the training windows that the harness scores beside are as few as may be, because a notebook scores none.

The row is of a network an eighth as wide as the notebooks'. They trained on a GPU, which waited for features; on a core
the whole network is what costs, whoever trains it, and features are as small a part as nobody had them. What comes out
at full width is measured once, small, and told beside it. So is a notebook whose DataLoader featurises in a process for
each core, which is the best that it can do: theirs had none, their dataset being an `__iter__`.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core.seeds import derived_seed
from models.networks.config import CnnConfig
from tests.benchmarks.demo_windows import cache_with_speech, demo_data, prepared_demo, rows_on_disk
from tests.benchmarks.programs import ROOT, harness_sweep, run_program
from tests.benchmarks.records import TRACKING, empty_record
from tests.benchmarks.result import Result, judged
from tests.benchmarks.rounds import Reading, cpu, interleaved
from tests.benchmarks.scale import Scale
from tests.benchmarks.stored_runs import (
    StoredRun,
    new_experiment,
    new_store,
    require_agreement,
    require_complete,
    store_uri,
    stored_runs,
)

WHAT = "wall of 8 trials, a notebook process each / one harness sweep from cold"
FRONT_ENDS = ("mfcc", "log_mel")
RATES = (0.001, 0.002, 0.004, 0.008)
WIDTH, FULL_WIDTH = 0.125, 1.0  # why the first: see above
LOADERS = 2  # processes that featurise for a notebook's training; the best that it can do on two cores
NAME = "notebook"
SUBSET = "clean"
PROGRAM = ROOT / "tests" / "benchmarks" / "baselines" / "notebook_way.py"
LIMIT_S = 900.0
LIMIT_ROUNDS_S = 100.0  # a round takes two minutes: three where they are quiet
# Features differ by 1e-6, a hundred steps multiply that: the arms end as two seeds do. Three standard errors of an
# accuracy on 240 windows are 0.097, and of the mean over six or more configurations 0.04.
TOLERANCE = 0.097
MEAN_TOLERANCE = 0.04


@dataclass(frozen=True)
class Size:
    """How much is trained: windows of a trial, its epochs, its network, and the rates, each with every front end."""

    train: int
    val: int
    epochs: int
    rates: tuple[float, ...]
    width: float = WIDTH
    front_ends: tuple[str, ...] = FRONT_ENDS
    cold: bool = True  # the harness makes its record, windows and features


FULL = Size(480, 240, 10, RATES)
QUICK = Size(64, 48, 1, RATES[:1], front_ends=FRONT_ENDS[:1], cold=False)
WIDE = Size(240, 120, 1, (0.0003,), FULL_WIDTH, FRONT_ENDS[:1])


@dataclass
class Arms:
    """Both ways of running the same trials, in one folder."""

    size: Size
    place: Path
    curves: dict[str, dict[tuple[str, float], float]] = field(
        default_factory=lambda: {"notebook": {}, "harness": {}}
    )

    def __post_init__(self) -> None:
        data = demo_data(self.size.train, self.size.val)
        prepared, self.cache = prepared_demo(data, self.place)
        self.place = self.place / f"width-{self.size.width:g}"
        self.place.mkdir()
        self.sweep = self.place / "sweep.yaml"
        self.sweep.write_text(json.dumps(sweep_of(self.size, data)), encoding="utf-8")  # JSON is YAML
        self.rows = {
            "train": rows_on_disk(prepared.train.manifest, self.cache),
            "val": rows_on_disk(prepared.val.manifest, self.cache),
        }
        self.windows = {"train": len(prepared.train.manifest), "val": len(prepared.val.manifest)}
        self.store = new_store(self.place)
        self.turns = itertools.cycle(self.size.rates)
        self.runs = itertools.count()

    def notebook(self, loaders: int = 0, front_ends: Sequence[str] = ()) -> Reading:
        """One trial of each front end, or of these, at the next rate; the seconds of all the trials."""
        front_ends = front_ends or self.size.front_ends
        folder = self._folder("notebook")
        experiment = new_experiment(self.store, folder)
        rate = next(self.turns)
        jobs = []
        for front_end in front_ends:
            (folder / front_end).mkdir()
            job = folder / front_end / "job.json"
            job.write_text(json.dumps(self._job(front_end, rate, experiment, loaders)), encoding="utf-8")
            jobs.append(job)

        ran = [run_program([sys.executable, "-P", PROGRAM, job], job.parent, LIMIT_S).reading for job in jobs]
        self._check("notebook", stored_runs(self.store, experiment, folder), len(jobs))
        wall_s, cpu_s = sum(one.wall_s for one in ran), sum(one.cpu_s for one in ran)
        times = len(self.size.rates) * len(self.size.front_ends) / len(jobs)
        return Reading(wall_s * times, cpu_s * times, {"trial_s": wall_s / len(jobs)})

    def harness(self) -> Reading:
        """All the trials, from a cold start."""
        folder = self._folder("harness")
        record, cache, more = folder / "mlruns", self.cache, ["--workers", "1"]
        if self.size.cold:
            cache, more = cache_with_speech(folder, (SUBSET,)), []
        else:
            empty_record(record)
        words = harness_sweep(self.sweep, record, cache, *more)
        # Its own server in the quick form too, where the others share one.
        reading = run_program(words, folder, LIMIT_S, {TRACKING: ""}).reading
        trials = len(self.size.front_ends) * len(self.size.rates)
        found = stored_runs(store_uri(record / "mlflow.db"), NAME, record / "artifacts")
        self._check("harness", found, trials)
        return reading

    @property
    def described(self) -> str:
        """What a run of an arm trains."""
        windows, size = self.windows, self.size
        return (
            f"{windows['train']} + {windows['val']} windows, {size.epochs} epochs, "
            f"{len(size.front_ends)} front ends x {len(size.rates)} rates"
        )

    def _job(self, front_end: str, rate: float, experiment: str, loaders: int) -> dict[str, Any]:
        cnn = CnnConfig(width=self.size.width)
        recipe = {"learning_rate": rate, "epochs": self.size.epochs, "seed": derived_seed("training", 0, 0)}
        return {
            **self.rows, "front_end": front_end, "channels": cnn.channels(), "dropout": cnn.dropout,
            "recipe": recipe, "loaders": loaders, "tracking_uri": self.store, "experiment": experiment,
        }  # fmt: skip

    def _folder(self, arm: str) -> Path:
        folder = self.place / f"{arm}-{next(self.runs)}"
        folder.mkdir()
        return folder

    def _check(self, arm: str, runs: list[StoredRun], trials: int) -> None:
        for run in require_complete(runs, trials, self.size.epochs):
            self.curves[arm][run.front_end, run.learning_rate] = run.curve[-1]

    def agreement(self) -> dict[str, float]:
        """How far the final accuracies of equal configurations lie apart, checked."""
        pairs = {
            key: (self.curves["notebook"][key], score)
            for key, score in self.curves["harness"].items()
            if key in self.curves["notebook"]
        }
        largest = require_agreement(pairs.values(), TOLERANCE, "B3")
        means = [sum(side) / len(pairs) for side in zip(*pairs.values(), strict=True)]
        require_agreement([(means[0], means[1])], MEAN_TOLERANCE, "B3, mean over the configurations")
        return {
            "configurations_compared": len(pairs), "largest_difference": largest,
            "mean_accuracy_notebook": means[0], "mean_accuracy_harness": means[1],
        }  # fmt: skip


def sweep_of(size: Size, data: Mapping[str, Any]) -> dict[str, Any]:
    """The sweep of the harness's arm."""
    return {
        "name": NAME,
        "data": data,
        "parameters": {
            "feature": list(size.front_ends),
            "learning_rate": list(size.rates),
            "width": size.width,
            "epochs": size.epochs,
            "train_score_windows": 2,
        },
        "sampler": "grid",
        "pruner": "none",
        "budget": {"trials": len(size.front_ends) * len(size.rates)},
    }


def run(scale: Scale, place: Path) -> list[Result]:
    """Measure B3."""
    began = time.perf_counter()
    arms = Arms(scale.of(FULL, QUICK), place)
    prepared_s = time.perf_counter() - began
    # The other arms come first: after them no program has to be read from the disk.
    wide = None if scale.quick else at_full_width(place)
    loaded_s = None if scale.quick else arms.notebook(LOADERS, FRONT_ENDS[:1]).wall_s
    both: dict[str, Callable[[], Reading]] = {"notebook": arms.notebook, "harness": arms.harness}
    # Cold starts are what is measured.
    rounds = interleaved(both, scale.slow_rounds, warm_up=False, once=True, limit_s=LIMIT_ROUNDS_S)
    agreed = arms.agreement()
    details = {
        "notebook_trial_s": rounds.median("notebook", lambda reading: reading.details["trial_s"]),
        "notebook_all_s": rounds.median("notebook"),
        "harness_all_s": rounds.median("harness"),
        "cpu_ratio": rounds.ratio("notebook", "harness", cpu).value,
        "notebook_cpu_s": rounds.median("notebook", cpu), "harness_cpu_s": rounds.median("harness", cpu),
        "beforehand_s": prepared_s,
        **{f"{split}_windows": count for split, count in arms.windows.items()},
        "epochs": arms.size.epochs, "width": arms.size.width, "loaders": LOADERS, **agreed,
        "at_full_width": wide, "with_loaders_all_s": loaded_s,
    }  # fmt: skip
    notes = [
        arms.described,
        "an arm's run of the notebooks' is one trial of each front end, times the number of rates",
        f"width {arms.size.width:g}, not the notebooks' {FULL_WIDTH:g}: on a core the full network is what costs, for either",
        f"final accuracies agree within {agreed['largest_difference']:.3f}",
        f"by CPU {rounds.ratio('notebook', 'harness', cpu).value:.1f}x: the notebook uses one core, the harness all",
    ]
    if wide is not None and loaded_s is not None:
        notes += [
            f"one run of each, no interval: {wide['ratio']:.1f}x at full width ({wide['described']}), and "
            f"{loaded_s / rounds.median('harness'):.1f}x a notebook that featurises in {LOADERS} processes ({FRONT_ENDS[0]} alone)"
        ]
    return [
        judged(
            "B3", WHAT, rounds.ratio("notebook", "harness"), unit="x", target=">= 10", beyond=">= 20",
            notes=(*scale.notes, *rounds.notes, *notes), details=details,
        )
    ]  # fmt: skip


def at_full_width(place: Path) -> dict[str, Any]:
    """One run of each arm with the network as wide as the notebooks'."""
    arms = Arms(WIDE, place)
    notebook, harness = arms.notebook(), arms.harness()
    return {
        "ratio": notebook.wall_s / harness.wall_s, "cpu_ratio": notebook.cpu_s / harness.cpu_s,
        "notebook_all_s": notebook.wall_s, "harness_all_s": harness.wall_s,
        "described": arms.described, **arms.agreement(),
    }  # fmt: skip
