"""The files of a study's runs: from the spool while they wait there, else from where MLflow keeps them.

A local record is read as it lies, without a server; a team's server (MLFLOW_TRACKING_URI) is asked.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.environment import quiet_environment
from harness.core.files import sha256_of
from harness.study.ensembles import KIND
from harness.study.storage.record import Record
from harness.study.storage.trial_spool import TrialSpool
from harness.study.study import Study, StudyError
from harness.tracking.artifacts import ArtifactError, fetch
from harness.tracking.experiment import Tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PREDICTIONS = "predictions.npz"
_ACTIVE = 1  # mlflow.entities.ViewType.ACTIVE_ONLY
_SCHEME = "mlflow-artifacts:"


@dataclass(frozen=True)
class RunFiles:
    """The runs of a study's trials and ensembles, and how to reach a file of one.

    runs : of the trials, by number; one that MLflow never heard of is in the spool only
    ensembles : by their names
    fetch : run, path of the artifact, sha256 -> the file, checked; it lies where it may be read until the block ends
    """

    record: Record
    study: str
    runs: dict[int, Run]
    ensembles: dict[str, Run]
    fetch: Callable[[Run, str, str], Path]

    def file(self, number: int, name: str, sha256: str) -> Path:
        """Where an artifact of a trial lies: in its spool while it waits there, else as MLflow keeps it.

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

    def results(self, prefix: str) -> dict[str, dict[str, Any]]:
        """Tags and metrics whose names begin with `prefix`, of each run by its label: trial 3, ensemble 3+5."""
        labelled = {f"trial {number}": run for number, run in self.runs.items()}
        labelled |= {f"ensemble {name}": run for name, run in self.ensembles.items()}
        found = {}
        for label, run in labelled.items():
            named = {**run.data.tags, **run.data.metrics}
            found[label] = {name: value for name, value in sorted(named.items()) if name.startswith(prefix)}
        return found


@contextmanager
def open_run_files(record: Record, study: Study, client: MlflowClient | None = None) -> Iterator[RunFiles]:
    """The runs of a study, in this block; `client` where one is connected already. Writes nothing into the record."""
    team = os.environ.get("MLFLOW_TRACKING_URI")
    if client is None and team:
        from harness.tracking.experiment import connect

        client = connect(team)
    with tempfile.TemporaryDirectory(prefix="harness-runs-") as scratch:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # MLflow's own use of SQLAlchemy
            source = client if client is not None else _store(record, Path(scratch))
            runs = {
                int(run.data.tags["harness.trial"]): run for run in _runs(source, study.identity, "trial")
            }
            made = {
                run.data.tags.get("harness.ensemble", ""): run for run in _runs(source, study.identity, KIND)
            }

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
            yield RunFiles(
                record, study.name, dict(sorted(runs.items())), dict(sorted(made.items())), fetched
            )
        finally:
            if client is None:
                source.engine.dispose()


def checked(path: Path, what: str, sha256: str) -> Path:
    """The path, once its content has the sha256 that the worker noted; ArtifactError otherwise, of `what`."""
    if (found := sha256_of(path)) != sha256:
        raise ArtifactError(f"{what} was altered: sha256 {found[:16]}, recorded {sha256[:16]}")
    return path


def _store(record: Record, scratch: Path) -> Any:
    """MLflow's own reader of a local record's database; one that may not be written is copied into `scratch`."""
    import logging

    record.check_schema()
    for name, value in quiet_environment().items():
        if name.startswith("MLFLOW_") or name in ("DO_NOT_TRACK", "GIT_PYTHON_REFRESH"):
            os.environ.setdefault(name, value)
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    database = record.database
    if record.unwritable() is not None:  # SQLite would make a WAL beside it, even to read
        for part in record.root.glob(f"{database.name}*"):
            shutil.copy(part, scratch / part.name)
        database = scratch / database.name
    return SqlAlchemyStore(f"sqlite:///{database}", _SCHEME + "/")


def _runs(source: Any, identity: str, kind: str) -> list[Run]:
    """Runs of a kind; `source` is MLflow's client or its store, which are asked alike."""
    experiments = source.search_experiments(filter_string=f"tags.`harness.identity` = '{identity}'")
    ids = [one.experiment_id for one in experiments]
    runs: list[Run] = []
    token = None
    while ids:
        query = f"tags.`harness.kind` = '{kind}'"
        page = source.search_runs(ids, query, _ACTIVE, 1_000, None, token)
        runs += page
        token = page.token
        if not token:
            break
    return runs


def _local(record: Record, run: Run, name: str) -> Path | None:
    """The file in the record's own folder; None where the run keeps its artifacts elsewhere."""
    uri = str(run.info.artifact_uri)
    if not uri.startswith(f"{_SCHEME}/"):
        return None
    folder = (record.artifacts / uri.removeprefix(_SCHEME).lstrip("/")).resolve()
    path = folder / name
    inside = path.resolve().is_relative_to(record.artifacts.resolve())
    return path if inside and path.is_file() else None


def trial_of_run(tracking: Tracking, run_id: str) -> str:
    """Number of the trial whose MLflow run has this id; StudyError where the study has no such run."""
    number = tracking.trial_of(run_id)
    if number is None:
        raise StudyError(
            f"study {tracking.study} has no trial with the run id {run_id!r}; give its number instead"
        )
    return number
