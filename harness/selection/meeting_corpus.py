"""Which meetings are evaluated, what of them is scored, and whom a model has heard in training."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from data.corpora import CORPORA
from data.corpora.base import Progress, Recording, Request
from data.errors import DataError, listed
from data.parts import Split
from data.preparation.manifest import Manifest
from data.preparation.prepared import RECORD, manifest_path
from data.store.content_store import is_complete
from harness.core.settings import Settings
from harness.metrics.frame_scores import Meeting, Spans

CORPUS = "ami"
UEMS = "uems"


@dataclass(frozen=True)
class MeetingSet:
    """The meetings of a part, sorted by id, and remarks on them: what cannot be used, where the lists are odd."""

    meetings: tuple[Meeting, ...]
    flags: tuple[str, ...] = ()

    def with_any(self, names: Set[str]) -> list[str]:
        """Ids of the meetings that are named, or whose group or one of whose speakers is."""
        return [one.recording.id for one in self.meetings if names & _names(one)]


def _names(meeting: Meeting) -> set[str]:
    recording = meeting.recording
    return {recording.id, recording.chapter, *_shared(recording)}


def _shared(recording: Recording) -> set[str]:
    """What makes a recording depend on another: its series and its speakers."""
    return {recording.group or recording.id, *(segment.speaker for segment in recording.segments)}


def clusters_of(recordings: Iterable[Recording]) -> dict[str, str]:
    """Return the cluster of each meeting: those that share a series or a speaker, if only through others.

    ::

        ES2011a, ES2011b -> ES2011        IB4001, IB4002 (other series, one speaker in both) -> IB4001+1
    """
    clusters: list[tuple[set[str], list[Recording]]] = []
    for recording in recordings:
        names, members = _shared(recording), [recording]
        apart = []
        for cluster in clusters:
            if cluster[0] & names:
                names, members = names | cluster[0], [*cluster[1], *members]
            else:
                apart.append(cluster)
        clusters = [*apart, (names, members)]
    return {one.id: _name(members) for _, members in clusters for one in members}


def _name(members: Iterable[Recording]) -> str:
    first, *others = sorted({one.group or one.id for one in members})
    return f"{first}+{len(others)}" if others else first


def load_meetings(part: str, partition: str, settings: Settings, progress: Progress) -> MeetingSet:
    """Meetings of a part of AMI under the data root, with the regions of their UEMs.

    Raises
    ------
    DataError
        No data root, no such part, no meetings, or a meeting without a UEM.
    """
    reader = CORPORA[CORPUS].reader()
    request = Request((part,), settings.data_root, settings.cache, progress, partition=partition)
    root = reader.locate(request)
    scan = reader.scan(root, reader.listing(root, [part]))
    recordings = sorted(scan.recordings.get(part, ()), key=lambda recording: recording.id)
    if not recordings:
        raise DataError(f"{root} holds no usable meeting of part {part} ({partition}); see its lists")
    flags = list(scan.remarks)
    if scan.lost:
        lost = listed(f"{one.path} ({one.reason})" for one in scan.lost)
        flags.append(f"{len(scan.lost)} meetings cannot be used and are not scored: {lost}")
    clusters = clusters_of(recordings)
    meetings = (Meeting(one, regions_of(root, part, one), clusters[one.id]) for one in recordings)
    return MeetingSet(tuple(meetings), tuple(flags))


def regions_of(root: Path, part: str, recording: Recording) -> Spans:
    """(start, end) in seconds of what the UEM of a meeting says is annotated, cut to the recording: what is scored.

    Raises
    ------
    DataError
        There is no UEM of the meeting, or nothing of it lies within the recording.
    """
    from pyannote.core import Segment

    from data.corpora.rttm import read_uem

    found = sorted((root / UEMS).glob(f"*/{recording.id}.uem"))
    if not found:
        raise DataError(
            f"meeting {recording.id} has no UEM, which says what is scored of it: put {recording.id}.uem of "
            f"BUTSpeechFIT/AMI-diarization-setup into {root / UEMS / part}"
        )
    path = found[0]
    timeline = read_uem(path, recording.id)
    inside = timeline.crop(Segment(0.0, recording.duration_s), mode="intersection").support()
    if not inside:
        raise DataError(f"{path} has no region within the {recording.duration_s:.1f} s of {recording.id}")
    return tuple((float(region.start), float(region.end)) for region in inside)


@dataclass(frozen=True)
class TrainingSpeakers:
    """Whom a model has heard: names of speakers, clusters and groups of its training and validation windows.

    Attributes
    ----------
    whole : whether they are those of all windows, so that a name that is missing was not heard
    """

    train: frozenset[str]
    val: frozenset[str]
    whole: bool

    def __or__(self, other: TrainingSpeakers) -> TrainingSpeakers:
        """Whom either of two incomplete sources names."""
        return TrainingSpeakers(self.train | other.train, self.val | other.val, self.whole or other.whole)


def training_speakers_of(cache: Path, params: Mapping[str, str]) -> TrainingSpeakers | None:
    """Whom the manifests of a run's digests hold, from the prepared data in the cache; None if none is there.

    A run has one digest of training windows a data configuration that it was trained on: a trial `digest.train`,
    an ensemble of different ones `digest.train.1` and so on beside it.
    """
    trained = {value for name, value in params.items() if re.fullmatch(r"digest\.train(\.\d+)?", name)}
    train: frozenset[str] = frozenset()
    val: frozenset[str] = frozenset()
    missing = set(trained)
    for path in sorted((cache / "prepared").glob(f"*/{RECORD}")):
        if not missing or not is_complete(path.parent):
            continue
        splits = json.loads(path.read_text("utf-8"))["splits"]
        digests = {split: splits[split]["manifest_digest"] for split in ("train", "val")}
        if digests["train"] in missing and digests["val"] == params.get("digest.val"):
            train, val = train | _heard(path.parent, "train"), val | _heard(path.parent, "val")
            missing.discard(digests["train"])
    return TrainingSpeakers(train, val, whole=not missing) if missing != trained else None


def _heard(folder: Path, split: Split) -> frozenset[str]:
    manifest = Manifest.load(manifest_path(folder, split))
    names = {name for window in manifest.windows for name in (window.cluster, *window.speakers)}
    groups = {source.group for window in manifest.windows for source in window.sources}
    return frozenset(names | groups) - {""}
