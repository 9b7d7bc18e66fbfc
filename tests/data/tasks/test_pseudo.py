from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.corpora.base import Recording, Segment
from data.labels import build_label_map
from data.parts import SPLITS, Parts
from data.tasks.base import Draw, Pool, whole
from data.tasks.draws import draw_evaluation, draw_training, evenly
from data.tasks.pseudo import Pseudo

TASK = Pseudo()
DRAW = Draw({"train": 400, "val": 60, "test": 60}, seed=0, speakers=None)


def recording(part, speaker, chapter, utterance, windows=2, sex="F"):
    return Recording(
        id=f"{speaker}-{chapter}-{utterance}",
        path=Path(f"{part}-{speaker}-{chapter}-{utterance}.wav"),
        part=part,
        chapter=str(chapter),
        num_samples=windows * 48_000 + 77,
        sample_rate=16_000,
        segments=(Segment(0.0, 3.0 * windows, speaker),),
        sex={speaker: sex},
    )


def part_of(name, speakers=20, chapters=3, utterances=2, first=0):
    return tuple(
        recording(name, str(first + s), f"{first + s}{c}", u, windows=4 if c == 0 else 2, sex="FM"[s % 2])
        for s in range(speakers)
        for c in range(chapters)
        for u in range(utterances)
    )


def same(*names):
    return Parts(train=names, val=names, test=names)


def demo_like(subset, evaluated):
    parts = {"clean": same("clean"), "other": same("other")}
    by_part = {name: part_of(name) for name in parts}
    return Pool(subset, evaluated, parts, by_part)


def plan(pool, variant="seen", draw=DRAW):
    label_map = build_label_map("rank", TASK.speakers(pool, variant, draw))
    return TASK.plan(pool, variant, draw, label_map)


def identity(windows):
    return [(w.key, w.label, w.speaker) for w in windows]


@pytest.mark.parametrize("variant", ["seen", "unseen"])
@pytest.mark.parametrize("subset", ["clean", "other"])
@pytest.mark.parametrize("evaluated", [("clean",), ("other",), ("clean", "other")])
def test_splits_share_nothing_that_the_rule_forbids(variant, subset, evaluated):
    made = plan(demo_like(subset, evaluated), variant)
    units = {
        "seen": lambda w: (w.speaker, w.pieces[0].recording.chapter),
        "unseen": lambda w: w.speaker,
    }[variant]
    seen = [{units(w) for w in made.splits[split]} for split in SPLITS]
    assert all(seen)
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]
    assert {w.pieces[0].recording.part for w in made.splits["train"]} == {subset}


@pytest.mark.parametrize("variant", ["seen", "unseen"])
@pytest.mark.parametrize("evaluated", [("clean",), ("other",), ("clean", "other")])
def test_evaluation_does_not_depend_on_the_training_subset(variant, evaluated):
    plans = [plan(demo_like(subset, evaluated), variant) for subset in ("clean", "other")]
    for split in ("val", "test"):
        assert identity(plans[0].splits[split]) == identity(plans[1].splits[split])


@pytest.mark.parametrize("variant", ["seen", "unseen"])
def test_evaluation_depends_on_no_seed_and_training_does(variant):
    pool = demo_like("clean", ("clean",))
    small = [Draw({"train": 40, "val": 60, "test": 60}, seed, None) for seed in (0, 1)]
    plans = [plan(pool, variant, draw) for draw in small]
    assert identity(plans[0].splits["val"]) == identity(plans[1].splits["val"])
    assert identity(plans[0].splits["train"]) != identity(plans[1].splits["train"])


def test_pooled_subsets_are_evaluated_equally():
    made = plan(demo_like("clean", ("clean", "other")))
    for split in ("val", "test"):
        counts = Counter((w.pieces[0].recording.part, w.label) for w in made.splits[split])
        assert len(counts) == 4
        assert len(set(counts.values())) == 1


def test_speakers_with_two_chapters_are_left_out_and_flagged():
    by_part = {"p": part_of("p", 12) + part_of("p", 5, chapters=2, first=50)}
    made = plan(Pool("s", ("s",), {"s": same("p")}, by_part))
    assert made.split_rule == "chapter-disjoint"
    assert made.flags == ("5 of 17 speakers lack 3 chapters that hold a window and are left out",)
    assert {int(w.speaker) for split in SPLITS for w in made.splits[split]} == set(range(12))


def test_too_few_speakers_with_chapters_fall_back_to_utterances_flagged():
    by_part = {"p": part_of("p", 9) + part_of("p", 5, chapters=1, utterances=6, first=50)}
    made = plan(Pool("s", ("s",), {"s": same("p")}, by_part))
    assert made.split_rule == "utterance-disjoint"
    assert made.flags[0].startswith("utterance-disjoint fallback: 9 of 14 speakers have 3 chapters")
    assert len({w.speaker for w in made.splits["val"]}) == 14
    utterances = [{w.pieces[0].recording.id for w in made.splits[split]} for split in SPLITS]
    assert not utterances[0] & utterances[1]
    assert not (utterances[0] | utterances[1]) & utterances[2]


def test_fewer_than_ten_speakers_need_no_fallback_when_all_have_chapters():
    made = plan(Pool("s", ("s",), {"s": same("p")}, {"p": part_of("p", 4)}))
    assert made.split_rule == "chapter-disjoint"
    assert not made.flags


def test_unseen_takes_each_split_from_its_own_part():
    parts = {"s": Parts(train=("a",), val=("b",), test=("c",))}
    by_part = {name: part_of(name, first=100 * i) for i, name in enumerate("abc")}
    made = plan(Pool("s", ("s",), parts, by_part), "unseen")
    for split, part in zip(SPLITS, "abc", strict=True):
        assert {w.pieces[0].recording.part for w in made.splits[split]} == {part}
        assert len({w.speaker for w in made.splits[split]}) == 20


def test_unseen_never_trains_on_a_speaker_that_another_part_evaluates():
    parts = {"s": Parts(train=("a",), val=("b",), test=("c",))}
    by_part = {"a": part_of("a"), "b": part_of("b", first=15), "c": part_of("c", first=200)}
    made = plan(Pool("s", ("s",), parts, by_part), "unseen")
    speakers = [{w.speaker for w in made.splits[split]} for split in SPLITS]
    assert not speakers[0] & speakers[1]
    assert made.flags == ("5 speakers stand in parts of several splits and are used for evaluation only",)


def test_unseen_classes_are_even_within_each_split_and_sex():
    made = plan(demo_like("clean", ("clean",)), "unseen")
    for split in SPLITS:
        per = {w.speaker: (w.pieces[0].recording.sex[w.speaker], w.label) for w in made.splits[split]}
        counts = Counter(per.values())
        for sex in "FM":
            assert abs(counts[sex, 0] - counts[sex, 1]) <= 1


@pytest.mark.parametrize("variant", ["seen", "unseen"])
def test_a_limit_on_speakers_holds(variant):
    made = plan(demo_like("clean", ("clean",)), variant, Draw(DRAW.windows, 0, 12))
    if variant == "seen":  # the same speakers in all splits
        assert len({w.speaker for split in SPLITS for w in made.splits[split]}) == 12
    else:  # evaluation takes everybody: it depends on no number that somebody may search over
        whole = plan(demo_like("clean", ("clean",)), variant)
        assert len({w.speaker for w in made.splits["train"]}) == 12
        assert [made.splits[split] for split in SPLITS[1:]] == [whole.splits[split] for split in SPLITS[1:]]


def test_a_recording_without_a_whole_window_gives_none():
    short = tuple(recording("p", str(s), f"{s}{c}", 9, windows=0) for s in range(12) for c in range(3))
    pool = Pool("s", ("s",), {"s": same("p")}, {"p": part_of("p", 12) + short})
    made = plan(pool)
    assert all(w.pieces[0].recording.num_samples >= 48_000 for split in SPLITS for w in made.splits[split])


windows = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3), st.integers(0, 90)), unique=True).map(
    lambda rows: [
        whole(recording("p", str(s), f"{s}{c}", 0, windows=99), 48_000 * i, s % 2, "s") for s, c, i in rows
    ]
)


@given(windows, st.integers(2, 80))
@settings(max_examples=60)
def test_training_windows_are_half_of_each_class_and_use_speakers_evenly(pool, most):
    drawn = draw_training(pool, most, seed=3)
    labels = Counter(w.label for w in drawn)
    available = Counter(w.label for w in pool)
    assert labels[0] == labels[1] == min(most // 2, available[0], available[1])
    assert len({w.key for w in drawn}) == len(drawn)
    assert all(abs(2 * sum(w.label for w in drawn[:i]) - i) <= 1 for i in range(len(drawn)))
    per, has = Counter(w.speaker for w in drawn), Counter(w.speaker for w in pool)
    for label in (0, 1):
        of_class = [s for s in has if int(s) % 2 == label]
        most_used = max((per[s] for s in of_class), default=0)
        assert all(per[s] >= most_used - 1 or per[s] == has[s] for s in of_class)


@given(windows, windows, st.integers(2, 80))
@settings(max_examples=60)
def test_evaluation_windows_are_half_of_each_class_and_at_most_50_a_speaker(one, two, most):
    for pools in ({"a": one}, {"a": one, "b": two}):
        drawn = draw_evaluation(pools, most)
        assert len(drawn) <= most
        assert 2 * sum(w.label for w in drawn) == len(drawn)
        assert max(Counter(w.speaker for w in drawn).values(), default=0) <= 50


def test_evenly_as_its_docstring_draws_it():
    rows = [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("c", 0), ("c", 1)]
    pool = [whole(recording("p", s, "1", 0, 9), 48_000 * i, 0, "s") for s, i in rows]
    speakers = [w.speaker for w in evenly(pool, seed=0)]
    assert set(speakers[:3]) == {"a", "b", "c"}
    assert set(speakers[3:5]) == {"a", "c"}
    assert speakers[5] == "a"
