"""The registry of guards: its order, its bounds against the policies', and the document that follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.config.files.policy_file import load_policy
from harness.config.policy import GUARD_BOUNDS, SECTIONS, Bound, Policy, PolicyError
from harness.metrics.predictions import Predictions
from harness.promotion.guards.assessment import every_guard
from harness.promotion.guards.facts import CandidateFacts, ContestFacts, Facts, Parity
from harness.promotion.guards.rule import GUARDS, Finding, guard
from harness.promotion.guards.table import COMMAND, guards_document

DOCUMENT = Path(__file__).parents[4] / "docs" / "guards.md"
# They say which variants ship, which is no guard's question.
NO_GUARDS = {"variants.fp16", "variants.int8"}


def test_guards_are_asked_in_the_order_of_evidence() -> None:
    assert [rule.name for rule in every_guard()] == [
        "one ONNX file", "data gate", "label map", "predicted-positive rate", "recall of each class",
        "plateau at the class share", "train balanced accuracy, lower bound", "train cross-entropy",
        "train - validation gap", "ONNX against torch", "test balanced accuracy, lower bound",
        "calibration error (ECE)", "negative control at chance", "clusters in the test", "negative control",
        "serving provider", "latency P99, batch 1", "confirmed on fresh seeds", "against the champion",
        "against the baseline",
    ]  # fmt: skip


def test_every_bound_of_a_policy_is_some_guards() -> None:
    bounds = {f"{section}.{key}" for section, model in SECTIONS.items() for key in model.model_fields}
    assert {bound for rule in every_guard() for bound in rule.bounds} == bounds - NO_GUARDS


def test_every_integrity_bound_is_an_integrity_guards() -> None:
    for rule in every_guard():
        sections = {str(bound).partition(".")[0] for bound in rule.bounds}
        assert ("integrity" in sections) <= (rule.level == "integrity")
        assert rule.advice


def test_the_document_says_what_the_registry_says() -> None:
    assert DOCUMENT.read_text("utf-8") == guards_document(), f"write it anew: {COMMAND}"


class Read:
    """A policy that notes which of its bounds are read."""

    def __init__(self, policy: Policy) -> None:
        self._policy, self.names = policy, set[str]()

    def __getattr__(self, section: str) -> Any:
        values, names = getattr(self._policy, section), self.names

        class Section:
            def __getattr__(self, key: str) -> Any:
                names.add(f"{section}.{key}")
                return getattr(values, key)

        return Section()


def made_up() -> Iterator[dict[str, Any]]:
    """Facts of every kind; in each of them another branch is taken."""
    labels, clusters = np.tile([0, 1], 50), [f"s{k % 10}" for k in range(100)]
    wrong = labels ^ (np.arange(100) % 3 == 0)
    for said in (labels, wrong):
        logits = np.eye(2, dtype=np.float32)[said]
        one = Predictions(logits, labels, clusters)
        manifest = SimpleNamespace(clusters=lambda: clusters)
        yield {
            "train": Predictions(np.eye(2, dtype=np.float32)[labels], labels, clusters), "val": one, "test": one,
            "val_accuracies": [[0.5, 0.6, 0.7]], "negative_control": False, "parity": Parity(0.0, True, 100),
            "prepared": [SimpleNamespace(test=SimpleNamespace(manifest=manifest))],
            "latency": SimpleNamespace(provider="CPUExecutionProvider", p99_ms=1.0, within=lambda bound: True),
            "faster": {}, "comparison": "nobody", "is_champion": False,
        }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [rule.name for rule in every_guard() if rule.bounds and "confirmation" not in str(rule.bounds)],
)
def test_a_guard_reads_the_bounds_that_it_names(name: str) -> None:
    for policy in map(load_policy, ("default", "production")):
        for facts in made_up():
            read = Read(policy)
            seen: Any = SimpleNamespace(policy=read, **facts)
            GUARDS[name].ask(seen)
            assert read.names <= set(GUARDS[name].bounds)


def judge(seen: Facts) -> Iterator[Finding]:
    """Nothing."""
    yield from ()


def test_a_name_that_is_taken_and_a_bound_that_is_none_are_refused() -> None:
    with pytest.raises(PolicyError, match="there is a guard 'label map' already"):
        guard(CandidateFacts, "label map", "quality", advice="")(judge)
    with pytest.raises(PolicyError, match=r"'mine' reads quality\.max_gapp, which policies do not have"):
        guard(ContestFacts, "mine", "quality", bounds=["quality.max_gapp"], advice="")(judge)
    assert "mine" not in GUARDS


def test_two_guards_may_share_a_bound_and_not_its_name() -> None:
    shared = Bound("max_thing", 0.3, "A thing.")
    try:
        for name in ("mine", "ours"):
            guard(CandidateFacts, name, "quality", bounds=[shared], advice="")(judge)
        with pytest.raises(PolicyError, match="two guards bring another bound 'max_thing' each"):
            guard(CandidateFacts, "theirs", "quality", bounds=[Bound("max_thing", 0.4, "")], advice="")(judge)
    finally:
        GUARD_BOUNDS.pop("max_thing")
        for name in ("mine", "ours"):
            GUARDS.pop(name)
