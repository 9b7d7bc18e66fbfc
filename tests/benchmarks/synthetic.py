"""A synthetic objective behind the Executor protocol: the real coordinator asks, hears, prunes and tells; nothing trains.

Learning curves are functions of the configuration and of sha256, so that a study repeats itself exactly.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from harness.config.search_space import SearchSpace
from harness.config.sweep import Sweep
from harness.core.provenance import provenance
from harness.core.settings import Settings
from harness.execution.coordinator import Coordinator
from harness.execution.data_gate import DataInspection, audit_data_configs
from harness.execution.executors.protocol import EpochDone, Event, Executor, TrialDone
from harness.execution.launch import study_coordinator
from harness.execution.runs.jobs import Jobs
from harness.execution.runs.trial_runs import TrialRuns
from harness.execution.view import View
from harness.study.storage.record import Record
from harness.study.storage.trial_spool import TrialSpool
from harness.study.study import Study
from harness.tracking.writer import Writer
from harness.training.job import Job
from tests.benchmarks.demo_windows import cache_with_speech

SWEEP: dict[str, Any] = {
    "name": "scale",
    "data": {
        "corpus": "demo", "subset": "clean", "task": "pseudo", "variant": "seen",
        "train_windows": 240, "val_windows": 96, "test_windows": 96,
    },
    "parameters": {
        "feature": ["mfcc", "mfcc_delta", "log_mel"],
        "learning_rate": {"float": [0.0001, 0.1], "log": True},
        "weight_decay": {"float": [1e-6, 0.01], "log": True},
        "width": 0.125,
        "epochs": 5,
    },
    "sampler": "tpe",
    "pruner": "median",
}  # fmt: skip


def sweep_of(trials: int, **changes: Any) -> Sweep:
    """The synthetic study's sweep, with this budget."""
    return Sweep.model_validate({**SWEEP, "budget": {"trials": trials}, **changes})


def uniform(*parts: object) -> float:
    """A number in [0, 1) that these parts alone decide."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def accuracy(config: dict[str, Any], epoch: int) -> float:
    """What a trial of this configuration shows after an epoch: a hump in log10 of the rate, rising, with noise."""
    rate = float(config["training"]["learning_rate"])
    text = json.dumps(config, sort_keys=True)
    best = 0.9 - 0.08 * (math.log10(rate) + 2.5) ** 2 + 0.03 * uniform(text)
    return max(0.5, best - 0.25 * math.exp(-(epoch + 1) / 2) + 0.02 * (uniform(text, epoch) - 0.5))


class SyntheticExecutor:
    """One slot that answers at once; everything a coordinator can tell of it is as with real workers."""

    slots = 1

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._job: Job | None = None
        self._curve: list[float] = []

    @property
    def idle(self) -> int:
        """One, unless a trial is being run."""
        return int(self._job is None)

    def submit(self, *jobs: Job) -> None:
        """Begin a trial: its first epoch is done already."""
        (self._job,), self._curve = jobs, []
        self._epoch()

    def poll(self, timeout_s: float) -> Iterator[Event]:
        """What happened; never waits."""
        del timeout_s
        while self._events:
            yield self._events.popleft()

    def reply(self, number: int, *, stop: bool) -> None:
        """Go on with the next epoch, or end."""
        assert self._job is not None
        assert self._job.number == number
        last = len(self._curve) == int(self._job.config["training"]["epochs"])
        if stop or last:  # who is stopped after the last epoch has done all
            self._events.append(TrialDone(number, outcome_of(self._curve, stop=stop and not last)))
            self._job = None
        else:
            self._epoch()

    def interrupt(self) -> None:
        """Nothing runs between two calls."""

    def close(self) -> None:
        """There is no process to end."""

    def _epoch(self) -> None:
        assert self._job is not None
        self._curve.append(accuracy(self._job.config, len(self._curve)))
        smoothed = sorted(self._curve[-3:])[(len(self._curve[-3:]) - 1) // 2]
        self._events.append(EpochDone(self._job.number, len(self._curve) - 1, {"smoothed": smoothed}))


def outcome_of(curve: list[float], *, stop: bool) -> dict[str, Any]:
    """What a worker says at the end, every field and digest of a real one's size (240 and 96 windows)."""
    score, epochs = max(curve), len(curve)
    names = (
        "val/balanced_accuracy", "val/accuracy", "val/loss", "val/auc", "val/eer", "val/f1", "val/ece",
        "val/predicted_positive", "train/balanced_accuracy", "train/loss", "gap", "learning_rate", "score", "smoothed",
    )  # fmt: skip
    digest = hashlib.sha256(repr(curve).encode()).hexdigest()
    return {
        "state": "pruned" if stop else "complete",
        "score": score,
        "best_epoch": curve.index(score),
        "epochs": epochs,
        "at_best": {name: score - 0.001 * at for at, name in enumerate(names)},
        "interval": {
            "low": score - 0.061, "high": score + 0.052, "windows": 96, "clusters": 12, "icc": 0.031, "n_eff": 71.3,
        },
        "by_subset": {"clean": {"balanced_accuracy": score, "windows": 96}},
        "label_map": digest,
        "lag1": 0.31,
        "val_accuracy": curve,
        "curves": {"train": [value + 0.02 for value in curve], "val": curve},
        "device": "cpu",
        "windows_per_s": 4321.0,
        "promotable": "no: a synthetic objective",
        "sha256": {name: digest for name in ("predictions.npz", "model/model.onnx", "model/weights.pt")},
        "notes": [],
    }  # fmt: skip


class SpoolOnly:
    """In place of the thread that feeds MLflow: a told trial's spool goes, as when MLflow holds it."""

    is_backlogged = False

    def notify(self, spool: TrialSpool, *, begun: bool = False) -> None:
        """Remove what is complete."""
        if (spool.folder / "verdict.json").is_file():
            spool.remove()

    def status_message(self) -> None:
        """Nothing ever goes wrong here."""

    unreachable_since: float | None = None
    problem: str | None = None
    reason: str | None = None


def coordinate(
    study: Study, record: Record, inspections: list[DataInspection], cache: Path, writer: Writer | None = None
) -> tuple[Coordinator, TrialRuns]:
    """The product's coordinator over the synthetic executor."""
    prepared = {one.prepared.config.digest(): one.prepared for one in inspections}
    executor = cast(Executor, SyntheticExecutor())
    told = writer or cast(Writer, SpoolOnly())
    jobs = Jobs(study, record, prepared, provenance("cpu"), cache)
    return study_coordinator(jobs, executor, told, View())


def prepared_for(
    sweep: Sweep, place: Path, say: Callable[[str], None] = lambda text: None
) -> list[DataInspection]:
    """The demo's windows for a sweep, through the gate."""
    cache = cache_with_speech(place, ("clean",))
    return audit_data_configs(SearchSpace(sweep), Settings(record=place / "mlruns", cache=cache), say)
