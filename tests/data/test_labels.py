import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DataError
from data.labels import LABEL_RULES, LabelMap, Speaker, build_label_map, rank_labels

speakers = st.dictionaries(
    st.text("0123456789é", min_size=1, max_size=4),
    st.tuples(st.sampled_from(["F", "M", "unknown"]), st.sampled_from(["train", "val"])),
    max_size=40,
).map(lambda of: [Speaker(i, sex, group) for i, (sex, group) in of.items()])


@given(speakers, st.randoms())
def test_rank_is_a_function_of_the_set_of_speakers(given_speakers, random):
    shuffled = list(given_speakers)
    random.shuffle(shuffled)
    maps = [build_label_map("rank", order) for order in (given_speakers, shuffled)]
    assert maps[0].classes == maps[1].classes
    assert maps[0].digest == maps[1].digest


@given(speakers)
def test_rank_is_even_in_every_group_and_in_every_sex_of_it(given_speakers):
    classes = rank_labels(given_speakers)
    for key in (lambda s: s.group, lambda s: (s.group, s.sex)):
        counts: dict[object, Counter[int]] = {}
        for speaker in given_speakers:
            counts.setdefault(key(speaker), Counter())[classes[speaker.id]] += 1
        assert all(abs(count[0] - count[1]) <= 1 for count in counts.values())


@given(speakers)
def test_a_group_does_not_depend_on_the_other_groups(given_speakers):
    alone = rank_labels([speaker for speaker in given_speakers if speaker.group == "val"])
    together = rank_labels(given_speakers)
    assert alone == {speaker: together[speaker] for speaker in alone}


def test_rank_as_its_docstring_draws_it():
    given = [
        Speaker(i, sex, "g") for i, sex in [("30", "F"), ("12", "F"), ("18", "M"), ("17", "F"), ("14", "M")]
    ]
    assert rank_labels(given) == {"12": 0, "17": 1, "30": 0, "14": 1, "18": 0}


@given(speakers)
@settings(max_examples=30)
def test_a_map_survives_its_file(tmp_path_factory, given_speakers):
    path = tmp_path_factory.mktemp("map") / "label_map.json"
    label_map = build_label_map("rank", given_speakers)
    label_map.save(path)
    assert LabelMap.load(path) == label_map


def test_a_changed_file_is_refused(tmp_path):
    path = tmp_path / "label_map.json"
    build_label_map("rank", [Speaker("1", "F", "g"), Speaker("2", "M", "g")]).save(path)
    content = json.loads(path.read_text())
    content["classes"]["1"] = 1 - content["classes"]["1"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="was changed"):
        LabelMap.load(path)


@pytest.mark.parametrize(
    ("classes", "message"),
    [({"1": 2, "2": 0}, "gave speaker 1 the class 2"), ({"1": 0}, "must give a class to each speaker")],
)
def test_a_rule_must_give_each_speaker_a_class(monkeypatch, classes, message):
    monkeypatch.setitem(LABEL_RULES, "broken", lambda speakers: classes)
    with pytest.raises(DataError, match=message):
        build_label_map("broken", [Speaker("1", "F", "g"), Speaker("2", "M", "g")])


def test_an_unknown_rule_is_named():
    with pytest.raises(DataError, match="did you mean 'rank'"):
        build_label_map("ranks", [])
