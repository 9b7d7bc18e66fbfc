"""What an arm left in its MLflow store, read back the same way for all: who drops work has no time to show."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import Run

from harness.study.storage.record import Record
from tests.benchmarks.records import empty_record, store_of

ACCURACY = "val/balanced_accuracy"


class ArmsDifferError(AssertionError):
    """An arm did not do the work of the others: their times do not compare."""


@dataclass(frozen=True)
class StoredRun:
    """One finished trial. ended_s : seconds since 1970; curve : validation balanced accuracy of each epoch."""

    run_id: str
    learning_rate: float
    front_end: str
    ended_s: float
    curve: tuple[float, ...]
    export_s: float
    files: tuple[str, ...]


def store_uri(database: Path) -> str:
    """MLflow's address of an SQLite file."""
    return f"sqlite:///{database}"


def new_store(folder: Path) -> str:
    """A new SQLite store with its tables, as MLflow makes one, before the clock runs; its address."""
    database = empty_record(folder / "store").database
    with closing(sqlite3.connect(database)) as store:
        store.execute("PRAGMA journal_mode=DELETE")  # the rest of a record's is MLflow's own
    return store_uri(database)


def new_experiment(uri: str, folder: Path) -> str:
    """An experiment called as a folder, which takes its artifacts; its name."""
    MlflowClient(uri).create_experiment(folder.name, artifact_location=(folder / "artifacts").as_uri())
    return folder.name


def stored_runs(uri: str, experiment: str, artifacts: Path) -> list[StoredRun]:
    """The trials of an experiment in the order in which they ended.

    artifacts : folder that `mlflow-artifacts:/` stands for
    """
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        raise ArmsDifferError(f"{uri} has no experiment {experiment!r}")
    runs = client.search_runs([found.experiment_id], max_results=1000)
    trials = [run for run in runs if run.data.tags.get("harness.kind", "trial") == "trial"]
    return sorted((_stored(client, run, artifacts) for run in trials), key=lambda run: run.ended_s)


def runs_of(record: Record, study: str) -> list[StoredRun]:
    """The same of a study of ours."""
    store = store_of(record)
    return stored_runs(store_uri(store.database), study, store.artifacts)


def _stored(client: MlflowClient, run: Run, artifacts: Path) -> StoredRun:
    if run.info.status != "FINISHED":
        raise ArmsDifferError(f"run {run.info.run_name} is {run.info.status}, not finished")
    location = urlsplit(run.info.artifact_uri)
    folder = Path(location.path) if location.scheme in ("", "file") else artifacts / location.path.lstrip("/")
    files = tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
    params = run.data.params
    history = sorted(client.get_metric_history(run.info.run_id, ACCURACY), key=lambda point: point.step)
    return StoredRun(
        run_id=run.info.run_id,
        learning_rate=float(params.get("learning_rate") or params["training.learning_rate"]),
        front_end=params.get("feature", ""),
        ended_s=run.info.end_time / 1000,
        curve=tuple(point.value for point in history),
        export_s=run.data.metrics.get("export_s", float("nan")),
        files=files,
    )


def require_complete(runs: Iterable[StoredRun], trials: int, epochs: int) -> list[StoredRun]:
    """The runs, if there are so many and each has every epoch, an ONNX file and a histogram of its labels.

    Raises
    ------
    ArmsDifferError
        What is missing, and of which run.
    """
    runs = list(runs)
    if len(runs) != trials:
        raise ArmsDifferError(f"{len(runs)} runs were stored, not {trials}")
    for run in runs:
        if len(run.curve) != epochs:
            raise ArmsDifferError(f"run {run.run_id} has {len(run.curve)} epochs of {ACCURACY}, not {epochs}")
        if not any(name.endswith(".onnx") for name in run.files):
            raise ArmsDifferError(f"run {run.run_id} has no ONNX file among {run.files}")
        if not any("labels" in name for name in run.files):
            raise ArmsDifferError(f"run {run.run_id} has no histogram of its labels among {run.files}")
    return runs


def require_agreement(pairs: Iterable[tuple[float, float]], tolerance: float, what: str) -> float:
    """The largest difference of accuracies that should be one, if it keeps the tolerance."""
    largest = max(abs(one - other) for one, other in pairs)
    if not largest <= tolerance:
        raise ArmsDifferError(f"{what}: final accuracies differ by {largest:.3f}, more than {tolerance:g}")
    return largest
