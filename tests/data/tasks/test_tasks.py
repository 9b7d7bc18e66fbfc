"""The rules of the diarization tasks, and windows cut from conversations by them."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DataError
from data.parts import SPLITS
from data.tasks import TASKS
from data.tasks.activity import activity_of, activity_of_pieces
from data.tasks.base import Pool, whole
from data.tasks.draws import at_most_each
from data.tasks.mixing import FADE, HashedRandom
from data.tasks.splits import speaker_groups, units_of
from tests.data.task_pools import (
    DIARIZATION,
    DRAW,
    NO_LABELS,
    SAME,
    meeting,
    utterance,
)

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
            assert window.cluster == window.pieces[0].recording.group  # these groups share nobody
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
    one, other = HashedRandom("a", 1), HashedRandom("a", 1)
    other_name = HashedRandom("a", 2)
    first = [one.uniform(0, 1) for _ in range(4)]
    assert first == [other.uniform(0, 1) for _ in range(4)]
    assert first != [other_name.uniform(0, 1) for _ in range(4)]


def test_pseudo_of_meetings_is_refused():
    pool = Pool("s", ("s",), {"s": SAME}, {"p": conversations()})
    with pytest.raises(
        DataError, match="made of utterances of one speaker, and subset s holds conversations"
    ):
        TASKS["pseudo"].speakers(pool, "seen", DRAW)


def test_meetings_that_share_a_speaker_are_one_cluster():
    turns = [(4.0 * i, 4.0 * i + 4.0, ("MA", "FB")[i % 2]) for i in range(15)]
    other = [(start, end, {"MA": "MA", "FB": "FC"}[who]) for start, end, who in turns]
    recordings = [meeting("IB4001", turns), meeting("IB4002", other), *conversations()]
    made = TASKS["speaker_change"].plan(
        Pool("s", ("s",), {"s": SAME}, {"p": tuple(recordings)}), "default", DRAW, NO_LABELS
    )
    windows = [w for split in SPLITS for w in made.splits[split] if "MA" in w.speakers]
    assert {w.cluster for w in windows} == {"IB4001"}
    assert {w.pieces[0].recording.id for w in windows} == {"IB4001", "IB4002"}


def test_nothing_outside_the_scored_part_is_labelled():
    scored = [dataclasses.replace(m, scored=((10.0, 31.0),)) for m in conversations()]
    made = TASKS["overlap"].plan(
        Pool("s", ("s",), {"s": SAME}, {"p": tuple(scored)}), "default", DRAW, NO_LABELS
    )
    for split in SPLITS:
        for piece in (p for w in made.splits[split] for p in w.pieces):
            assert 10 * 16_000 <= piece.start_sample <= 28 * 16_000
        assert made.dropped[split]["outside the scored part"] > 0


heard_windows = st.lists(st.sets(st.sampled_from("abcd"), min_size=1, max_size=3), max_size=40).map(
    lambda heard: [
        dataclasses.replace(whole(utterance("7", "1", 0), i, 0, "s"), speakers=tuple(sorted(speakers)))
        for i, speakers in enumerate(heard)
    ]
)


@given(heard_windows, heard_windows, st.integers(1, 6))
@settings(max_examples=60)
def test_nobody_is_heard_more_often_than_the_cap(zeros, ones, cap):
    kept = at_most_each(zeros, ones, cap)
    assert abs(len(kept[0]) - len(kept[1])) <= 1
    heard = Counter(s for windows in kept for w in windows for s in w.speakers)
    assert max(heard.values(), default=0) <= cap
