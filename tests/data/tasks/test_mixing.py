"""Windows mixed from utterances: what the rule says, and nothing else that tells the class."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest

from data.audio.speech_activity import Speech
from data.audio.voice_variants import Variant
from data.errors import DataError
from data.parts import SPLITS
from data.tasks import TASKS
from data.tasks.activity import activity_of_pieces
from data.tasks.base import Draw
from data.tasks.mixing import FADE
from tests.data.task_pools import (
    DIARIZATION,
    DRAW,
    plan,
    pool_of,
    read_speech,
    spoken,
    utterance,
)

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
            by_class[window.label].append((window.speaker, second.at_sample, window.level_dbfs))
        # Not alike on average: the very same splices and levels, speaker by speaker.
        assert sorted(by_class[0]) == sorted(by_class[1])

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


# --- what nothing but the question may tell ------------------------------------------------------------


def uneven_speech():
    """Speakers with one utterance, short or long, with several of one chapter, and with several chapters."""
    found = []
    for number in range(60):
        speaker = str(100 + number)
        many, chapters = [(1, 1), (2, 1), (4, 2)][number % 3]
        seconds = [4.0, 8.0, 14.0][number % 3] if number % 2 else 14.0
        found += [utterance(speaker, f"{speaker}{u % chapters}", u, seconds) for u in range(many)]
    return tuple(found)


@pytest.mark.parametrize("task", DIARIZATION.values(), ids=DIARIZATION.keys())
class TestOnlyTheQuestion:
    def test_the_same_speakers_stand_in_both_classes_equally_often(self, task):
        made = plan(task, pool_of(uneven_speech()), Draw({"train": 400, "val": 24, "test": 24}, 0, None))
        counts = [Counter(w.speaker for w in made.splits["train"] if w.label == label) for label in (0, 1)]
        assert counts[0].keys() == counts[1].keys()
        assert all(abs(counts[0][speaker] - counts[1][speaker]) <= 1 for speaker in counts[0])
        assert any("are left out" in flag for flag in made.flags)

    def test_no_two_pieces_of_a_window_share_a_sample(self, task):
        made = plan(task, pool_of(uneven_speech()), Draw({"train": 400, "val": 24, "test": 24}, 0, None))
        for split in SPLITS:
            for window in made.splits[split]:
                for one, other in itertools.combinations(window.pieces, 2):
                    if one.recording.key == other.recording.key:
                        first, second = sorted((one, other), key=lambda piece: piece.start_sample)
                        assert first.start_sample + first.num_samples <= second.start_sample

    def test_everybody_in_a_window_is_varied_or_nobody_in_both_classes_alike(self, task):
        """A shifted voice beside one's own would contradict the label; beside another's it would give it away."""
        variants = (Variant(2.0, 1.0), Variant(-2.0, 1.1))

        def varied(recording):
            return [
                dataclasses.replace(recording, id=f"{recording.id}~{v.name}", variant=v) for v in variants
            ]

        pool = dataclasses.replace(pool_of(read_speech(), {}), varied=varied)
        made = plan(task, pool, Draw({"train": 300, "val": 24, "test": 24}, 0, None))
        shares = [Counter(), Counter()]
        for window in made.splits["train"]:
            heard = {piece.recording.variant for piece in window.pieces}
            assert len(heard) == 1
            shares[window.label] += Counter(heard)
        assert shares[0] == shares[1]
        assert set(shares[0]) == {None, *variants}
        evaluated = [p for split in SPLITS[1:] for w in made.splits[split] for p in w.pieces]
        assert all(piece.recording.variant is None for piece in evaluated)

    def test_a_limit_of_speakers_is_one_of_training(self, task):
        whole = plan(task, pool_of(read_speech(speakers=40)))
        few = plan(task, pool_of(read_speech(speakers=40)), dataclasses.replace(DRAW, speakers=6))
        assert len({s for w in few.splits["train"] for s in w.speakers}) == 6
        assert [few.splits[split] for split in SPLITS[1:]] == [whole.splits[split] for split in SPLITS[1:]]
