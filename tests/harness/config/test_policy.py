"""Policies: the two that ship, files of one's own, and every mistake named with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config.files.policy_file import load_policy
from harness.config.files.yaml_reader import parse_yaml
from harness.config.policy import FOLDER, POLICIES, SECTIONS, Policy, PolicyError, policy_schema
from harness.promotion.guards.guard import Guard, Level, refuses

DEFAULT, PRODUCTION = (load_policy(name) for name in POLICIES)
SCHEMA = jsonschema.Draft202012Validator(policy_schema())


def written(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refused(folder: Path, text: str) -> str:
    with pytest.raises(PolicyError) as error:
        load_policy(written(folder, text))
    return str(error.value)


def guard(level: Level, ok: bool) -> Guard:
    return Guard("x", level, ok, "", "", "")


def test_the_default_writes_every_bound_and_they_are_those_of_the_science() -> None:
    values = parse_yaml((FOLDER / "default.yaml").read_text("utf-8")).values
    assert list(values) == list(Policy.model_fields)
    for section, model in SECTIONS.items():
        assert list(values[section]) == list(model.model_fields)
    assert DEFAULT.integrity.model_dump() == {
        "min_positive_rate": 0.1, "max_positive_rate": 0.9, "min_recall": 0.3, "min_train_low": 0.5,
        "max_train_loss": 0.6731, "max_logit_difference": 1e-4,
    }  # fmt: skip
    quality = DEFAULT.quality
    assert (quality.min_gap, quality.max_gap, quality.min_test_low) == (-0.05, 0.1, 0.55)
    assert (quality.min_hard_gap, quality.max_hard_gap) == (-0.15, 0.2)
    assert (quality.min_clusters, quality.max_ece, quality.warn_ece) == (10, 0.1, 0.05)
    assert (DEFAULT.latency.device, DEFAULT.latency.max_p99_ms) == ("cpu", 10.0)
    assert (DEFAULT.champion.margin, DEFAULT.champion.cheaper) == (0.01, 0.2)


def test_production_differs_in_what_it_says_and_in_nothing_else() -> None:
    assert DEFAULT.differences_from(DEFAULT) == {}
    assert PRODUCTION.differences_from(DEFAULT) == {
        "quality.on_failure": {"default": "warn", "policy": "refuse"},
        "quality.certainty": {"default": 0.5, "policy": 0.95},
        "confirmation.required": {"default": False, "policy": True},
    }


@pytest.mark.parametrize(
    ("level", "by_default", "in_production"),
    [("integrity", True, True), ("quality", False, True), ("advice", False, False)],
)
def test_what_refuses(level: Level, by_default: bool, in_production: bool) -> None:
    assert (refuses(DEFAULT, guard(level, False)), refuses(PRODUCTION, guard(level, False))) == (
        by_default,
        in_production,
    )
    assert not refuses(PRODUCTION, guard(level, True))


def test_a_file_holds_any_part_and_the_rest_is_the_defaults(tmp_path: Path) -> None:
    policy = load_policy(
        written(tmp_path, "integrity:\n  min_recall: 0.5\nlatency: {device: cuda}\nquality:\n")
    )
    assert policy.name == "mine"
    assert policy.differences_from(DEFAULT) == {
        "integrity.min_recall": {"default": 0.3, "policy": 0.5},
        "latency.device": {"default": "cpu", "policy": "cuda"},
    }
    assert load_policy(written(tmp_path, "name: ours\ndescription: of the team\n")).name == "ours"
    assert load_policy(written(tmp_path, "")).differences_from(DEFAULT) == {}


def test_every_mistake_is_named_at_once_with_its_line(tmp_path: Path) -> None:
    text = (
        "quallity: {}\nintegrity:\n  min_recal: 0.4\nquality:\n  on_failure: refuze\n  max_ece: .nan\n"
        "  min_clusters: 9.5\nmax_p99_ms: 3\nlatency: 7\nconfirmation: {required: 1}\nname: default\n"
    )
    assert refused(tmp_path, text).splitlines()[1:] == [
        "  line 1: quallity: no such key; did you mean quality?",
        "  line 3: integrity.min_recal: no such key; did you mean min_recall?",
        '  line 5: quality.on_failure: no such value: "refuze"; did you mean refuse?',
        "  line 6: quality.max_ece: must be a finite number; got NaN",
        "  line 7: quality.min_clusters: must be a whole number; got 9.5",
        "  line 8: max_p99_ms: no such key; it belongs under latency, as latency.max_p99_ms",
        "  line 9: latency: must be a mapping of keys to values; got 7",
        "  line 10: confirmation.required: must be true or false; got 1",
        "  line 11: name: default is the name of a shipped policy; give yours a name of its own, or leave it out",
    ]


@pytest.mark.parametrize("name", ["default", "Production", " production ", "DEFAULT"])
def test_no_other_file_takes_a_shipped_name(tmp_path: Path, name: str) -> None:
    said = f"name: {name.strip()} is the name of a shipped policy"
    assert said in refused(tmp_path, f'name: "{name}"\n')
    for text in ("", "name:\n", "latency: {device: cuda}\n"):  # nor by what the file itself is called
        path = tmp_path / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(PolicyError, match="the file's own name would call it"):
            load_policy(str(path))
    path.write_text("name: ours\n", encoding="utf-8")
    assert load_policy(str(path)).name == "ours"


def test_a_name_is_one_line_that_can_be_printed(tmp_path: Path) -> None:
    for name in (r"two\nlines", r"\e[31mred", "  ", r"zero\u200bwidth"):
        assert "name: must be one line of printable characters" in refused(tmp_path, f'name: "{name}"\n')
    path = tmp_path / "two\nlines.yaml"
    path.write_text("", encoding="utf-8")
    with pytest.raises(PolicyError, match="must be one line of printable characters"):
        load_policy(str(path))


LOOSER = {
    "min_positive_rate": 0.05, "max_positive_rate": 0.95, "min_recall": 0.2, "min_train_low": 0.49,
    "max_train_loss": 0.69, "max_logit_difference": 1e-3,
}  # fmt: skip


@pytest.mark.parametrize("key", SECTIONS["integrity"].model_fields)
def test_an_integrity_bound_is_never_loosened(tmp_path: Path, key: str) -> None:
    message = refused(tmp_path, f"integrity:\n  {key}: {LOOSER[key]}\n")
    assert f"line 2: integrity.{key}: " in message
    assert "policies may tighten these bounds, never loosen them" in message


@given(st.sampled_from(sorted(LOOSER)), st.one_of(st.just(1.0), st.floats(0.01, 0.99)))
def test_between_the_bound_and_the_strictest_value_everything_may_be_asked(key: str, part: float) -> None:
    usual = getattr(DEFAULT.integrity, key)
    strictest = {
        "min_positive_rate": 0.49,
        "max_positive_rate": 0.51,
        "min_recall": 0.99,
        "min_train_low": 0.99,
    }
    values: dict[str, Any] = DEFAULT.model_dump()
    values["integrity"][key] = usual + (1 - part) * (strictest.get(key, 1e-9) - usual)
    assert Policy.model_validate(values).integrity != DEFAULT.integrity or part == 1


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("produktion", "did you mean production?"), ("nothing", "there is default and production"),
        (".", "is a folder"), ("mine.yml", "no policy and no file is called 'mine.yml'"),
    ],
)  # fmt: skip
def test_an_unknown_policy(word: str, says: str) -> None:
    with pytest.raises(PolicyError, match="polic") as error:
        load_policy(word)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n", "a policy is a mapping of sections"), ("a: [", "not valid YAML"),
        ("name: a\nname: b\n", "line 2: name: stands twice"), ("quality: &a {}\nlatency: *a\n", "not allowed"),
        ("#" * 70_000, "no policy is that large"),
    ],
)  # fmt: skip
def test_what_is_no_policy_is_refused(tmp_path: Path, text: str, says: str) -> None:
    assert says in refused(tmp_path, text)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(PolicyError, match="not UTF-8"):
        load_policy(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("name", POLICIES)
def test_the_shipped_files_fit_the_schema(name: str) -> None:
    SCHEMA.validate(parse_yaml((FOLDER / f"{name}.yaml").read_text("utf-8")).values)


@pytest.mark.parametrize(
    "values", [{"quallity": {}}, {"integrity": {"min_recall": 0.1}}, {"quality": {"on_failure": "no"}}, []]
)
def test_the_schema_refuses_what_the_harness_refuses(values: Any) -> None:
    assert not SCHEMA.is_valid(values)
    assert SCHEMA.is_valid({"quality": None, "integrity": {"min_recall": 0.4}})
