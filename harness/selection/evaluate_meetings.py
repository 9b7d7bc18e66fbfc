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
from harness.core.errors import RefusedError
from harness.core.files import write_json
from harness.core.settings import Settings
from harness.metrics.classification import softmax
from harness.metrics.frame_protocol import Protocol, ProtocolError, check_step
from harness.metrics.frame_reference import RULES
from harness.metrics.frame_scores import MeetingEvaluation, MeetingResults, reference_digest
from harness.metrics.sliding_window import FrameScores, read_windows
from harness.selection.find_run import (
    ENSEMBLE,
    RecordedRun,
    find_run,
    recorded_digests,
    require_known,
)
from harness.selection.meeting_corpus import MeetingSet, TrainingSpeakers, load_meetings, training_speakers_of
from harness.study.storage.frozen_test_log import OpeningCounts, record_test_opening
from harness.study.storage.record import Record
from harness.study.study import study_names
from harness.tracking.experiment import MAX_TAG, connect
from harness.tracking.server.server import TrackingServer
from models.export.specification import Specification
from models.onnx_io.session import open_session, run_onnx

if TYPE_CHECKING:
    from mlflow import MlflowClient

PREDICTIONS = "predictions.npz"

Progress = Callable[[str], None]


class SeenMeetingsError(RefusedError, ValueError):
    """The model was trained on these meetings or their speakers."""


@dataclass(frozen=True)
class EvaluationRequest:
    """What is asked of a run: on which meetings, and how they are scored.

    Attributes
    ----------
    part : `train`, `dev` or `test` of the corpus; looking at `test` is written into the ledger
    partition : which lists deal the meetings to the parts
    step_s : from one window of 3 s to the next, a multiple of the frame
    collar_s : so much, half before and half after, is not scored around each boundary of the reference
    """

    part: str = "dev"
    partition: str = "full-corpus-asr"
    step_s: float = 0.25
    collar_s: float = 0.0


@dataclass(frozen=True)
class EvaluatedRun:
    """A run's result on meetings, with everything that qualifies it.

    Attributes
    ----------
    trial : its trial's number or the ensemble's name; empty for a run of no study
    artifact : path of the result within the run; it carries the protocol's digest
    flags : sentences on what was heard in training, or could not be used
    openings : how often these very test meetings were looked at; None for another part than `test`
    """

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
            "run": self.run_id,
            "name": self.run_name,
            "study": self.study,
            "trial": self.trial,
            **self.result.as_json(),
            "flags": list(self.flags),
            "test_openings": self.openings.by_study if self.openings else None,
            "test_openings_by_all": self.openings.by_all if self.openings else None,
            "artifact": self.artifact,
        }


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
    require_known(record, run)
    with (
        TrackingServer(record) as server,
        tempfile.TemporaryDirectory(prefix="harness-evaluate-") as scratch,
        ExitStack() as ending,
    ):
        client = connect(server.uri)
        found = find_run(client, record, run)
        study = found.data.tags.get("harness.study", "")
        if study in study_names(record):
            ending.callback(record.lock_study(study).release)
        recorded = RecordedRun(client, found, recorded_digests(record, found), Path(scratch))
        evaluated = _evaluate(recorded, record, asked, settings, progress)
        store_evaluation(client, evaluated, recorded.folder)
    return evaluated


def _evaluate(
    found: RecordedRun, record: Record, asked: EvaluationRequest, settings: Settings, progress: Progress
) -> EvaluatedRun:
    """Score a run; the frozen test is opened last, once nothing but the scoring can fail."""
    model = found.fetch_model()
    load_plugins()
    task = _sliding_task(Specification.from_onnx(model).task)
    meetings = load_meetings(asked.part, asked.partition, settings, progress)
    protocol = _protocol(task, meetings, asked)
    seen = _seen_flags(meetings, _heard_in_training(found, settings.cache))
    openings = None
    if asked.part == "test":
        progress("the frozen test is opened")
        openings = _open(record, found, protocol)
    return EvaluatedRun(
        run_id=found.run_id,
        run_name=str(found.run.info.run_name),
        study=found.tags.get("harness.study", ""),
        trial=found.tags.get("harness.trial") or found.tags.get(ENSEMBLE, ""),
        artifact=f"evaluate/{protocol.digest()[:12]}/result.json",
        result=_slide(model, meetings, protocol, progress),
        flags=(*meetings.flags, *seen),
        openings=openings,
    )


def _sliding_task(task: str) -> str:
    if task not in RULES:
        raise ProtocolError(
            f"a {task} model cannot slide over meetings: its label says nothing about a moment of a "
            f"conversation; tasks that can: {', '.join(sorted(RULES))}"
        )
    return task


def _protocol(task: str, meetings: MeetingSet, asked: EvaluationRequest) -> Protocol:
    return Protocol(
        task=task,
        rule=RULES[task].text,
        part=asked.part,
        partition=asked.partition,
        meetings=tuple(sorted(one.recording.id for one in meetings.meetings)),
        reference=reference_digest(meetings.meetings),
        step_s=asked.step_s,
        collar_s=asked.collar_s,
    )


def _heard_in_training(found: RecordedRun, cache: Path) -> TrainingSpeakers | None:
    """Whom the model has heard: as the manifests in the cache say, and where they are not all there, its predictions.

    None where neither is to be had.
    """
    heard = training_speakers_of(cache, found.run.data.params)
    if heard is not None and heard.whole:
        return heard
    stored = _stored_clusters(found)
    return heard | stored if heard and stored else heard or stored


def _stored_clusters(found: RecordedRun) -> TrainingSpeakers | None:
    """Clusters (AMI: meeting groups) in a run's stored predictions; None where it has none."""
    if PREDICTIONS not in found.digests:
        return None
    with np.load(found.fetch(PREDICTIONS), allow_pickle=False) as stored:
        train, val = (frozenset(map(str, stored[f"{split}_clusters"])) for split in ("train", "val"))
    return TrainingSpeakers(train, val, whole=False)


def _seen_flags(meetings: MeetingSet, heard: TrainingSpeakers | None) -> list[str]:
    """What qualifies the scores of a model that has heard these people; SeenMeetingsError if it learned from them."""
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


def _open(record: Record, found: RecordedRun, protocol: Protocol) -> OpeningCounts:
    """Write into the ledger that these very meetings were looked at, whatever the protocol's other fields."""
    trial = found.tags.get("harness.trial", "")
    study = found.tags.get("harness.study", found.run_id)
    name = found.tags.get(ENSEMBLE, found.run_id)
    return record_test_opening(
        record.root, study, int(trial) if trial.isdecimal() else name, protocol.reference
    )


def _slide(model: Path, meetings: MeetingSet, protocol: Protocol, progress: Progress) -> MeetingResults:
    """Score every meeting by the model's mean probability of "yes" in each frame."""
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
        "f1": pooled.f1,
        "precision": pooled.precision,
        "recall": pooled.recall,
        "detection_error_rate": pooled.detection_error_rate,
        "ideal_f1": result.ideal_f1,
        "all_positive_f1": result.all_positive_f1,
        "clusters": float(result.groups),
        **(dict(zip(("low", "high"), result.interval, strict=True)) if result.interval else {}),
    }
    texts = {"digest": digest, "protocol": str(result.protocol), "flags": "; ".join(evaluated.flags)}
    prefix, now = f"evaluate/{digest[:8]}", int(time.time() * 1000)
    client.log_batch(
        evaluated.run_id,
        metrics=[Metric(f"{prefix}/{name}", value, now, 0) for name, value in sorted(values.items())],
        tags=[RunTag(f"{prefix}/{name}", value[:MAX_TAG]) for name, value in texts.items()],
    )
