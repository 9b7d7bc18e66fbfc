"""Every guard both ways: silent on a sound model, and tripped by one made to trip exactly it."""

import math

import numpy as np
import pytest

from harness.guards import (
    Guard,
    Predictions,
    frozen_test_guards,
    gap_guard,
    latency_guard,
    parity_guard,
    prediction_guards,
)

SPEAKERS, EACH = 20, 10


def predictions(
    accuracy: tuple[float, float], confidence: float = 3.0, speakers: int = SPEAKERS
) -> Predictions:
    """Balanced windows of which the given share of each class is right, spread evenly over speakers."""
    labels = np.tile([0, 1], speakers * EACH // 2)
    right = np.empty(len(labels), dtype=bool)
    for label in (0, 1):
        index = np.flatnonzero(labels == label)
        right[index] = np.arange(len(index)) < round(accuracy[label] * len(index))
    predicted = np.where(right, labels, 1 - labels)
    logits = np.zeros((len(labels), 2), dtype=np.float32)
    logits[np.arange(len(labels)), predicted] = confidence
    clusters = [f"s{k % speakers}" for k in range(len(labels) // 2) for _ in (0, 1)]
    return Predictions(logits, labels, clusters)


GOOD = predictions((0.9, 0.9))
LEARNT = predictions((0.97, 0.97))
RISING = [0.5, 0.6, 0.7, 0.8, 0.85, 0.9]


def tripped(guards: list[Guard]) -> set[str]:
    return {guard.name for guard in guards if not guard.ok}


def test_a_sound_model_trips_nothing() -> None:
    guards = [*prediction_guards(LEARNT, GOOD, RISING), gap_guard(LEARNT, GOOD)]
    guards += [
        *frozen_test_guards(GOOD, 0.03),
        latency_guard(2.0, "cpu"),
        parity_guard(1e-6, True, 256, 1e-4),
    ]
    assert tripped(guards) == set()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_constant_predictor_is_refused_for_its_rate_and_its_recall(share: float) -> None:
    constant = predictions((1 - share, share))
    assert tripped(prediction_guards(LEARNT, constant, RISING)) == {
        "predicted-positive rate",
        "recall of each class",
    }


def test_a_class_that_is_not_recognised_is_refused() -> None:
    assert tripped(prediction_guards(LEARNT, predictions((0.95, 0.25)), RISING)) == {"recall of each class"}


def test_the_notebooks_plateau_is_refused_and_a_rising_curve_is_not() -> None:
    assert tripped(prediction_guards(LEARNT, GOOD, [0.61, 0.5, 0.5, 0.501, 0.5, 0.5])) == {
        "plateau at the class share"
    }
    assert tripped(prediction_guards(LEARNT, GOOD, [0.5, 0.5, 0.5, 0.55, 0.6, 0.7])) == set()
    assert tripped(prediction_guards(LEARNT, GOOD, [0.5, 0.5])) == set()  # two epochs are no plateau


def test_a_model_that_never_learned_is_refused() -> None:
    coin = predictions((0.5, 0.5), confidence=0.001)
    assert tripped(prediction_guards(coin, GOOD, RISING)) == {
        "train balanced accuracy, lower bound",
        "train cross-entropy",
    }


def test_learned_windows_at_a_coins_loss_are_refused() -> None:
    timid = predictions((0.97, 0.97), confidence=0.01)
    assert tripped(prediction_guards(timid, GOOD, RISING)) == {"train cross-entropy"}
    assert -math.log(0.5) - 0.02 < 0.6932


@pytest.mark.parametrize(
    ("train", "val", "ok"), [(0.9, 0.85, True), (0.99, 0.8, False), (0.7, 0.8, False), (0.8, 0.84, True)]
)
def test_the_gap_is_judged_on_both_sides(train: float, val: float, ok: bool) -> None:
    assert gap_guard(predictions((train, train)), predictions((val, val))).ok is ok


def test_chance_few_clusters_and_miscalibration_are_warned_of() -> None:
    assert tripped(frozen_test_guards(predictions((0.52, 0.52)), 0.03)) == {
        "test balanced accuracy, lower bound"
    }
    assert tripped(frozen_test_guards(predictions((1.0, 1.0), speakers=6), 0.03)) == {"clusters in the test"}
    assert tripped(frozen_test_guards(GOOD, 0.08)) == {"calibration error (ECE)"}


def test_a_control_that_beats_chance_beyond_doubt_is_broken() -> None:
    assert tripped(frozen_test_guards(predictions((0.55, 0.55)), 0.3, negative_control=True)) == set()
    assert tripped(frozen_test_guards(GOOD, 0.3, negative_control=True)) == {"negative control at chance"}
    few = frozen_test_guards(predictions((0.95, 0.95), speakers=6), 0.3, negative_control=True)
    assert tripped(few) == {"clusters in the test"}  # too few to accuse anybody


def test_a_wrong_export_and_a_slow_one() -> None:
    assert not parity_guard(2e-4, True, 256, 1e-4).ok
    assert not parity_guard(1e-6, False, 256, 1e-4).ok
    assert parity_guard(1e-6, True, 256, 1e-4).level == "integrity"
    slow = latency_guard(120.0, "CPUExecutionProvider")
    assert (slow.ok, slow.level) == (False, "quality")
    assert "50 times cheaper" in str(slow)
