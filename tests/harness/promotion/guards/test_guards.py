"""Every guard both ways: silent on a sound model, and tripped by one made to trip exactly it."""

import dataclasses
import math

import numpy as np
import pytest

from harness.config.files.policy_file import load_policy
from harness.config.policy import Policy
from harness.metrics.predictions import Predictions
from harness.promotion.bundle.latency import Latency
from harness.promotion.guards.guard import Guard, refuses
from tests.harness.places.asked_guards import (
    cluster_guard,
    ece_guard,
    frozen_guards,
    gap_guard,
    label_map_guard,
    parity_guard,
    prediction_guards,
    provider_guard,
    speed_guard,
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


DEFAULT, PRODUCTION = load_policy("default"), load_policy("production")


def policy(**quality: float) -> Policy:
    values = DEFAULT.model_dump()
    return Policy.model_validate({**values, "quality": {**values["quality"], **quality}})


def latency(p99_ms: float, provider: str = "CPUExecutionProvider") -> Latency:
    fields = {one.name: 1.0 for one in dataclasses.fields(Latency)}
    return Latency(**{**fields, "p99_ms": p99_ms, "provider": provider})


def scaled(one: Predictions, factor: float) -> Predictions:
    return Predictions(one.logits * np.float32(factor), one.labels, one.clusters)


def tripped(guards: list[Guard]) -> set[str]:
    return {guard.name for guard in guards if not guard.ok}


def of_predictions(train: Predictions, val: Predictions, curve: list[float]) -> set[str]:
    return tripped(prediction_guards(train, val, curve, policy=DEFAULT))


def test_a_sound_model_trips_nothing() -> None:
    guards = [
        *prediction_guards(LEARNT, GOOD, RISING, policy=PRODUCTION),
        gap_guard(LEARNT, GOOD, PRODUCTION),
    ]
    guards += [
        *frozen_guards(predictions((0.9, 0.9), 2.2), PRODUCTION), cluster_guard(10, PRODUCTION),
        provider_guard(latency(2), PRODUCTION.latency), speed_guard(latency(2), PRODUCTION.latency),
        parity_guard(1e-6, True, 256, 1e-4), label_map_guard({"then": "a"}, "a", 0),
    ]  # fmt: skip
    assert tripped(guards) == set()
    assert not any(refuses(PRODUCTION, guard) for guard in guards)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_constant_predictor_is_refused_for_its_rate_and_its_recall(share: float) -> None:
    constant = predictions((1 - share, share))
    assert of_predictions(LEARNT, constant, RISING) == {"predicted-positive rate", "recall of each class"}


def test_a_class_that_is_not_recognised_is_refused() -> None:
    assert of_predictions(LEARNT, predictions((0.95, 0.25)), RISING) == {"recall of each class"}


def test_the_notebooks_plateau_is_refused_and_a_rising_curve_is_not() -> None:
    plateau = {"plateau at the class share"}
    assert of_predictions(LEARNT, GOOD, [0.61, 0.5, 0.5, 0.501, 0.5, 0.5]) == plateau
    assert of_predictions(LEARNT, GOOD, [0.5, 0.5, 0.5, 0.55, 0.6, 0.7]) == set()
    assert of_predictions(LEARNT, GOOD, [0.5, 0.5]) == set()  # two epochs are no plateau
    unbalanced = Predictions(GOOD.logits[:120], np.array([0] * 85 + [1] * 35), GOOD.clusters[:120])
    assert plateau <= of_predictions(LEARNT, unbalanced, [35 / 120] * 30)  # 29.2 %, hash(speaker) % 2


def test_a_model_that_never_learned_is_refused() -> None:
    coin = predictions((0.5, 0.5), confidence=0.001)
    assert of_predictions(coin, GOOD, RISING) == {
        "train balanced accuracy, lower bound",
        "train cross-entropy",
    }


def test_learned_windows_at_a_coins_loss_are_refused() -> None:
    assert of_predictions(scaled(LEARNT, 0.003), GOOD, RISING) == {"train cross-entropy"}
    assert DEFAULT.integrity.max_train_loss <= math.log(2) - 0.02


@pytest.mark.parametrize(
    ("train", "val", "ok"), [(0.9, 0.85, True), (0.99, 0.8, False), (0.7, 0.8, False), (0.8, 0.84, True)]
)
def test_the_gap_is_judged_on_both_sides(train: float, val: float, ok: bool) -> None:
    guard = gap_guard(predictions((train, train)), predictions((val, val)), DEFAULT)
    assert (guard.ok, guard.level) == (ok, "quality")


def test_a_gap_that_sampling_error_may_explain_is_only_spoken_of_where_certainty_is_asked() -> None:
    train, val = predictions((0.97, 0.97)), predictions((0.85, 0.85))  # .12, and 1.7 x .028 of it may be luck
    assert gap_guard(train, val, policy(certainty=0.5)).level == "quality"
    said = gap_guard(train, val, policy(certainty=0.95))
    assert (said.ok, said.level) == (False, "advice")
    assert "20 clusters" in str(said)
    assert not refuses(PRODUCTION, said)
    assert refuses(PRODUCTION, gap_guard(train, predictions((0.75, 0.75)), PRODUCTION))


def test_a_gap_beyond_the_hard_bounds_is_refused_whatever_its_sampling_error() -> None:
    def gap(train: float, val: float, bounds: Policy) -> Guard:
        return gap_guard(*(predictions((one, one), speakers=4) for one in (train, val)), bounds)

    wide, other = gap(0.95, 0.7, PRODUCTION), gap(0.6, 0.8, PRODUCTION)
    assert {(one.ok, one.level) for one in (wide, other)} == {(False, "quality")}
    assert "not refused" not in str(wide)
    loose = policy(certainty=0.95, min_hard_gap=-1.0, max_hard_gap=1.0)
    said = [gap(0.95, 0.8, PRODUCTION), gap(0.7, 0.8, PRODUCTION), gap(0.95, 0.7, loose)]
    assert {(one.ok, one.level) for one in said} == {(False, "advice")}


@pytest.mark.parametrize("speakers", [1, 2, 20])
def test_bare_numbers_are_judged_without_any_sampling_error(speakers: int) -> None:
    train, val = (predictions((share, share), speakers=speakers) for share in (0.99, 0.8))
    for bounds in (DEFAULT, policy(certainty=0.5, min_hard_gap=-1.0, max_hard_gap=1.0)):
        assert (gap_guard(train, val, bounds).ok, gap_guard(train, val, bounds).level) == (False, "quality")
    unsure = predictions((0.8, 0.8), 4.0, speakers=speakers)
    assert ece_guard(unsure, DEFAULT).level == "quality"


def test_the_notebooks_worst_model_fails_the_two_sided_rule() -> None:
    guards = [gap_guard(predictions((0.505, 0.505)), predictions((0.615, 0.615)), DEFAULT)]
    assert tripped(guards) == {"train - validation gap"}


def test_chance_and_few_clusters() -> None:
    assert "test balanced accuracy, lower bound" in tripped(frozen_guards(predictions((0.52, 0.52)), DEFAULT))
    assert not cluster_guard(9, DEFAULT).ok


@pytest.mark.parametrize(
    ("error", "ok", "level"), [(0.03, True, "quality"), (0.07, False, "advice"), (0.14, False, "quality")]
)
def test_calibration_is_warned_of_above_one_bound_and_fails_above_the_other(
    error: float, ok: bool, level: str
) -> None:
    # All logits are alike, so the error is the distance of their probability from the share that is right, .8.
    share = 0.8 - error
    test = predictions((0.8, 0.8), math.log(share / (1 - share)))
    (guard,) = [one for one in frozen_guards(test, DEFAULT) if "ECE" in one.name]
    assert (guard.ok, guard.level) == (ok, level)
    assert guard.measured.startswith(f"{error:.3f}")
    assert not refuses(DEFAULT, guard)


def test_a_control_that_beats_chance_beyond_doubt_is_broken() -> None:
    def control(test: Predictions) -> set[str]:
        return tripped(frozen_guards(test, DEFAULT, negative_control=True))

    assert control(predictions((0.55, 0.55))) == set()
    assert control(GOOD) == {"negative control at chance"}
    assert control(predictions((0.95, 0.95), speakers=6)) == set()  # too few to accuse anybody


def test_a_wrong_export() -> None:
    assert not parity_guard(2e-4, True, 256, 1e-4).ok
    assert not parity_guard(1e-6, False, 256, 1e-4).ok
    assert not parity_guard(math.nan, True, 256, 1e-4).ok
    assert not parity_guard(0.0, True, 0, 1e-4).ok
    assert parity_guard(1e-6, True, 256, 1e-4).level == "integrity"


def test_a_slow_one_and_one_that_was_not_timed_on_its_device() -> None:
    slow = speed_guard(latency(120.0), DEFAULT.latency, {"model.int8.onnx": latency(8.0)})
    assert (slow.ok, slow.level) == (False, "quality")
    assert "50 times cheaper" in str(slow)
    assert "model.int8.onnx takes 8.0 ms" in str(slow)
    exactly = speed_guard(latency(DEFAULT.latency.max_p99_ms), DEFAULT.latency)
    assert (exactly.ok, exactly.bound) == (False, "< 10 ms on cpu")  # as `harness verify` has it
    on_gpu = DEFAULT.latency.model_copy(update={"device": "cuda"})
    assert speed_guard(latency(2.0, "CUDAExecutionProvider"), on_gpu).ok
    for unknown in (latency(2.0), "CUDAExecutionProvider cannot be used here: no driver"):
        assert speed_guard(unknown, on_gpu).measured == "not measured on cuda"
        assert not provider_guard(unknown, on_gpu).ok
    assert "no driver" in str(provider_guard("CUDAExecutionProvider cannot be used here: no driver", on_gpu))


def test_labels_that_changed_are_refused_and_unrecorded_ones_are_not() -> None:
    assert label_map_guard({}, "a" * 64, 0).ok  # the manifests' digests hold every label
    assert "bbbbbbbbbbbb in the trial" in str(label_map_guard({"in the trial": "b" * 64}, "a" * 64, 0))
    assert not label_map_guard({"in the trial": "a" * 64}, "a" * 64, 3).ok
