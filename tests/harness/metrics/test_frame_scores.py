"""Frames, references and metrics of meetings: laws, on random conversations and hand-drawn ones."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from pyannote.core import Segment, Timeline
from pyannote.metrics.detection import DetectionErrorRate, DetectionPrecisionRecallFMeasure
from pydantic import ValidationError

from data.corpora.base import Recording
from data.corpora.base import Segment as Turn
from data.corpora.rttm import reference
from data.errors import AudioError
from data.tasks.activity import activity_of
from harness.metrics.frame_protocol import Protocol, ProtocolError
from harness.metrics.frame_reference import RULES, change_points, window_labels
from harness.metrics.frame_scores import (
    Meeting,
    MeetingEvaluation,
    Scorer,
    positive_regions,
    reference_digest,
)
from harness.metrics.sliding_window import FrameScores, frame_count, read_windows, window_starts
from harness.selection.meeting_corpus import clusters_of

FRAME = 160  # samples: 10 ms


def protocol(task: str = "overlap", **fields: object) -> Protocol:
    given = {"part": "dev", "partition": "lists", "meetings": ("M1",), "reference": "0" * 64, "rule": "r"}
    return Protocol.model_validate({"task": task, **given, **fields})


def meeting(turns: list[tuple[float, float, str]], duration_s: float = 30.0, name: str = "M1") -> Meeting:
    segments = tuple(Turn(*turn) for turn in turns)
    samples = round(duration_s * 16_000)
    recording = Recording(
        name, Path("m.wav"), "dev", name, samples, 16_000, segments, conversation=True, group=name[:-1]
    )
    return Meeting(recording, ((0.0, duration_s),), name[:-1])


def frames_of(regions: Timeline, count: int) -> np.ndarray:
    scores = np.zeros(count)
    for region in regions:
        scores[round(region.start * 100) : round(region.end * 100)] = 1.0
    return scores


spans = st.lists(
    st.tuples(st.integers(0, 2900), st.integers(10, 600), st.sampled_from("ABC")), min_size=1, max_size=12
).map(lambda rows: [(a / 100, min(30.0, (a + n) / 100), who) for a, n, who in rows])


@settings(max_examples=30, deadline=None)
@given(spans, st.sampled_from(sorted(RULES)))
def test_a_perfect_track_has_no_error_and_a_silent_one_misses_everything(
    turns: list[tuple[float, float, str]], task: str
) -> None:
    one = meeting(turns)
    truth = RULES[task].regions(reference(one.recording)).crop(Segment(0, 30))
    perfect = Timeline(Segment(round(r.start, 2), round(r.end, 2)) for r in truth)
    exact = MeetingEvaluation(protocol(task)).add(one, frames_of(perfect, 3000)).scores
    rounding = 0.021 * max(1, len(truth))  # the middle of a gap may lie within a frame
    assert exact.miss_s + exact.false_alarm_s <= rounding
    if not truth:
        assert (exact.f1, exact.detection_error_rate) == (1.0, 0.0)
        return
    assert exact.f1 >= 1 - rounding / truth.duration()
    silent = MeetingEvaluation(protocol(task)).add(one, np.zeros(3000)).scores
    assert (silent.f1, silent.recall, silent.false_alarm_s) == (0.0, 0.0, 0.0)
    assert silent.miss_s == pytest.approx(silent.reference_s) == pytest.approx(truth.duration())
    assert silent.detection_error_rate == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(spans, spans), min_size=1, max_size=3), st.sampled_from([0.0, 0.5]))
def test_scores_are_those_of_pyannote_metrics_and_pool(
    pairs: list[tuple[list[tuple[float, float, str]], list[tuple[float, float, str]]]], collar: float
) -> None:
    scorer = Scorer(protocol(collar_s=collar))
    f1, error = DetectionPrecisionRecallFMeasure(collar=collar), DetectionErrorRate(collar=collar)
    regions = Timeline([Segment(1, 29)])
    singles = []
    for truth, found in pairs:
        left, right = (Timeline(Segment(a, b) for a, b, _ in side).support() for side in (truth, found))
        singles.append(scorer.add(left, right, regions))
        a, b = left.to_annotation(), right.to_annotation()
        assert singles[-1].f1 == f1(a, b, uem=regions)
        assert singles[-1].detection_error_rate == error(a, b, uem=regions)
    pooled = scorer.pooled()
    assert (pooled.f1, pooled.detection_error_rate) == (abs(f1), abs(error))
    assert pooled.hit_s == pytest.approx(sum(one.hit_s for one in singles))
    assert pooled.scored_s == pytest.approx(sum(one.scored_s for one in singles))
    if collar == 0:
        assert pooled.scored_s == pytest.approx(28 * len(pairs))


@given(st.integers(1, 400_000), st.integers(1, 300), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_windows_of_one_answer_give_every_frame_that_answer(samples: int, step: int, value: float) -> None:
    starts = window_starts(samples, FRAME, step)
    scores = FrameScores(samples, FRAME)
    scores.add(starts, np.full(len(starts), value))
    mean = scores.mean()
    assert len(mean) == frame_count(samples, FRAME) == -(-samples // FRAME)
    assert mean == pytest.approx(np.full(len(mean), value))
    assert (np.diff(starts) <= step).all()


def test_the_nearest_window_counts_most() -> None:
    scores = FrameScores(16_000 * 9, FRAME)
    scores.add(np.arange(0, 601, 100), np.array([0, 0, 0, 1, 0, 0, 0]))  # the window at 3..6 s alone says yes
    mean = scores.mean()
    assert mean.argmax() in range(440, 460)
    assert (mean[:300] == 0).all()
    assert (mean[600:] == 0).all()


def test_regions_fill_gaps_before_they_drop_what_is_short() -> None:
    scores = np.zeros(1000)
    for start, end in ((100, 130), (140, 160), (500, 520)):
        scores[start:end] = 0.9
    found = [(round(r.start, 6), round(r.end, 6)) for r in positive_regions(scores, protocol())]
    assert found == [(1.0, 1.3), (1.4, 1.6), (5.0, 5.2)]
    smooth = positive_regions(scores, protocol(min_duration_on_s=0.4, min_duration_off_s=0.2))
    assert [tuple(r) for r in smooth] == [(1.0, 1.6)]
    assert len(positive_regions(np.full(1000, 0.5), protocol())) == 0  # above, not at, the threshold


def points(*turns: tuple[float, float, str]) -> list[float]:
    return change_points(reference(meeting([*turns]).recording))


def test_changes_are_where_the_docstring_draws_them() -> None:
    assert points((0, 5, "A"), (6, 9, "B")) == [5.5]  # the middle of a silence
    assert points((0, 5, "A"), (4.6, 9, "B")) == [pytest.approx(4.8)]  # of a short overlap
    assert points((0, 5, "A"), (4.4, 9, "B")) == []  # overlap of .5 s or more
    assert points((0, 5, "A"), (7.1, 9, "B")) == []  # no window holds both
    assert points((0, 9, "A"), (3, 3.4, "B")) == []  # a word inside another's turn
    assert points((0, 2, "A"), (2.5, 4, "A"), (4, 6, "B"), (6, 8, "A")) == [4.0, 6.0]
    assert points((0, 2, "A")) == []


def test_windows_have_the_labels_of_their_task_wherever_they_begin() -> None:
    overlap = meeting([(0, 10, "A"), (5, 5.6, "B"), (8, 8.3, "B")]).recording
    starts = np.array([0.0, 2.4, 2.6, 5.2, 6.0])  # overlap in the window: 0, .4, .6, .6, .3 s
    assert window_labels("overlap", overlap, starts).tolist() == [False, False, True, True, False]
    change = meeting([(0, 5, "A"), (5, 10, "B")]).recording
    starts = np.array([1.9, 2.6, 3.0, 4.4, 4.6])  # the change at 3.1, 2.4, 2, .6, .4 s of the window
    assert window_labels("speaker_change", change, starts).tolist() == [False, True, True, True, False]


@settings(max_examples=30, deadline=None)
@given(spans)
def test_changes_of_a_meeting_are_changes_of_its_activity(turns: list[tuple[float, float, str]]) -> None:
    spoken: dict[str, list[tuple[float, float]]] = {}
    for start, end, speaker in turns:
        spoken.setdefault(speaker, []).append((start, end))
    changes = np.array([*activity_of(spoken, 30.0).changes_s(), np.inf])
    for point in change_points(reference(meeting(turns).recording)):
        assert np.abs(changes - point).min() <= 0.001


def test_a_result_stands_between_all_positive_and_ideal_and_names_its_clusters() -> None:
    turns = [(0.0, 12.0, "A"), (5.0, 8.0, "B"), (14.0, 20.0, "B"), (19.0, 26.0, "A")]
    evaluation = MeetingEvaluation(protocol())
    for number in range(6):
        one = meeting(turns, name=f"{'ABCDEF'[number]}1")
        evaluation.add(one, np.zeros(3000) if number % 2 else frames_of(Timeline([Segment(5, 8)]), 3000))
    result = evaluation.result()
    assert result.groups == 6
    assert result.all_positive_f1 == pytest.approx(
        2 * 4 / (4 + 30)
    )  # everything positive: 4 of 30 s are right
    assert result.all_positive_f1 < result.ideal_f1 < 1
    assert result.pooled.f1 == pytest.approx(2 * 9 / (9 + 24))
    assert result.interval is not None
    assert result.interval[0] < result.pooled.f1 < result.interval[1]
    assert result.interval == evaluation.result().interval
    document = result.as_json()
    assert document["protocol_digest"] == protocol().digest()
    assert document["few_clusters"] is True


def test_too_few_groups_have_no_interval_and_say_so() -> None:
    evaluation = MeetingEvaluation(protocol())
    for name in ("A1", "A2", "B1"):
        evaluation.add(meeting([(0.0, 9.0, "A"), (5.0, 8.0, "B")], name=name), np.ones(3000))
    result = evaluation.result()
    assert (result.groups, result.interval) == (2, None)
    assert "K = 2" in result.interval_note


def test_meetings_that_share_anybody_are_one_cluster() -> None:
    who = {"ES1a": "AB", "ES1b": "BC", "IB1x": "DE", "IB2x": "FG", "IB3x": "EF", "TS1a": "H"}
    recordings = [
        meeting([(0, 5, s) for s in speakers], name=name).recording for name, speakers in who.items()
    ]
    expected = {
        "ES1a": "ES1",
        "ES1b": "ES1",
        "IB1x": "IB1+2",
        "IB2x": "IB1+2",
        "IB3x": "IB1+2",
        "TS1a": "TS1",
    }
    assert clusters_of(recordings) == clusters_of(recordings[::-1]) == expected


def test_each_field_of_a_protocol_has_its_own_digest() -> None:
    base = protocol()
    others = [
        protocol(collar_s=0.5), protocol(step_s=0.5), protocol(part="test"), protocol(reference="1" * 64),
        protocol(threshold=0.4), protocol(meetings=("M1", "M2")), protocol("speaker_change"),
    ]  # fmt: skip
    digests = {one.digest() for one in (base, *others)}
    assert len(digests) == 8
    assert protocol().digest() == base.digest()
    assert Protocol.model_validate_json(base.model_dump_json()).digest() == base.digest()
    with pytest.raises(
        ValidationError, match=r"a step of 0\.255 s is no multiple of a frame of 0\.01 s: give 0\.2"
    ):
        protocol(step_s=0.255)


def test_the_reference_has_a_digest_whatever_the_order() -> None:
    turns = [(0.0, 9.0, "A"), (5.0, 8.0, "B")]
    one, two = meeting(turns), meeting(turns, name="N1")
    assert reference_digest([one, two]) == reference_digest([two, meeting(turns[::-1])])
    assert reference_digest([one]) != reference_digest([meeting([*turns, (9.0, 9.5, "B")])])
    assert reference_digest([one]) != reference_digest([Meeting(one.recording, ((0.0, 20.0),), one.cluster)])


@pytest.mark.parametrize("task", ["pseudo", "same_speaker", "speaker_count"])
def test_tasks_without_a_moment_are_refused_with_those_that_have_one(task: str) -> None:
    with pytest.raises(ProtocolError, match=rf"a {task} model cannot slide.*overlap, speaker_change"):
        MeetingEvaluation(protocol(task))


@settings(max_examples=20, deadline=None)
@given(samples=st.integers(1, 120_000), step=st.integers(1, 300), batch=st.integers(1, 5))
def test_windows_read_by_seeking_are_slices_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, samples: int, step: int, batch: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.wav"
    whole = np.random.default_rng(samples).integers(-32_768, 32_767, samples, dtype=np.int16)
    soundfile.write(path, whole, 16_000)
    starts = window_starts(samples, FRAME, step)
    read = np.concatenate(list(read_windows(path, starts, FRAME, batch)))
    padded = np.pad(whole, (0, 48_000 + FRAME)).astype(np.float32) / 32_768
    for start, window in zip(starts, read, strict=True):
        assert (window == padded[start * FRAME : start * FRAME + 48_000]).all()


def test_a_long_meeting_is_never_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    samples = 20 * 60 * 16_000
    soundfile.write(path, np.zeros(samples, dtype=np.int16), 16_000)
    starts = window_starts(samples, FRAME, 25)
    tracemalloc.start()
    windows = sum(len(batch) for batch in read_windows(path, starts, FRAME))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert windows == len(starts) == 4 * (20 * 60 - 3) + 1
    assert peak < 20e6  # the file decoded is 77 MB as float32, its windows 922 MB


def test_channels_are_averaged_and_foreign_files_refused(tmp_path: Path) -> None:
    left = np.linspace(-0.5, 0.5, 48_000)
    soundfile.write(
        tmp_path / "stereo.wav", np.stack([left, np.zeros(48_000)], axis=1), 16_000, subtype="FLOAT"
    )
    (windows,) = read_windows(tmp_path / "stereo.wav", np.array([0]), FRAME)
    np.testing.assert_allclose(windows[0], left / 2, atol=1 / 60_000)
    soundfile.write(tmp_path / "fast.wav", left, 44_100)
    with pytest.raises(AudioError, match="at 44100 Hz; resample it to 16000 Hz first"):
        next(read_windows(tmp_path / "fast.wav", np.array([0]), FRAME))
    (tmp_path / "torn.wav").write_bytes(b"RIFF")
    with pytest.raises(AudioError, match=r"torn\.wav is unreadable"):
        next(read_windows(tmp_path / "torn.wav", np.array([0]), FRAME))
