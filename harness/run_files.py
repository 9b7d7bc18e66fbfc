"""The files of a study's runs: from the spool while they wait there, else from where MLflow keeps them.

A local record is read as it lies, without a server; a team's server (MLFLOW_TRACKING_URI) is asked.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.artifacts import ArtifactError, fetch
from harness.record import Record, quiet_environment
from harness.spool import TrialSpool, sha256_of
from harness.study import Study

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PREDICTIONS = "predictions.npz"
_ACTIVE = 1  # mlflow.entities.ViewType.ACTIVE_ONLY
_SCHEME = "mlflow-artifacts:"


@dataclass(frozen=True)
class RunFiles:
    """The runs of a study's trials, by number, and how to reach a file of one."""

    record: Record
    study: str
    runs: dict[int, Run]
    fetch: Callable[[Run, str, str], Path]

    def file(self, number: int, name: str, sha256: str) -> Path:
        """Where an artifact of a trial lies.

        Raises
        ------
        ArtifactError
            It is nowhere, or its sha256 is another one.
        """
        path = TrialSpool(self.record.spool / self.study / f"{number:05d}").artifacts / name
        if not path.is_file():
            if number not in self.runs:
                raise ArtifactError(f"MLflow has no run of trial {number}")
            return self.fetch(self.runs[number], name, sha256)
        return checked(path, f"{name} of trial {number}", sha256)

    def results(self, number: int, prefix: str) -> dict[str, Any]:
        """Tags and metrics of a trial's run whose names begin with `prefix`; empty where there is no run."""
        if number not in self.runs:
            return {}
        data = self.runs[number].data
        found = {**data.tags, **data.metrics}
        return {name: value for name, value in sorted(found.items()) if name.startswith(prefix)}


@contextmanager
def open_run_files(record: Record, study: Study, client: MlflowClient | None = None) -> Iterator[RunFiles]:
    """The runs of a study; `client` where one is connected already. Writes nothing into the record."""
    team = os.environ.get("MLFLOW_TRACKING_URI")
    if client is None and team:
        from harness.tracking import connect

        client = connect(team)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # MLflow's own use of SQLAlchemy
        source = client if client is not None else _store(record)
        runs = _trial_runs(source, study.identity)
    with tempfile.TemporaryDirectory(prefix="harness-runs-") as scratch:

        def fetched(run: Run, name: str, sha256: str) -> Path:
            local = None if team else _local(record, run, name)
            if local is not None:
                return checked(local, f"{name} of run {run.info.run_id}", sha256)
            if client is None:
                raise ArtifactError(f"{record.artifacts} does not hold {name} of run {run.info.run_id}")
            folder = Path(scratch) / str(run.info.run_id)
            folder.mkdir(exist_ok=True)
            return fetch(client, run.info.run_id, name, sha256, folder)

        try:
            yield RunFiles(record, study.name, runs, fetched)
        finally:
            if client is None:
                source.engine.dispose()


def checked(path: Path, what: str, sha256: str) -> Path:
    """The path, once its content is what the worker wrote; ArtifactError otherwise."""
    if (found := sha256_of(path)) != sha256:
        raise ArtifactError(f"{what} was altered: sha256 {found[:16]}, recorded {sha256[:16]}")
    return path


def _store(record: Record) -> Any:
    """MLflow's own reader of a local record's database."""
    import logging

    for name, value in quiet_environment().items():
        if name.startswith("MLFLOW_") or name in ("DO_NOT_TRACK", "GIT_PYTHON_REFRESH"):
            os.environ.setdefault(name, value)
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    return SqlAlchemyStore(f"sqlite:///{record.database}", _SCHEME + "/")


def _trial_runs(source: Any, identity: str) -> dict[int, Run]:
    """Runs by the number of their trial; `source` is MLflow's client or its store, which are asked alike."""
    experiments = source.search_experiments(filter_string=f"tags.`harness.identity` = '{identity}'")
    ids = [one.experiment_id for one in experiments]
    runs: dict[int, Run] = {}
    token = None
    while ids:
        query = "tags.`harness.kind` = 'trial'"
        page = source.search_runs(ids, query, _ACTIVE, 1_000, None, token)
        runs |= {int(run.data.tags["harness.trial"]): run for run in page}
        token = page.token
        if not token:
            break
    return dict(sorted(runs.items()))


def _local(record: Record, run: Run, name: str) -> Path | None:
    """The file in the record's own folder; None where the run keeps its artifacts elsewhere."""
    uri = str(run.info.artifact_uri)
    if not uri.startswith(f"{_SCHEME}/"):
        return None
    folder = (record.artifacts / uri.removeprefix(_SCHEME).lstrip("/")).resolve()
    path = folder / name
    inside = path.resolve().is_relative_to(record.artifacts.resolve())
    return path if inside and path.is_file() else None
