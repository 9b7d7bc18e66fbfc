import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import nearest
from harness.config.files.sweep_loader import read_sweep_file
from harness.config.files.yaml_file import SweepError, YamlFile
from harness.config.files.yaml_reader import MAX_DEPTH, parse_yaml


def values(text: str) -> Any:
    document = parse_yaml(text)
    assert document.mistakes == []
    return document.values


def said(text: str) -> list[tuple[int | None, str]]:
    return [(mistake.line, mistake.message) for mistake in parse_yaml(text).mistakes]


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("1e-3", 0.001),  # a string in YAML 1.1
        ("1E5", 100000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-0.25", -0.25),
        ("0o17", 15),
        ("0x1F", 31),
        ("017", 17),  # 15 in YAML 1.1
        ("+12", 12),
        ("1_000", "1_000"),  # 1000 in YAML 1.1
        ("12:30:45", "12:30:45"),  # 45045 in YAML 1.1
        ("2024-01-01", "2024-01-01"),  # a date in YAML 1.1
        ("yes", "yes"),
        ("off", "off"),
        ("n", "n"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("'1'", "1"),
        ('"null"', "null"),
        ("e3", "e3"),
        ("0x", "0x"),
        ("=", "="),
    ],
)
def test_a_word_means_what_yaml_1_2_says(word: str, meaning: object) -> None:
    found = values(f"key: {word}")["key"]
    assert found == meaning
    assert type(found) is type(meaning)


def test_not_a_number_is_a_float() -> None:
    assert math.isnan(values(".nan"))


def test_a_directive_does_not_bring_yaml_1_1_back() -> None:
    assert values("%YAML 1.1\n---\na: yes\nb: 1e-3\n") == {"a": "yes", "b": 0.001}


def test_every_key_has_its_line() -> None:
    document = parse_yaml("name: x\n\n# note\ndata:\n  subset: clean\nlist:\n  - 1\n  - {a: 2}\n")
    assert document.lines == {
        ("name",): 1, ("data",): 4, ("data", "subset"): 5, ("list",): 6,
        ("list", 0): 7, ("list", 1): 8, ("list", 1, "a"): 8,
    }  # fmt: skip


def test_a_byte_order_mark_and_crlf_are_no_content(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: x\r\nseed: 1\r\n")
    assert read_sweep_file(path).values == {"name": "x", "seed": 1}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "stands twice, here and in line 1"),
        ("a: {x: 1,\n  'x': 2}\n", 2, "stands twice"),
        ("a: &x 1\nb: *x\n", 2, "the alias *x is not allowed: write it out"),
        ("a: &x [*x]\n", 1, "alias *x"),
        ("a: 1\nb: !!python/object:os.system {}\n", 2, "the tag !!python/object:os.system is not allowed"),
        ("a: !!int '3'\n", 1, "the tag !!int is not allowed"),
        ("a: 1\n--- \nb: 2\n", 2, "a second document"),
        ("a: 1\n? [x, y]\n: 2\n", 2, "a key must be a plain name"),
        ("a: [1, 2\n", 2, "not valid YAML"),
        ("a: 1\n\tb: 2\n", 2, "not valid YAML"),
        ("a: 'x\n", 2, "not valid YAML"),
        ("a: 1\n b: 2\n", 2, "not valid YAML"),
        ("a: \x07\n", 1, "holds the character U+0007"),
        ('a: "\\ud800"\n', 1, "holds a character"),
        ('a: "x\\0"\n', 1, "holds a character"),
        ("a: " + "9" * 5000, 1, "a number of 5000 digits"),
        ("a: " + "[" * (MAX_DEPTH + 5), 1, f"nested more than {MAX_DEPTH} levels deep"),
    ],
)
def test_what_is_refused_names_its_line(text: str, line: int | None, message: str) -> None:
    (found_line, found), *_ = said(text)
    assert found_line == line
    assert message in found


def test_mistakes_that_can_be_read_past_are_all_told() -> None:
    assert [line for line, _ in said("a: 1\na: 2\nb: !t x\nc: *d\nd: [\n")] == [2, 3, 4, 6]


@pytest.mark.parametrize("text", ["[" * 60_000, "{a: " * 15_000, "- " * 30_000, "? " * 30_000])
def test_deep_nesting_is_refused_at_once(text: str) -> None:
    began = time.process_time()  # of this process: whoever else is busy
    assert "levels deep" in " ".join(message for _, message in said(text))
    assert time.process_time() - began < 5  # seconds; walking every level takes minutes


def test_aliases_do_not_multiply() -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + k)}: &{chr(98 + k)} [*{chr(97 + k)}, *{chr(97 + k)}]\n" for k in range(20)
    )
    assert len(said(bomb)) == 40


YAML_ISH = st.text(st.sampled_from(list("ab:[]{}-? \n\t'\"&*!#%|>,~0123.e\\ud8é<=")), max_size=60) | st.text(
    max_size=40
)


@given(YAML_ISH)
def test_any_text_gives_plain_values_or_mistakes(text: str) -> None:
    document = parse_yaml(text)

    def walk(value: Any) -> None:
        if type(value) is dict:
            assert all(type(key) is str for key in value)
            for inner in value.values():
                walk(inner)
        elif type(value) is list:
            for inner in value:
                walk(inner)
        else:
            assert value is None or type(value) in (bool, int, float, str)

    walk(document.values)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("abcXYZ012 .:#-_é'\"\\", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abcdef", max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text("abcdef", max_size=5), PLAIN, max_size=4))
def test_what_json_says_yaml_says_too(content: dict[str, Any]) -> None:
    import json

    assert values(json.dumps(content)) == content


@given(st.binary(max_size=60))
def test_any_bytes_give_a_file_or_a_sweep_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "s.yaml"
    path.write_bytes(content)
    with suppress(SweepError):
        assert isinstance(read_sweep_file(path).values, dict)


# Files


def refusal(path: Path) -> str:
    with pytest.raises(SweepError) as caught:
        read_sweep_file(path)
    return str(caught.value)


def test_an_absent_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text("name: x")
    assert "did you mean" in refusal(tmp_path / "quikstart.yaml")
    assert "there is quickstart.yaml" in refusal(tmp_path / "zzz")


def test_names_that_no_file_has_are_refused(tmp_path: Path) -> None:
    assert "`harness init` writes one" in refusal(tmp_path / "zzz")
    assert refusal(tmp_path / "absent" / "x.yaml")
    assert refusal(Path("nul\0byte.yaml"))
    assert refusal(tmp_path / ("x" * 5000))


# Overrides


def overridden(text: str, *assignments: str) -> dict[str, Any]:
    document = parse_yaml(text)
    file = YamlFile("s.yaml", document.values or {}, document.lines)
    file.override(assignments)
    return file.values


@pytest.mark.parametrize(
    ("text", "assignment", "after"),
    [
        ("", "budget.trials=20", {"budget": {"trials": 20}}),
        ("budget:\n", "budget.trials=20", {"budget": {"trials": 20}}),
        ("budget: {trials: 1, hours: 2}", "budget.trials=20", {"budget": {"trials": 20, "hours": 2}}),
        ("", "parameters.mfcc.n_mfcc=20", {"parameters": {"mfcc.n_mfcc": 20}}),
        ("", "parameters.feature=[mfcc, log_mel]", {"parameters": {"feature": ["mfcc", "log_mel"]}}),
        (
            "",
            "parameters.learning_rate={float: [1e-4, 1e-2]}",
            {"parameters": {"learning_rate": {"float": [1e-4, 1e-2]}}},
        ),
        ("sampler: tpe", "sampler.type=random", {"sampler": {"type": "random"}}),
        ("sampler: tpe", "sampler.startup_trials=3", {"sampler": {"type": "tpe", "startup_trials": 3}}),
        (
            "sampler: {type: tpe, startup_trials: 3}",
            "sampler.type=grid",
            {"sampler": {"type": "grid", "startup_trials": 3}},
        ),
        ("", "sampler=grid", {"sampler": "grid"}),
        ("seed: 1", " seed = 2", {"seed": 2}),
        ("workers: 2", "workers=", {"workers": None}),
        ("", "name=2024", {"name": "2024"}),
        ("", "description=a: b = c", {"description": "a: b = c"}),
        ("", "data.evaluate_on=[clean]", {"data": {"evaluate_on": ["clean"]}}),
    ],
)
def test_set_changes_one_field(text: str, assignment: str, after: dict[str, Any]) -> None:
    assert overridden(text, assignment) == after


def test_the_last_of_two_sets_wins() -> None:
    assert overridden("seed: 0", "seed=1", "seed=2") == {"seed": 2}


def test_every_bad_set_is_told_at_once() -> None:
    with pytest.raises(SweepError) as caught:
        overridden(
            "seed: 0\nsampler: tpe", "seed", "=3", "seed.x=1", "budget.trials=[1", "a=*b", "a={x: 1, x: 2}"
        )
    told = str(caught.value)
    assert told.startswith("--set: 6 mistakes")
    assert "seed: write key=value, for example budget.trials=20" in told
    assert "seed.x: seed is 0 and has no keys to set" in told
    assert "budget.trials: not valid YAML" in told
    assert "the alias *b" in told
    assert "stands twice" in told


def test_a_mistake_in_a_set_value_is_not_blamed_on_a_line() -> None:
    document = parse_yaml("name: x\nbudget:\n  trials: 3\n")
    file = YamlFile("s.yaml", document.values, document.lines)
    file.override(["budget.trials=0"])
    assert str(file.problem(("budget", "trials"), "m")) == "--set budget.trials: m"
    assert str(file.problem(("budget", "hours"), "m")) == "line 2: budget.hours: m"


@given(st.text(max_size=20))
def test_any_assignment_is_applied_or_refused(assignment: str) -> None:
    with suppress(SweepError):
        assert overridden("data: {seed: 1}\nsampler: tpe", assignment)


def test_the_nearest_name_does_not_depend_on_case_or_order() -> None:
    assert nearest("MFCC", ["log_mel", "mfcc"]) == "mfcc"
    assert nearest("quick", []) is None
    assert nearest("ab", ["abd", "abc"]) == nearest("ab", ["abc", "abd"])
