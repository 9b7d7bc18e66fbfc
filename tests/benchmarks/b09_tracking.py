"""B9: the same run logged the fluent way, value by value / through the harness's spool and writer.

Both write the same rows (parameters, tags, a value per metric and epoch) to one MLflow server, and both are read back
and compared. Ours is what a worker and the coordinator do: each epoch made durable in the spool, the writer poked, the
verdict, then a wait until MLflow holds all of it. Nothing trains: epochs come as fast as they can be logged.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from harness.study.storage.record import Record
from harness.study.storage.trial_spool import TrialSpool
from harness.tracking.experiment import Tracking, connect
from harness.tracking.server.server import TrackingServer
from harness.tracking.writer import Writer
from tests.benchmarks.baselines.naive_mlflow import log_by_epoch, log_by_value
from tests.benchmarks.records import empty_record
from tests.benchmarks.result import Result, judged
from tests.benchmarks.rounds import Reading, Rounds, cpu, interleaved, measured
from tests.benchmarks.scale import Scale
from tests.benchmarks.transactions import counted

SPLIT_METRICS = ("loss", "accuracy", "balanced_accuracy", "auc", "recall_0", "recall_1", "predicted_positive")
OWN_METRICS = ("gap", "learning_rate", "windows_per_s", "train/running_loss", "score", "smoothed")
STUDY = "tracking"
STORED_S = 60.0


@dataclass(frozen=True)
class Rows:
    """What a run consists of: parameters and tags by name, and each epoch's metrics."""

    params: Mapping[str, str]
    tags: Mapping[str, str]
    epochs: tuple[Mapping[str, float], ...]

    @property
    def points(self) -> int:
        """Values of metrics."""
        return sum(map(len, self.epochs))


def rows_of(epochs: int) -> Rows:
    """A run as a trial leaves it: 30 parameters, 12 tags, 20 metrics an epoch."""
    names = [f"{split}/{name}" for split in ("train", "val") for name in SPLIT_METRICS] + list(OWN_METRICS)
    return Rows(
        {f"training.parameter_{at:02d}": str(at / 7) for at in range(30)},
        {f"harness.tag_{at:02d}": f"value {at}" for at in range(12)},
        tuple({name: (at + 1) / (epoch + 2) for at, name in enumerate(names)} for epoch in range(epochs)),
    )


class Store:
    """A record's MLflow server, and a study's tracking on it."""

    def __init__(self, record: Record, server: TrackingServer) -> None:
        self.record, self.server, self.runs = record, server, 0
        self.client = connect(server.uri)
        self.tracking = Tracking(self.client, STUDY)
        self.by_arm: dict[str, str] = {}  # the last run of each

    def by_writer(self, rows: Rows, *, live: bool = False) -> None:
        """Log a run through spool and writer; `live`: each epoch is stored before the next one ends."""
        self.runs += 1
        spool = TrialSpool(self.record.spool / STUDY / f"{self.runs:05d}")
        spool.folder.mkdir(parents=True)
        writer = Writer(self.server, lambda uri: self.tracking)
        header = {"number": self.runs, "run_name": f"{self.runs:03d}", "time_ms": int(time.time() * 1000)}
        spool.write("trial", {**header, "tags": dict(rows.tags), "params": dict(rows.params), "datasets": []})
        writer.notify(spool)
        for epoch, metrics in enumerate(rows.epochs):
            spool.append_epoch(epoch, dict(metrics))
            writer.notify(spool)
            if live:
                writer.drain(STORED_S)
        verdict = {"status": "FINISHED", "tags": {}, "metrics": {}, "time_ms": int(time.time() * 1000)}
        spool.write("verdict", verdict)
        writer.notify(spool)
        if left := writer.drain(STORED_S):
            raise RuntimeError(f"MLflow did not take {left}: {writer.reason}")
        writer.stop(STORED_S)
        self.by_arm["ours"] = str(self.tracking.find(self.tracking.trial_key(self.runs)))

    def fluently(self, arm: str, rows: Rows) -> None:
        """Log a run by one of the fluent baselines."""
        log = log_by_value if arm == "naive" else log_by_epoch
        self.by_arm[arm] = log(self.server.uri, rows.params, rows.tags, rows.epochs)

    def read(self, arm: str, rows: Rows) -> Rows:
        """The last run of an arm as the store has it."""
        run = self.client.get_run(self.by_arm[arm])
        epochs: list[dict[str, float]] = [{} for _ in rows.epochs]
        for name in run.data.metrics:
            for point in self.client.get_metric_history(run.info.run_id, name):
                epochs[point.step][name] = point.value
        tags = {name: value for name, value in run.data.tags.items() if name in rows.tags}
        if run.info.status != "FINISHED":
            raise RuntimeError(f"{arm}'s run is {run.info.status}")
        return Rows(dict(run.data.params), tags, tuple(epochs))


def run(scale: Scale, place: Path) -> list[Result]:
    """Measure the arms, read back what they wrote, count transactions."""
    with mock.patch.dict(os.environ):  # where the fluent API keeps its address, for every later process
        return _run(scale, empty_record(place / "mlruns"))


def _run(scale: Scale, record: Record) -> list[Result]:
    rows, one = rows_of(scale.of(30, 2)), rows_of(1)
    with TrackingServer(record) as server:
        store = Store(record, server)
        for warm_up in (
            partial(store.fluently, "naive"),
            partial(store.fluently, "by epoch"),
            store.by_writer,
        ):
            warm_up(one)  # imports, connections
        arms = {
            "naive": lambda: arm(lambda: store.fluently("naive", rows)),
            "by epoch": lambda: arm(lambda: store.fluently("by epoch", rows)),
            "ours": lambda: arm(lambda: store.by_writer(rows)),
        }
        rounds = interleaved(arms, scale.rounds)
        require_agreement(store, rows)
    counts = transactions(record, rows)
    return [judged_tracking(scale, rounds, rows, counts)]


def arm(log: Any) -> Reading:
    """Log one run on the clock."""
    return measured(log)


def require_agreement(store: Store, rows: Rows) -> None:
    """Read every arm's last run back.

    Raises
    ------
    RuntimeError
        A row is missing, doubled or different.
    """
    for name in store.by_arm:
        if (found := store.read(name, rows)) != rows:
            raise RuntimeError(f"{name} left other rows than were logged: {found}")


def transactions(record: Record, rows: Rows) -> dict[str, int]:
    """Writing transactions of a run, counted in the store itself, without a server between."""
    direct = f"sqlite:///{record.database}"
    store = Store(record, _Direct(direct))
    store.runs = 10_000  # numbers that no run of the server's has
    found = {
        "naive": counted(lambda: store.fluently("naive", rows)),
        "by epoch": counted(lambda: store.fluently("by epoch", rows)),
        "ours": counted(lambda: store.by_writer(rows)),
        "ours, live": counted(lambda: store.by_writer(rows, live=True)),
    }
    require_agreement(store, rows)
    return found


class _Direct(TrackingServer):
    """In the place of a server: the database itself, opened in this process."""

    def __init__(self, uri: str) -> None:
        self._direct, self.team_uri = uri, uri

    @property
    def uri(self) -> str:
        return self._direct


def judged_tracking(scale: Scale, rounds: Rounds, rows: Rows, counts: Mapping[str, int]) -> Result:
    """The row."""
    by_epoch = rounds.ratio("by epoch", "ours")
    notes = (
        *scale.notes, *rounds.notes,
        f"{rows.points} values in {len(rows.epochs)} epochs, read back equal",
        f"writing transactions: {counts['naive']} naive, {counts['ours']} ours "
        f"({counts['ours, live']} where every epoch is stored before the next)",
        f"against log_metrics once an epoch, log_params and set_tags: {by_epoch.value:.1f}x",
        f"by CPU, the server included: {rounds.ratio('naive', 'ours', cpu).value:.1f}x",
    )  # fmt: skip
    details = {
        **{f"{name}_ms": 1000 * rounds.median(name) for name in ("naive", "by epoch", "ours")},
        "by_epoch_ratio": [by_epoch.value, by_epoch.low, by_epoch.high],
        "cpu_ratio": rounds.ratio("naive", "ours", cpu).value, "transactions": dict(counts),
        "params": len(rows.params), "tags": len(rows.tags), "points": rows.points,
    }  # fmt: skip
    return judged(
        "B9", "naive fluent run / ours, same rows read back", rounds.ratio("naive", "ours"),
        unit="x", target=">= 15", beyond=">= 25", notes=notes, details=details,
    )  # fmt: skip
