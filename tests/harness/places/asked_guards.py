"""Single guards asked about made-up facts, which hold only what those guards look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from harness.config.policy import ConfirmationRule, LatencyBound, Policy
from harness.metrics.predictions import Predictions
from harness.promotion.bundle.latency import Latency
from harness.promotion.guards import control_guards
from harness.promotion.guards.assessment import ask, every_guard
from harness.promotion.guards.decision_guards import judge_confirmation
from harness.promotion.guards.facts import ContestFacts, Parity
from harness.promotion.guards.guard import Guard
from harness.promotion.guards.origin_guards import judge_labels
from harness.promotion.guards.rule import GUARDS
from harness.study.controls import Control

OF_THE_TEST = ("test balanced accuracy, lower bound", "calibration error (ECE)", "negative control at chance")


def asked(*names: str, **facts: Any) -> list[Guard]:
    """The answers of these guards, in their order in evidence.json."""
    seen: Any = SimpleNamespace(**facts)
    return [one for rule in every_guard() if rule.name in names for one in rule.ask(seen)]


def prediction_guards(
    train: Predictions, val: Predictions, *accuracies: Sequence[float], policy: Policy
) -> list[Guard]:
    names = (
        "predicted-positive rate", "recall of each class", "plateau at the class share",
        "train balanced accuracy, lower bound", "train cross-entropy",
    )  # fmt: skip
    return asked(*names, train=train, val=val, val_accuracies=accuracies, policy=policy)


def gap_guard(train: Predictions, val: Predictions, policy: Policy) -> Guard:
    return asked("train - validation gap", train=train, val=val, policy=policy)[0]


def frozen_guards(test: Predictions, policy: Policy, *, negative_control: bool = False) -> list[Guard]:
    return asked(*OF_THE_TEST, test=test, policy=policy, negative_control=negative_control)


def ece_guard(test: Predictions, policy: Policy) -> Guard:
    return asked("calibration error (ECE)", test=test, policy=policy, negative_control=False)[0]


def cluster_guard(clusters: int, policy: Policy) -> Guard:
    manifest = SimpleNamespace(clusters=lambda: list(map(str, range(clusters))))
    prepared = [SimpleNamespace(test=SimpleNamespace(manifest=manifest))]
    return asked("clusters in the test", prepared=prepared, policy=policy)[0]


def study_control_guards(controls: Sequence[Control]) -> list[Guard]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control_guards, "controls_of", lambda study: controls)
        return asked("negative control", study=None)


def promotable_guard(outcome: Mapping[str, Any]) -> Guard:
    return asked("one ONNX file", subject=SimpleNamespace(members=[SimpleNamespace(outcome=outcome)]))[0]


def label_map_guard(trained: Mapping[str, str], now: str, relabelled: int) -> Guard:
    return GUARDS["label map"].guard(judge_labels(trained, now, relabelled))


def parity_guard(difference: float, same: bool, windows: int, bound: float) -> Guard:
    policy = SimpleNamespace(integrity=SimpleNamespace(max_logit_difference=bound))
    return asked("ONNX against torch", parity=Parity(difference, same, windows), policy=policy)[0]


def provider_guard(latency: Latency | str, bound: LatencyBound) -> Guard:
    return asked("serving provider", latency=latency, policy=SimpleNamespace(latency=bound))[0]


def speed_guard(
    latency: Latency | str, bound: LatencyBound, faster: Mapping[str, Latency] | None = None
) -> Guard:
    policy = SimpleNamespace(latency=bound)
    return asked("latency P99, batch 1", latency=latency, faster=faster or {}, policy=policy)[0]


def confirmation_guard(known: Any, rule: ConfirmationRule, able: Sequence[Any] = (), **more: bool) -> Guard:
    return GUARDS["confirmed on fresh seeds"].guard(judge_confirmation(known, rule, able, **more))


def champion_guard(contest: Any, *, is_champion: bool, policy: Policy) -> Guard:
    return ask(ContestFacts(policy=policy, comparison=contest, is_champion=is_champion))[0]


def no_baseline_guard(reason: str, policy: Policy) -> Guard:
    return champion_guard(reason, is_champion=False, policy=policy)
