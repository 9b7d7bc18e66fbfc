"""The rules of the diarization tasks, and the windows that are mixed or cut by them."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.corpora.base import Recording, Segment
from data.errors import DataError
from data.labels import LabelMap
from data.parts import SPLITS, Parts
from data.speech import Speech
from data.tasks import TASKS
from data.tasks.activity import activity_of, activity_of_pieces
from data.tasks.assignment import speaker_groups, units_of
from data.tasks.base import Draw, Pool
from data.tasks.diarization import DiarizationTask
from data.tasks.mixing import FADE, Dice
from data.variants import Variant

DIARIZATION = {name: task for name, task in TASKS.items() if isinstance(task, DiarizationTask)}
SAME = Parts(train=("p",), val=("p",), test=("p",))
DRAW = Draw({"train": 60, "val": 24, "test": 24}, seed=0, speakers=None)
NO_LABELS = LabelMap({}, "rank")


def utterance(speaker, chapter, number, seconds=8.0, part="p"):
    samples = round(seconds * 16_000)
    name = f"{speaker}-{chapter}-{number}"
    segment = Segment(0.0, seconds, speaker)
    sex = {speaker: "FM"[int(speaker) % 2]}
    return Recording(name, Path(name), part, chapter, samples, 16_000, (segment,), sex)


def meeting(name, segments, seconds=60.0, part="p"):
    return Recording(
        name, Path(name), part, name, round(seconds * 16_000), 16_000,
        tuple(Segment(*s) for s in segments), {}, conversation=True, group=name[:6],
    )  # fmt: skip


def read_speech(speakers=24, chapters=2, utterances=2):
    return tuple(
        utterance(str(100 + s), f"{s}{c}", u)
        for s in range(speakers)
        for c in range(chapters)
        for u in range(utterances)
    )


def spoken(recordings, level=-30.0):
    """Speech everywhere but in the middle second."""
    return {
        r.key: Speech(((0, r.num_samples // 2 - 8_000), (r.num_samples // 2 + 8_000, r.num_samples)), level)
        for r in recordings
    }


def pool_of(recordings, speech=None):
    known = spoken(recordings) if speech is None else speech
    return Pool("s", ("s",), {"s": SAME}, {"p": recordings}, known)


def plan(task, pool=None, draw=DRAW):
    return task.plan(pool or pool_of(read_speech()), "default", draw, NO_LABELS)


# --- the rules ---------------------------------------------------------------------------------------

A, B = "a", "b"
CASES = {
    "overlap": [
        ({A: [(0, 2)], B: [(1.5, 3)]}, 1),
        ({A: [(0, 2)], B: [(1.501, 3)]}, "overlap shorter than 0.5 s"),
        ({A: [(0, 0.4)], B: [(1, 1.3)]}, 0),
        ({A: [(0, 0.3)]}, "less than 0.5 s of speech"),
        ({A: [(0, 3)], B: [(0.2, 0.4), (1.0, 1.3)]}, 1),  # .2 + .3: half a second in all
    ],
    "same_speaker": [
        ({A: [(0, 1.5)], B: [(1.5, 3)]}, 1),
        ({A: [(0, 1.2), (1.7, 3)]}, 0),
        ({A: [(0, 1.6)], B: [(1.6, 3)]}, "two speakers in one half"),
        ({A: [(0, 1.5), (2.7, 3)]}, "less than 0.5 s of speech in a half"),
    ],
    "speaker_change": [
        ({A: [(0, 1.5)], B: [(1.5, 3)]}, 1),
        ({A: [(0, 0.5)], B: [(0.7, 3)]}, 1),  # in the middle of the pause: .6 s
        ({A: [(0, 0.3)], B: [(0.4, 3)]}, "no change with 0.5 s of speech on each side"),
        ({A: [(0, 2)], B: [(1.5, 3)]}, "overlap of 0.5 s or more"),
        ({A: [(0, 1.7)], B: [(1.5, 3)]}, 1),
        ({A: [(0, 1)]}, 0),
        ({A: [(0, 0.99)]}, "less than 1 s of speech"),
        ({A: [(0, 3)], B: [(1, 1.4)]}, "no change with 0.5 s of speech on each side"),  # A alone before and after
    ],
    "speaker_count": [
        ({A: [(0, 0.5)], B: [(1, 1.5)]}, 1),
        ({A: [(0, 3)], B: [(1, 1.49)]}, "a second speaker shorter than 0.5 s"),
        ({A: [(0, 3)]}, 0),
        ({A: [(0, 0.2)]}, "less than 0.5 s of speech"),
        ({A: [(0, 3)], B: [(0, 3)]}, 1),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "heard", "verdict"), [(name, *case) for name, cases in CASES.items() for case in cases]
)
def test_the_rule_as_science_states_it(name, heard, verdict):
    assert DIARIZATION[name].judge(activity_of(heard)) == verdict


def test_there_are_cases_of_every_task():
    assert set(CASES) == set(DIARIZATION)
    for cases in CASES.values():
        assert {0, 1} <= {verdict for _, verdict in cases}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 290), st.integers(1, 100)), max_size=6))
def test_mirrored_windows_have_the_same_class(turns):
    """No rule knows the direction of time."""

    def heard(mirrored):
        found = defaultdict(list)
        for speaker, start, length in turns:
            first, last = start / 100, min(start + length, 300) / 100
            found[speaker].append((3 - last, 3 - first) if mirrored else (first, last))
        return activity_of(found)

    for task in DIARIZATION.values():
        one, other = task.judge(heard(False)), task.judge(heard(True))
        assert one == other


# --- windows mixed from utterances -------------------------------------------------------------------


@pytest.mark.parametrize("task", DIARIZATION.values(), ids=DIARIZATION.keys())
class TestMixing:
    def test_windows_are_what_the_rule_says_and_half_of_each_class(self, task):
        pool = pool_of(read_speech())
        made = plan(task, pool)
        for split in SPLITS:
            windows = made.splits[split]
            assert len(windows) == DRAW.windows[split]
            assert 2 * sum(w.label for w in windows) == len(windows)
            for window in windows:
                assert task.judge(activity_of_pieces(window.pieces, pool.speech)) == window.label
                assert set(window.speakers) == {p.recording.speaker for p in window.pieces}
                assert window.speaker in window.speakers
        assert not made.unmeasured

    def test_splits_share_no_speaker_and_clusters_no_window(self, task):
        made = plan(task)
        heard = [{s for w in made.splits[split] for s in w.speakers} for split in SPLITS]
        assert all(heard)
        assert not heard[0] & heard[1]
        assert not heard[0] & heard[2]
        assert not heard[1] & heard[2]
        for split in SPLITS[1:]:
            clusters = defaultdict(set)
            for window in made.splits[split]:
                clusters[window.cluster] |= set(window.speakers)
            everyone = [s for speakers in clusters.values() for s in speakers]
            assert len(everyone) == len(set(everyone))  # nobody is heard in two clusters

    def test_both_classes_are_spliced_faded_and_levelled_alike(self, task):
        made = plan(task, draw=Draw({"train": 400, "val": 24, "test": 24}, 0, None))
        by_class = defaultdict(list)
        for window in made.splits["train"]:
            first, second = window.pieces[:2]
            assert first.at_sample == 0
            assert second.at_sample + second.num_samples == 48_000
            assert first.num_samples - second.at_sample == FADE  # one splice, one cross-fade
            assert -32 <= window.level_dbfs <= -20
            by_class[window.label].append(
                (second.at_sample, window.level_dbfs, first.gain_db, second.gain_db)
            )
        for zeros, ones in zip(*(np.array(by_class[label]).T for label in (0, 1)), strict=True):
            spread = np.std([*zeros, *ones]) or 1
            assert abs(zeros.mean() - ones.mean()) < 4 * spread / np.sqrt(len(ones))

    def test_speakers_are_used_evenly_in_each_class(self, task):
        windows = plan(task).splits["train"]
        for label in (0, 1):
            counts = Counter(w.speaker for w in windows if w.label == label)
            assert max(counts.values()) - min(counts.values()) <= 1

    def test_the_plan_does_not_depend_on_what_was_measured_first(self, task):
        recordings = read_speech()
        truth = spoken(recordings)
        whole = plan(task, pool_of(recordings, truth))
        known = {}
        for _ in range(50):
            made = plan(task, pool_of(recordings, known))
            if not made.unmeasured:
                break
            known |= {r.key: truth[r.key] for r in made.unmeasured}
        assert made.splits == whole.splits
        assert made.dropped == whole.dropped

    def test_evaluation_ignores_the_seed_and_training_does_not(self, task):
        one, other = plan(task), plan(task, draw=dataclasses.replace(DRAW, seed=1))
        assert one.splits["val"] == other.splits["val"]
        assert one.splits["test"] == other.splits["test"]
        assert one.splits["train"] != other.splits["train"]

    def test_nobody_stands_for_more_than_fifty_evaluation_windows(self, task):
        most = Draw({"train": 10, "val": 2_000, "test": 10}, 0, None)
        counts = Counter(w.speaker for w in plan(task, draw=most).splits["val"])
        assert max(counts.values()) <= 50


def test_half_of_each_class_of_overlap_has_two_voices_below():
    windows = plan(TASKS["overlap"], draw=Draw({"train": 400, "val": 24, "test": 24}, 0, None)).splits[
        "train"
    ]
    for label in (0, 1):
        two = [len({p.recording.speaker for p in w.pieces[:2]}) == 2 for w in windows if w.label == label]
        assert np.mean(two) == pytest.approx(0.5, abs=0.06)
    assert all(len(w.pieces) == 2 + w.label for w in windows)
    third = [w.pieces[2] for w in windows if w.label]
    assert all(0.75 <= piece.num_samples / 16_000 <= 2.5 for piece in third)
    relative = [
        piece.gain_db - (-25 + 30) for piece in third
    ]  # the utterances are at -30, the nominal level -25
    assert min(relative) >= -5
    assert max(relative) <= 5
    assert max(relative) - min(relative) > 8


def test_half_of_each_class_of_speaker_count_is_a_sum():
    windows = plan(TASKS["speaker_count"]).splits["train"]
    for label in (0, 1):
        assert np.mean([len(w.pieces) == 3 for w in windows if w.label == label]) == pytest.approx(
            0.5, abs=0.1
        )


def test_same_speaker_takes_another_chapter():
    for window in plan(TASKS["same_speaker"]).splits["train"]:
        first, second = (piece.recording for piece in window.pieces)
        if window.label == 0:
            assert first.speaker == second.speaker
            assert first.chapter != second.chapter


def test_same_speaker_flags_one_chapter_and_refuses_one_utterance():
    made = plan(TASKS["same_speaker"], pool_of(read_speech(chapters=1)))
    assert any("have one chapter" in flag for flag in made.flags)
    with pytest.raises(DataError, match="needs two utterances a speaker, and all 112 speakers have one"):
        plan(TASKS["same_speaker"], pool_of(read_speech(speakers=160, chapters=1, utterances=1)))


def test_one_utterance_is_spliced_with_another_stretch_of_itself_and_flagged():
    made = plan(TASKS["overlap"], pool_of(read_speech(speakers=60, chapters=1, utterances=1)))
    assert any("have one utterance" in flag for flag in made.flags)
    for window in made.splits["train"]:
        first, second = window.pieces[:2]
        if first.recording == second.recording:
            starts = sorted(
                [(first.start_sample, first.num_samples), (second.start_sample, second.num_samples)]
            )
            assert starts[0][0] + starts[0][1] <= starts[1][0]  # they share no sample


def test_ambiguous_windows_are_dropped_and_counted():
    recordings = read_speech()
    # Speech is 0.3 s at the start of each utterance: most windows hold too little.
    scarce = {r.key: Speech(((0, 64_000), (100_000, 101_000)), -30.0) for r in recordings}
    made = plan(TASKS["speaker_change"], pool_of(recordings, scarce))
    assert sum(made.dropped["train"].values()) > 10
    assert set(made.dropped["train"]) <= {
        "less than 1 s of speech", "no change with 0.5 s of speech on each side", "of the other class",
    }  # fmt: skip


# --- windows cut from conversations ------------------------------------------------------------------


def conversations():
    """Four groups a part; A and B take turns of 4 s, and B falls in for a second every 12 s."""
    found = []
    for number in range(8):
        name = f"EN{2001 + number}a"
        who = (f"M{number}", f"F{number}")
        turns = [(4.0 * i, 4.0 * i + 4.0, who[i % 2]) for i in range(15)]
        turns += [(1.0 + 12.0 * i, 2.0 + 12.0 * i, who[1]) for i in range(5)]
        found.append(meeting(name, turns))
    return tuple(found)


@pytest.mark.parametrize("task", DIARIZATION.values(), ids=DIARIZATION.keys())
def test_meetings_are_cut_by_the_same_rule(task):
    made = task.plan(Pool("s", ("s",), {"s": SAME}, {"p": conversations()}), "default", DRAW, NO_LABELS)
    for split in SPLITS:
        windows = made.splits[split]
        assert len(windows) >= 4
        assert 2 * sum(w.label for w in windows) == len(windows)
        for window in windows:
            assert task.judge(activity_of_pieces(window.pieces, {})) == window.label
            assert window.level_dbfs is None
            assert window.cluster == window.pieces[0].recording.group
    for split in SPLITS[1:]:  # evaluation windows share no sample; halves stand once in either class
        of_class = [[w for w in made.splits[split] if w.label == label] for label in (0, 1)]
        for windows in of_class if task.name == "same_speaker" else [made.splits[split]]:
            spans = sorted((p.recording.id, p.start_sample, p.num_samples) for w in windows for p in w.pieces)
            assert all(a[0] != b[0] or b[1] >= a[1] + a[2] - FADE for a, b in itertools.pairwise(spans))
    groups = [{w.cluster for w in made.splits[split]} for split in SPLITS]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]


def test_same_speaker_halves_of_a_meeting_are_five_seconds_apart_and_used_once():
    task = TASKS["same_speaker"]
    pairs = list(task.cut(conversations()[0], 48_000))
    assert pairs
    used = defaultdict(list)
    for first, second in pairs:
        assert abs(first.start_sample - second.start_sample) >= 6.5 * 16_000
        label = task.judge(activity_of_pieces((first, second), {}))
        used[label] += [first.start_sample, second.start_sample]
    assert all(len(starts) == len(set(starts)) for starts in used.values())


def test_groups_that_share_a_speaker_stay_together():
    recordings = [
        meeting("EN2001a", [(0, 1, "A"), (1, 2, "B")]),
        meeting("EN2009b", [(0, 1, "B"), (1, 2, "C")]),
        meeting("EN2005a", [(0, 1, "C")]),
        meeting("ES2003a", [(0, 1, "D")]),
    ]
    units = units_of([*recordings, utterance("7", "1", 0)])
    assert units["p/EN2001a"] == units["p/EN2009b"] == units["p/EN2005a"] == "EN2001"
    assert units["p/ES2003a"] == "ES2003"
    assert units["p/7-1-0"] == "7"


@given(st.sets(st.integers(0, 10**6).map(str), max_size=40), st.integers(2, 4))
@settings(max_examples=50)
def test_groups_are_disjoint_and_large_enough(speakers, size):
    groups = speaker_groups(speakers, size)
    assert set(groups) == speakers
    for speaker, group in groups.items():
        assert speaker in group
        assert all(groups[other] == group for other in group)
        assert len(group) >= size or len(speakers) < size
        assert len(group) < 2 * size


def test_dice_depend_on_names_only():
    one, other = Dice("a", 1), Dice("a", 1)
    other_name = Dice("a", 2)
    first = [one.uniform(0, 1) for _ in range(4)]
    assert first == [other.uniform(0, 1) for _ in range(4)]
    assert first != [other_name.uniform(0, 1) for _ in range(4)]


def test_pseudo_of_meetings_is_refused():
    pool = Pool("s", ("s",), {"s": SAME}, {"p": conversations()})
    with pytest.raises(
        DataError, match="made of utterances of one speaker, and subset s holds conversations"
    ):
        TASKS["pseudo"].speakers(pool, "seen", DRAW)


@pytest.mark.parametrize("task", DIARIZATION.values(), ids=DIARIZATION.keys())
def test_a_speaker_is_heard_in_one_voice_in_a_window(task):
    """A shifted voice is nearly another's: spliced with the speaker's own, it would contradict the label."""
    recordings = read_speech()

    def varied(recording):
        for variant in (Variant(2.0, 1.0), Variant(-2.0, 1.1)):
            yield dataclasses.replace(recording, id=f"{recording.id}~{variant.name}", variant=variant)

    pool = dataclasses.replace(pool_of(recordings, {}), varied=varied)
    made = plan(task, pool)
    voices = [p.recording.variant for w in made.splits["train"] for p in w.pieces]
    assert len(set(voices)) == 3
    for window in made.splits["train"]:
        for speaker in window.speakers:
            own = {p.recording.variant for p in window.pieces if p.recording.speaker == speaker}
            assert len(own) == 1
    assert all(
        p.recording.variant is None for split in SPLITS[1:] for w in made.splits[split] for p in w.pieces
    )
