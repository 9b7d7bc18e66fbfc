"""A guard is added by one file: it is listed, asked, refuses, and policies and their schema know its bound."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from harness.config.files.policy_file import load_policy
from harness.config.policy import GUARD_BOUNDS, Policy, PolicyError, policy_schema
from harness.promotion.guards.assessment import GuardRefusedError, every_guard, require_guards_pass
from harness.promotion.guards.guard import Guard
from harness.promotion.guards.rule import GUARDS
from harness.promotion.guards.table import guards_document
from tests.harness.places.guard_candidate import Case, sound_case, with_windows

EXAMPLE = Path(__file__).with_name("guard_example.py")
NAME, BOUND = "share drift between subsets", "max_share_drift"
PLAIN = [rule.name for rule in every_guard()]


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    monkeypatch.setenv("HARNESS_PLUGINS", EXAMPLE.stem)
    yield
    sys.modules.pop(EXAMPLE.stem, None)
    GUARDS.pop(NAME, None)
    GUARD_BOUNDS.pop(BOUND, None)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return sound_case(tmp_path_factory.mktemp("added guard"))


def written(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def drift(guards: list[Guard]) -> Guard:
    (found,) = (one for one in guards if one.name == NAME)
    return found


def test_it_is_one_file_of_60_lines_at_most() -> None:
    assert len(EXAMPLE.read_text("utf-8").splitlines()) <= 60


@pytest.mark.usefixtures("plugin")
def test_it_is_listed_after_the_harness_own() -> None:
    assert [rule.name for rule in every_guard()] == [*PLAIN, NAME]
    assert f"`guards.{BOUND}`: 0.3\n" in guards_document()


def test_the_command_that_lists_guards_lists_it() -> None:
    path = os.pathsep.join([str(EXAMPLE.parent), str(Path(__file__).parents[2])])
    env = {**os.environ, "HARNESS_PLUGINS": EXAMPLE.stem, "PYTHONPATH": path}
    command = [sys.executable, "-m", "harness.promotion.guards.table"]
    said = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert f"## {NAME}\n\n*integrity*, asked before the frozen test is opened. Share of windows" in said


def of_two_subsets(sound: Case, folder: Path, errors: int) -> Case:
    """96 validation windows in two subsets: in one so many of class 0 are called 1, in the other as many of 1 called 0."""
    labels = sound.labels("val")
    clean = np.arange(len(labels)) < len(labels) // 2
    with np.load(sound.candidate.folder / "predictions.npz") as stored:
        predictions = dict(stored)
    for label, place in enumerate((clean, ~clean)):
        wrong = np.flatnonzero((labels == label) & place)[:errors]
        predictions["val_logits"][wrong] = [-1, 1] if label == 0 else [1, -1]
    folder.mkdir()
    np.savez(folder / "predictions.npz", **predictions)
    names = np.where(clean, "clean", "other").tolist()
    case = with_windows(
        sound, "val", lambda ones: [replace(one, subset=name) for one, name in zip(ones, names, strict=True)]
    )
    return replace(case, candidate=replace(case.candidate, folder=folder))


@pytest.mark.usefixtures("plugin")
def test_it_passes_a_sound_candidate_and_refuses_one_that_hears_the_subset(
    sound: Case, tmp_path: Path
) -> None:
    policy = load_policy(written(tmp_path, f"guards: {{{BOUND}: 0.1}}\n"))
    guards = of_two_subsets(sound, tmp_path / "sound", 0).before(policy)
    assert [one.name for one in guards if not one.ok] == []
    assert guards[-1] == drift(guards)
    require_guards_pass("voices", "trial 0", guards, policy)

    case = of_two_subsets(sound, tmp_path / "biased", 4)
    guards = case.before(policy)
    assert [one.name for one in guards if not one.ok] == [NAME]
    with pytest.raises(GuardRefusedError) as refusal:  # 28 of 48 are called 1, and 20 of 48
        require_guards_pass("voices", "trial 0", guards, policy)
    assert f"{NAME}: 0.167 (clean 0.583, other 0.417), wanted <= 0.1. It tells the subsets" in str(
        refusal.value
    )
    require_guards_pass("voices", "trial 0", case.before(load_policy("default")), load_policy("default"))


@pytest.mark.usefixtures("plugin")
def test_a_policy_file_sets_its_bound(tmp_path: Path) -> None:
    policy = load_policy(written(tmp_path, f"guards: {{{BOUND}: 0.1}}\n"))
    assert policy.model_dump()["guards"] == {BOUND: 0.1}
    assert policy.differences_from(load_policy("default")) == {
        f"guards.{BOUND}": {"default": 0.3, "policy": 0.1}
    }


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("guards:\n  max_share_drifd: 0.1\n", f"line 2: guards.max_share_drifd: no such key; did you mean {BOUND}?"),
        (f"guards: {{{BOUND}: 0.6}}\n", f"guards.{BOUND}: must be less than or equal to 0.5; got 0.6"),
        (f"guards: {{{BOUND}: much}}\n", f'guards.{BOUND}: must be a number; got "much"'),
        (f"{BOUND}: 0.1\n", f"it belongs under guards, as guards.{BOUND}"),
        ("guard: {}\n", "guard: no such key; did you mean guards?"),
    ],
)  # fmt: skip
def test_a_mistake_about_its_bound_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(PolicyError) as error:
        load_policy(written(tmp_path, text))
    assert says in str(error.value)


@pytest.mark.usefixtures("plugin")
def test_the_schema_knows_its_bound() -> None:
    schema = jsonschema.Draft202012Validator(policy_schema())
    assert schema.is_valid({"guards": {BOUND: 0.2}})
    assert schema.is_valid({"guards": None})
    assert not schema.is_valid({"guards": {BOUND: 0.6}})
    assert not schema.is_valid({"guards": {"other": 0.2}})


def test_without_it_policies_are_as_before(tmp_path: Path) -> None:
    assert type(load_policy("default")) is Policy
    assert "guards" not in load_policy("production").model_dump()
    assert "guards" not in policy_schema()["properties"]
    with pytest.raises(PolicyError, match="guards: no such key"):
        load_policy(written(tmp_path, f"guards: {{{BOUND}: 0.1}}\n"))
