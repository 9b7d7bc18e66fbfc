from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from data.parts import SPLITS
from data.tasks.splits import (
    choose_speakers,
    round_robin,
    shortest_chapters,
    split_speakers,
    split_utterances,
)

ids = st.text("0123456789", min_size=1, max_size=4)
sexes = st.dictionaries(ids, st.sampled_from(["F", "M"]), min_size=1, max_size=60)
chapters = st.dictionaries(ids, st.dictionaries(ids, st.integers(48_000, 10**6), max_size=5), max_size=10)


@given(chapters)
def test_the_two_shortest_chapters_are_evaluated(samples):
    # Chapter ids are made unique, as they are in a corpus.
    samples = {s: {f"{s}/{c}": n for c, n in of.items()} for s, of in samples.items()}
    splits = shortest_chapters(samples)
    for of in samples.values():
        dealt = [splits[chapter] for chapter in of if chapter in splits]
        if len(of) < 3:
            assert not dealt
            continue
        assert Counter(dealt) == Counter(train=len(of) - 2, val=1, test=1)
        longest_evaluated = max(n for chapter, n in of.items() if splits[chapter] != "train")
        assert all(n >= longest_evaluated for chapter, n in of.items() if splits[chapter] == "train")


def test_which_short_chapter_is_the_test_is_not_always_the_shorter():
    samples = {str(s): {f"{s}/a": 1, f"{s}/b": 2, f"{s}/c": 3} for s in range(40)}
    splits = shortest_chapters(samples)
    assert {splits[f"{s}/a"] for s in range(40)} == {"val", "test"}


@given(st.dictionaries(ids, st.integers(0, 30), max_size=10))
def test_utterances_are_dealt_60_20_20_with_one_each_at_least(counts):
    splits = split_utterances({s: [f"{s}-{i}" for i in range(n)] for s, n in counts.items()})
    for speaker, n in counts.items():
        dealt = Counter(splits.get(f"{speaker}-{i}") for i in range(n))
        if n < 3:
            assert set(dealt) <= {None}
        else:
            assert dealt["val"] == dealt["test"] >= 1 <= dealt["train"]
            assert abs(dealt["val"] - n / 5) <= 0.8  # n = 3: one where a fifth is .6; rounding: .5


@given(sexes)
def test_speakers_are_dealt_within_each_sex(sex):
    splits = split_speakers(sex, SPLITS)
    assert set(splits) == set(sex)
    for one in ("F", "M"):
        dealt = Counter(splits[s] for s in sex if sex[s] == one)
        n = sum(dealt.values())
        if n >= 3:
            assert min(dealt[split] for split in SPLITS) >= 1
            assert abs(dealt["val"] - 0.15 * n) <= 0.55 + 0.0001
            assert dealt["val"] == dealt["test"]


def test_a_part_of_two_splits_is_dealt_in_halves_and_of_one_not_at_all():
    sex = {str(i): "FM"[i % 2] for i in range(40)}
    assert Counter(split_speakers(sex, ("val", "test")).values()) == Counter(val=20, test=20)
    assert set(split_speakers(sex, ("test",)).values()) == {"test"}


@given(sexes, st.integers(1, 70))
def test_a_limit_takes_sexes_evenly_and_keeps_its_choice_when_it_grows(sex, limit):
    chosen = choose_speakers(sex, limit, {})
    assert len(chosen) == min(limit, len(sex))
    counts = Counter(sex[s] for s in chosen)
    every = Counter(sex.values())
    fewer = min(counts["F"], counts["M"])
    assert abs(counts["F"] - counts["M"]) <= 1 or fewer in (every["F"], every["M"])
    assert chosen <= choose_speakers(sex, limit + 1, {})


def test_a_limit_prefers_speakers_of_merit():
    sex = dict.fromkeys(map(str, range(30)), "F")
    merit = {str(i): 0 if i >= 20 else 1 for i in range(30)}
    assert choose_speakers(sex, 10, merit) == {str(i) for i in range(20, 30)}


def test_round_robin():
    assert round_robin([["a", "b", "c"], [], ["d"]]) == ["a", "d", "b", "c"]
