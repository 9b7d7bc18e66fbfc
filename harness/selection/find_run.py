"""The run that `harness evaluate` is asked of: found by its id or its place in a study, with its files' digests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.errors import InputError
from harness.selection.ensemble_members import ONNX
from harness.study.choose_trial import available_subjects
from harness.study.ensembles import ensemble_named
from harness.study.storage.record import Record
from harness.study.study import Study, load_study, study_names
from harness.tracking.artifacts import fetch
from harness.tracking.experiment import Tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# Tags of a run: the ensemble that it is, and the sha256 of each of its files.
ENSEMBLE = "harness.ensemble"
SHA256_TAG = "harness.sha256."


class EvaluationError(InputError):
    """A run that cannot be evaluated; the message says why, and what can."""


@dataclass(frozen=True)
class RecordedRun:
    """A run as MLflow has it, the sha256 of its files by name, and a folder into which they are fetched."""

    client: MlflowClient
    run: Run
    digests: dict[str, str]
    folder: Path

    @property
    def run_id(self) -> str:
        """What MLflow calls it."""
        return str(self.run.info.run_id)

    @property
    def tags(self) -> dict[str, str]:
        """Its tags; those of a study's runs begin with `harness.`."""
        return dict(self.run.data.tags)

    def fetch(self, name: str) -> Path:
        """Download a file, held against the digest taken when it was written; ArtifactError where it is another."""
        return fetch(self.client, self.run_id, name, self.digests[name], self.folder)

    def fetch_model(self) -> Path:
        """Download the ONNX file; EvaluationError where the run has none of its own."""
        if ONNX not in self.digests:
            raise EvaluationError(_no_model(self.run))
        return self.fetch(ONNX)


def require_known(record: Record, run: str) -> None:
    """Raise EvaluationError or StudyError for a wrong study, trial or ensemble, before a server is started for it."""
    name, slash, word = run.partition("/")
    if not slash:
        if name in study_names(record):
            raise EvaluationError(f"{name} is a study: name one of its runs, such as {name}/0, or a run id")
        return
    study = load_study(record, name)
    if not (_is_trial(study, word) or ensemble_named(study, word)):
        raise EvaluationError(f"study {name} has no trial or ensemble {word!r}; {available_subjects(study)}")


def _is_trial(study: Study, word: str) -> bool:
    return word.isdecimal() and int(word) < len(study.trials())


def find_run(client: MlflowClient, record: Record, run: str) -> Run:
    """The run of this id, of `STUDY/TRIAL` or of `STUDY/ENSEMBLE`; EvaluationError where there is none."""
    from mlflow.exceptions import MlflowException

    name, slash, word = run.partition("/")
    run_id: str | None = run
    if slash:
        study = load_study(record, name)
        ensemble = ensemble_named(study, word)
        if ensemble is not None:
            run_id = ensemble.run_id
        else:
            tracking = Tracking(client, study.name, identity=study.identity)
            run_id = tracking.find(tracking.trial_key(int(word)))
    missing = EvaluationError(
        f"MLflow has no run {run!r}: give the id of a run, STUDY/TRIAL or STUDY/ENSEMBLE (see: harness status STUDY)"
    )
    if run_id is None or not run_id.isalnum():
        raise missing
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise missing from error


def recorded_digests(record: Record, run: Run) -> dict[str, str]:
    """Sha256 of a run's files, by name: as the study was told when they were written, else as the run's tags have it.

    The study's word comes first: whoever can alter an artifact in MLflow can alter a tag there too.
    """
    tags = run.data.tags
    name, number = tags.get("harness.study", ""), tags.get("harness.trial", "")
    if name in study_names(record):
        study, key = load_study(record, name), tags.get("harness.key")
        if number.isdecimal() and key == f"{study.identity}/trial/{number}":
            return dict(study.trial(int(number)).outcome.get("sha256", {}))
        ensemble = ensemble_named(study, tags.get(ENSEMBLE))
        if ensemble is not None and key == f"{study.identity}/ensemble/{ensemble.name}":
            return dict(ensemble.outcome["sha256"])
    return {key.removeprefix(SHA256_TAG): value for key, value in tags.items() if key.startswith(SHA256_TAG)}


def _no_model(run: Run) -> str:
    tags = run.data.tags
    source = tags.get("harness.source_run")
    hint = f"; it was made from run {source}: evaluate that" if source else "; name a complete trial"
    kind, state = tags.get("harness.kind", "unknown"), tags.get("harness.state", "unknown")
    return f"run {run.info.run_id} ({kind}, {state}) has no model of its own{hint}"
