"""Diarization, not only windows: scores of frames against the reference of meetings, under a stated protocol.

windows -> probabilities -> score of each frame -> regions -> pyannote.metrics; pure, no MLflow and no files.

A window model answers whether something happens *somewhere* in 3 s, so its frames are coarse: every
result carries the F1 of a model that gives every window its label (``ideal_f1``), and that of calling
everything positive. Durations are exact; hypotheses lie on the grid of frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pyannote.core import Segment, Timeline
from pyannote.metrics.detection import DetectionErrorRate, DetectionPrecisionRecallFMeasure

from data.corpora.base import Recording
from data.corpora.rttm import reference as turns_of
from data.digests import digest_of
from harness.core.seeds import derived_seed
from harness.metrics.frame_protocol import Protocol, ProtocolError
from harness.metrics.frame_reference import RULES, window_labels
from harness.metrics.intervals import FEW_CLUSTERS
from harness.metrics.sliding_window import FrameScores, window_starts

Floats = npt.NDArray[np.float64]
Spans = tuple[tuple[float, float], ...]

RESAMPLES = 2_000
# Fewer groups than this give a bootstrap only a handful of different samples (35 of 4 groups).
FEWEST_GROUPS = 5
LIMIT = (
    "a window model says that something happens somewhere in 3 s, so its frames are coarse; do not compare "
    "with systems that answer per frame"
)


@dataclass(frozen=True)
class Meeting:
    """A conversation, the regions of it that are scored, in seconds, and the cluster that it counts in.

    A cluster is a group of meetings that share speakers: their scores are not independent.
    """

    recording: Recording
    regions: Spans
    cluster: str


def reference_digest(meetings: Sequence[Meeting]) -> str:
    """Sha256 of what the meetings are held against: length, segments and regions, whatever their order."""
    rows = []
    for meeting in sorted(meetings, key=lambda meeting: meeting.recording.id):
        recording = meeting.recording
        segments = sorted([s.start_s, s.end_s, s.speaker] for s in recording.segments)
        rows.append([recording.id, recording.num_samples, meeting.regions, segments])
    return digest_of(rows)


@dataclass(frozen=True)
class Scores:
    """Seconds, and the rates that follow from them, with pyannote.metrics' conventions for 0/0.

    ::

        precision = hit / detected     recall = hit / reference     f1 = 2 hit / (detected + reference)
        detection_error_rate = (false_alarm + miss) / reference

    Nothing detected: precision 1. Nothing to detect: recall 1, and an error rate of 0, or 1 with any false alarm.

    Attributes
    ----------
    scored_s : seconds that count at all, the collars taken out
    reference_s, detected_s : positive seconds of the reference and of the hypothesis, hit_s those of both
    """

    scored_s: float
    reference_s: float
    detected_s: float
    hit_s: float
    false_alarm_s: float
    miss_s: float
    f1: float
    precision: float
    recall: float
    detection_error_rate: float


class Scorer:
    """pyannote.metrics over meetings, one after the other; it accumulates seconds, of which `pooled` takes the rates.

    A pooled rate is of summed seconds, never a mean of the meetings' rates: a long meeting weighs more.
    """

    def __init__(self, protocol: Protocol) -> None:
        options = {"collar": protocol.collar_s, "skip_overlap": protocol.skip_overlap}
        self._f1 = DetectionPrecisionRecallFMeasure(**options)
        self._error = DetectionErrorRate(**options)
        self._seconds = 0.0

    def add(self, reference: Timeline, hypothesis: Timeline, regions: Timeline) -> Scores:
        """Score one meeting; the timelines hold what is positive, ``regions`` what is scored."""
        truth, found = reference.to_annotation(), hypothesis.to_annotation()
        parts = self._f1(truth, found, uem=regions, detailed=True)
        error = self._error(truth, found, uem=regions, detailed=True)
        seconds = self._error.extrude(regions, truth, self._error.collar, self._error.skip_overlap).duration()
        self._seconds += seconds
        return self._scores(parts, error, seconds)

    def pooled(self) -> Scores:
        """Score all meetings so far as if they were one."""
        return self._scores(self._f1[:], self._error[:], self._seconds)

    def _scores(self, parts: Mapping[str, float], error: Mapping[str, float], seconds: float) -> Scores:
        precision, recall, f1 = self._f1.compute_metrics(dict(parts))
        return Scores(
            scored_s=seconds,
            reference_s=parts["relevant"],
            detected_s=parts["retrieved"],
            hit_s=parts["relevant retrieved"],
            false_alarm_s=error["false alarm"],
            miss_s=error["miss"],
            f1=float(f1),
            precision=float(precision),
            recall=float(recall),
            detection_error_rate=float(self._error.compute_metric(dict(error))),
        )


def positive_regions(scores: Floats, protocol: Protocol) -> Timeline:
    """Return the regions whose frames score above the threshold, ``(frame,)`` -> seconds.

    ::

        score      __/--\\_/--\\_____/\\___
        above        |--| |--|     ||
        gaps filled  |-------|     ||
        short gone   |-------|
    """
    above = np.concatenate([[False], scores > protocol.threshold, [False]])
    begins, ends = np.flatnonzero(~above[:-1] & above[1:]), np.flatnonzero(above[:-1] & ~above[1:])
    pairs = zip((begins * protocol.frame_s).tolist(), (ends * protocol.frame_s).tolist(), strict=True)
    filled = Timeline(Segment(b, e) for b, e in pairs).support(protocol.min_duration_off_s)
    return Timeline(region for region in filled if region.duration >= protocol.min_duration_on_s)


@dataclass(frozen=True)
class MeetingScores:
    """The scores of one meeting, and `group`, the cluster it counts in."""

    meeting: str
    group: str
    scores: Scores


@dataclass(frozen=True)
class MeetingResults:
    """All meetings under one protocol.

    Attributes
    ----------
    pooled : scores of all meetings as if they were one
    ideal_f1 : F1 of a model that gives every window its label: what coarse windows cost at least
    all_positive_f1 : F1 of calling everything positive: what a model must beat
    interval : 95 % of the pooled F1, see `bootstrap`; None with too few groups, `interval_note` says so
    """

    protocol: Protocol
    pooled: Scores
    meetings: tuple[MeetingScores, ...]
    ideal_f1: float
    all_positive_f1: float
    interval: tuple[float, float] | None
    interval_note: str

    @property
    def groups(self) -> int:
        """The number of clusters: groups of meetings, no two of which share a speaker."""
        return len({one.group for one in self.meetings})

    def as_json(self) -> dict[str, Any]:
        """The fields that are stored and printed; never without the protocol."""
        low, high = self.interval or (None, None)
        return {
            "protocol": self.protocol.model_dump(mode="json"),
            "protocol_digest": self.protocol.digest(),
            **asdict(self.pooled),
            "low": low,
            "high": high,
            "interval_note": self.interval_note,
            "clusters": self.groups,
            "few_clusters": self.groups < FEW_CLUSTERS,
            "ideal_f1": self.ideal_f1,
            "all_positive_f1": self.all_positive_f1,
            "meetings": [
                {"meeting": one.meeting, "group": one.group, **asdict(one.scores)} for one in self.meetings
            ],
            "limit": LIMIT,
        }


class MeetingEvaluation:
    """Meetings scored one by one under one protocol, beside an ideal window model and one that calls all positive.

    Raises
    ------
    ProtocolError
        The task says nothing about a moment of a conversation.
    """

    def __init__(self, protocol: Protocol) -> None:
        if protocol.task not in RULES:
            raise ProtocolError(
                f"a {protocol.task} model cannot slide over meetings: its label says nothing about a moment of a "
                f"conversation; tasks that can: {', '.join(sorted(RULES))}"
            )
        self.protocol = protocol
        self._rule = RULES[protocol.task]
        self._model, self._ideal, self._all = Scorer(protocol), Scorer(protocol), Scorer(protocol)
        self._meetings: list[MeetingScores] = []

    def starts(self, meeting: Meeting) -> npt.NDArray[np.int64]:
        """First frame of each window of a meeting, (window,): where the model is asked before ``add``."""
        protocol = self.protocol
        return window_starts(meeting.recording.num_samples, protocol.frame_samples, protocol.step_frames)

    def add(self, meeting: Meeting, scores: Floats) -> MeetingScores:
        """Hold the score of each frame of a meeting, ``(frame,)``, against its reference; return the meeting's scores.

        Scores are the mean probabilities of `FrameScores`, in [0, 1]; the protocol's threshold cuts them.
        """
        recording = meeting.recording
        turns = turns_of(recording)
        reference = self._rule.regions(turns)
        regions = Timeline(Segment(*span) for span in meeting.regions)
        ideal = FrameScores(recording.num_samples, self.protocol.frame_samples)
        starts = self.starts(meeting)
        starts_s = np.asarray(starts * self.protocol.frame_s, dtype=np.float64)
        ideal.add(starts, window_labels(self.protocol.task, recording, starts_s))
        self._ideal.add(reference, positive_regions(ideal.mean(), self.protocol), regions)
        self._all.add(reference, regions, regions)
        found = self._model.add(reference, positive_regions(scores, self.protocol), regions)
        self._meetings.append(MeetingScores(recording.id, meeting.cluster, found))
        return self._meetings[-1]

    def result(self) -> MeetingResults:
        """Pool the meetings so far, with the interval of their F1."""
        interval, note = bootstrap(self._meetings, self.protocol)
        return MeetingResults(
            protocol=self.protocol,
            pooled=self._model.pooled(),
            meetings=tuple(self._meetings),
            ideal_f1=self._ideal.pooled().f1,
            all_positive_f1=self._all.pooled().f1,
            interval=interval,
            interval_note=note,
        )


def bootstrap(
    meetings: Sequence[MeetingScores], protocol: Protocol
) -> tuple[tuple[float, float] | None, str]:
    """Percentile interval (95 %) of the pooled F1 over resampled meeting groups, and what to say of it.

    The percentile bootstrap (Efron & Tibshirani 1993) with whole groups as units, for meetings of one group share
    speakers: K groups are drawn with replacement, B = 2000 times, each time ``F1 = 2 hit / (detected + reference)``
    of their summed seconds (1 for 0/0). Unlike `paired_cluster_bootstrap`'s its tails are not widened, so that it is
    too narrow where groups are few; below 5 there is none. Equal protocols draw the same groups.
    """
    groups = sorted({one.group for one in meetings})
    if len(groups) < FEWEST_GROUPS:
        return None, (
            f"no interval: K = {len(groups)}, and fewer than {FEWEST_GROUPS} meeting groups give too few different "
            "resamples"
        )
    rows = np.array(
        [
            [sum(getattr(m.scores, name) for m in meetings if m.group == group) for group in groups]
            for name in ("hit_s", "detected_s", "reference_s")
        ]
    )  # (3, group)
    rng = np.random.default_rng(derived_seed("meetings", protocol.digest()))
    drawn = rng.integers(len(groups), size=(RESAMPLES, len(groups)))
    hit, detected, reference = rows[:, drawn].sum(axis=2)
    total = detected + reference
    values = np.divide(2 * hit, total, out=np.ones_like(hit), where=total > 0)
    low, high = np.quantile(values, (0.025, 0.975))
    return (float(low), float(high)), "95 % bootstrap over meeting groups"
