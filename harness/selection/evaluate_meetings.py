"""`harness evaluate`: a run's own ONNX over AMI meetings, scored under a protocol that is stored with it.

find the run -> its study's lock -> its ONNX, checked -> the meetings: trained on? -> (the test: ledger) -> slide
    -> score -> MLflow
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.plugins import load_plugins
from harness.core.errors import InputError, RefusedError
from harness.core.files import write_json
from harness.core.settings import Settings
from harness.metrics.classification import softmax
from harness.metrics.frame_reference import RULES
from harness.metrics.frame_scores import (
    MeetingEvaluation,
    MeetingResults,
    Protocol,
    ProtocolError,
    check_step,
    reference_digest,
)
from harness.metrics.sliding_window import FrameScores, read_windows
from harness.selection.ensemble_members import ONNX
from harness.selection.meeting_corpus import MeetingSet, TrainingSpeakers, load_meetings, training_speakers_of
from harness.study.choose_trial import available_subjects
from harness.study.ensembles import ensemble_named
from harness.study.storage.frozen_test_log import OpeningCounts, record_test_opening
from harness.study.storage.record import Record
from harness.study.study import Study, load_study, study_names
from harness.tracking.artifacts import fetch
from harness.tracking.experiment import MAX_TAG, Tracking, connect
from harness.tracking.server.server import TrackingServer
from models.export.specification import Specification
from models.onnx_io.session import open_session, run_onnx

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ENSEMBLE = "harness.ensemble"
PREDICTIONS = "predictions.npz"
SHA256_TAG = "harness.sha256."

Progress = Callable[[str], None]


class EvaluationError(InputError):
    """A run that cannot be evaluated; the message says why, and what can."""


class SeenMeetingsError(RefusedError, ValueError):
    """The model was trained on these meetings or their speakers."""


@dataclass(frozen=True)
class EvaluationRequest:
    """What is asked of a run: on which meetings, and how they are scored."""

    part: str = "dev"
    partition: str = "full-corpus-asr"
    step_s: float = 0.25
    collar_s: float = 0.0


@dataclass(frozen=True)
class EvaluatedRun:
    """A run's result on meetings, with everything that qualifies it."""

    run_id: str
    run_name: str
    study: str
    trial: str
    artifact: str
    result: MeetingResults
    flags: tuple[str, ...]
    openings: OpeningCounts | None

    def as_json(self) -> dict[str, Any]:
        """The document that is stored in the run and printed by `--json`."""
        return {
            "run": self.run_id, "name": self.run_name, "study": self.study, "trial": self.trial,
            **self.result.as_json(),
            "flags": list(self.flags),
            "test_openings": self.openings.by_study if self.openings else None,
            "test_openings_by_all": self.openings.by_all if self.openings else None,
            "artifact": self.artifact,
        }  # fmt: skip


def evaluate(run: str, asked: EvaluationRequest, settings: Settings, progress: Progress) -> EvaluatedRun:
    """Slide the model of a run (`RUN id`, `STUDY/TRIAL` or `STUDY/ENSEMBLE`) over meetings; store the result in it.

    The study's lock is held meanwhile, as a sweep holds it: what belongs to a study has one writer.

    Raises
    ------
    EvaluationError, ProtocolError
        No such run, one without a model, or of a task that says nothing about a moment.
    RecordError
        A sweep, or another command that writes, works on the study.
    SeenMeetingsError
        The model was trained on these meetings or their speakers.
    """
    check_step(asked.step_s)
    record = Record(settings.record).require()
    _check_study(record, run)
    with (
        TrackingServer(record) as server,
        tempfile.TemporaryDirectory(prefix="harness-evaluate-") as scratch,
        ExitStack() as ending,
    ):
        client = connect(server.uri)
        found = find_run(client, record, run)
        tags = found.data.tags
        study = tags.get("harness.study", "")
        if study in study_names(record):
            ending.callback(record.lock_study(study).release)
        digests = recorded_digests(record, found)
        if ONNX not in digests:
            raise EvaluationError(_no_model(found))
        folder = Path(scratch)
        model = fetch(client, found.info.run_id, ONNX, digests[ONNX], folder)
        load_plugins()
        task = _sliding_task(Specification.from_onnx(model).task)
        meetings = load_meetings(asked.part, asked.partition, settings, progress)
        protocol = _protocol(task, meetings, asked)
        heard = training_speakers_of(settings.cache, found.data.params)
        if heard is None or not heard.whole:
            stored = _stored_clusters(client, found, digests, folder)
            heard = heard | stored if heard and stored else heard or stored
        flags = (*meetings.flags, *_seen_flags(meetings, heard))
        openings = None
        if asked.part == "test":
            progress("the frozen test is opened")
            openings = _open(record, found, protocol)
        result = _slide(model, meetings, protocol, progress)
        evaluated = EvaluatedRun(
            found.info.run_id, str(found.info.run_name), study, tags.get("harness.trial") or tags.get(ENSEMBLE, ""),
            f"evaluate/{protocol.digest()[:12]}/result.json", result, flags, openings,
        )  # fmt: skip
        store_evaluation(client, evaluated, folder)
    return evaluated


def _check_study(record: Record, run: str) -> None:
    """Answer a wrong study, trial or ensemble before a server starts."""
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
    """Sha256 of a run's files: as they were told to the study when written, else as the run's tags have them."""
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


def _sliding_task(task: str) -> str:
    if task not in RULES:
        raise ProtocolError(
            f"a {task} model cannot slide over meetings: its label says nothing about a moment of a "
            f"conversation; tasks that can: {', '.join(sorted(RULES))}"
        )
    return task


def _protocol(task: str, meetings: MeetingSet, asked: EvaluationRequest) -> Protocol:
    return Protocol(
        task=task, rule=RULES[task].text, part=asked.part, partition=asked.partition,
        meetings=tuple(sorted(one.recording.id for one in meetings.meetings)),
        reference=reference_digest(meetings.meetings), step_s=asked.step_s, collar_s=asked.collar_s,
    )  # fmt: skip


def _stored_clusters(
    client: MlflowClient, run: Run, digests: dict[str, str], folder: Path
) -> TrainingSpeakers | None:
    """Clusters (AMI: meeting groups) in a run's stored predictions, where its manifests are in no cache."""
    if PREDICTIONS not in digests:
        return None
    path = fetch(client, run.info.run_id, PREDICTIONS, digests[PREDICTIONS], folder)
    with np.load(path, allow_pickle=False) as stored:
        train, val = (frozenset(map(str, stored[f"{split}_clusters"])) for split in ("train", "val"))
    return TrainingSpeakers(train, val, whole=False)


def _seen_flags(meetings: MeetingSet, heard: TrainingSpeakers | None) -> list[str]:
    if heard is None:
        return ["whether the model was trained on these meetings cannot be told: its manifests are not here"]
    seen = meetings.with_any(heard.train)
    if seen:
        raise SeenMeetingsError(
            f"the model was trained on {', '.join(seen[:5])}{' and more' if len(seen) > 5 else ''} or on their "
            f"speakers; evaluate it on another part"
        )
    flags = []
    if meetings.with_any(heard.val):
        flags.append(
            "the model was chosen on windows of these meetings or their speakers: the scores flatter it"
        )
    if not heard.whole:
        flags.append(
            "only the clusters of its stored predictions say that the model was not trained on these meetings: "
            "its manifests are not all in this cache"
        )
    return flags


def _open(record: Record, run: Run, protocol: Protocol) -> OpeningCounts:
    """Write into the ledger that these very meetings were looked at, whatever the protocol's other fields."""
    tags = run.data.tags
    trial = tags.get("harness.trial", "")
    study = tags.get("harness.study", run.info.run_id)
    name = tags.get(ENSEMBLE, run.info.run_id)
    return record_test_opening(
        record.root, study, int(trial) if trial.isdecimal() else name, protocol.reference
    )


def _slide(model: Path, meetings: MeetingSet, protocol: Protocol, progress: Progress) -> MeetingResults:
    session = open_session(model)
    evaluation = MeetingEvaluation(protocol)
    progress(str(protocol))
    for number, meeting in enumerate(meetings.meetings, 1):
        began = time.monotonic()
        starts = evaluation.starts(meeting)
        scores = FrameScores(meeting.recording.num_samples, protocol.frame_samples)
        done = 0
        for windows in read_windows(meeting.recording.path, starts, protocol.frame_samples):
            probabilities = softmax(run_onnx(session, windows))[:, 1]
            scores.add(starts[done : done + len(windows)], probabilities)
            done += len(windows)
        one = evaluation.add(meeting, scores.mean())
        progress(
            f"{number}/{len(meetings.meetings)} {one.meeting}: F1 {one.scores.f1:.3f}, {done} windows "
            f"in {time.monotonic() - began:.1f} s"
        )
    return evaluation.result()


def store_evaluation(client: MlflowClient, evaluated: EvaluatedRun, folder: Path) -> None:
    """Write the result into its run: the document first, then metrics and tags that carry the protocol's digest."""
    from mlflow.entities import Metric, RunTag

    result, digest = evaluated.result, evaluated.result.protocol.digest()
    path = folder / evaluated.artifact
    write_json(path, evaluated.as_json())
    client.log_artifact(evaluated.run_id, str(path), str(Path(evaluated.artifact).parent))
    pooled = result.pooled
    values = {
        "f1": pooled.f1, "precision": pooled.precision, "recall": pooled.recall,
        "detection_error_rate": pooled.detection_error_rate, "ideal_f1": result.ideal_f1,
        "all_positive_f1": result.all_positive_f1, "clusters": float(result.groups),
        **(dict(zip(("low", "high"), result.interval, strict=True)) if result.interval else {}),
    }  # fmt: skip
    texts = {"digest": digest, "protocol": str(result.protocol), "flags": "; ".join(evaluated.flags)}
    prefix, now = f"evaluate/{digest[:8]}", int(time.time() * 1000)
    client.log_batch(
        evaluated.run_id,
        metrics=[Metric(f"{prefix}/{name}", value, now, 0) for name, value in sorted(values.items())],
        tags=[RunTag(f"{prefix}/{name}", value[:MAX_TAG]) for name, value in texts.items()],
    )
