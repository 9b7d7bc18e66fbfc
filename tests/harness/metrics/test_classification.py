import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score

from harness.metrics.classification import (
    MetricsError,
    binary_metrics,
    expected_calibration_error,
    roc_points,
    softmax,
)

LN3 = math.log(3)


def test_metrics_by_hand() -> None:
    # logit differences 1 - 0: ln 3, -ln 3, 0, ln 3 -> P(1) = 3/4, 1/4, 1/2, 3/4; predicted 1 0 0 1
    logits = [[0, LN3], [LN3, 0], [0, 0], [0, LN3]]
    labels = [1, 0, 1, 0]
    found = binary_metrics(logits, labels)
    # P(truth) = 3/4, 3/4, 1/2, 1/4
    assert found["loss"] == pytest.approx(-math.log(0.75 * 0.75 * 0.5 * 0.25) / 4)
    assert found["accuracy"] == 0.5
    assert (found["recall_0"], found["recall_1"], found["balanced_accuracy"]) == (0.5, 0.5, 0.5)
    assert found["predicted_positive"] == 0.5
    # pairs (positive, negative): (3/4, 1/4) won, (3/4, 3/4) tied, (1/2, 1/4) won, (1/2, 3/4) lost
    assert found["auc"] == 2.5 / 4


def test_a_constant_predictor_has_balanced_accuracy_one_half() -> None:
    # the notebooks' 29.20 %: always 0 where 70.8 % are 1
    labels = np.array([1] * 708 + [0] * 292)
    found = binary_metrics(np.tile([1.0, 0.0], (1000, 1)), labels)
    assert found["accuracy"] == pytest.approx(0.292)
    assert (found["balanced_accuracy"], found["auc"], found["predicted_positive"]) == (0.5, 0.5, 0)
    assert (found["recall_0"], found["recall_1"]) == (1, 0)


def test_huge_logits_stay_finite() -> None:
    found = binary_metrics([[1e4, -1e4], [1e4, -1e4]], [0, 1])
    assert found["loss"] == pytest.approx(1e4)


samples = st.lists(
    st.tuples(st.integers(-4, 4), st.integers(-4, 4), st.integers(0, 1)), min_size=2, max_size=40
).filter(lambda rows: {row[2] for row in rows} == {0, 1})


@given(samples)
def test_metrics_are_those_of_sklearn(rows: list[tuple[int, int, int]]) -> None:
    logits, labels = np.array([r[:2] for r in rows], dtype=float), np.array([r[2] for r in rows])
    found = binary_metrics(logits, labels)
    predicted = (logits[:, 1] > logits[:, 0]).astype(int)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert found["auc"] == pytest.approx(roc_auc_score(labels, logits[:, 1] - logits[:, 0]))
    assert found["loss"] == pytest.approx(log_loss(labels, softmax(logits)))
    # the trapezoid under the curve is the same area; swapping the classes mirrors everything
    assert np.trapezoid(*roc_points(logits, labels)[::-1]) == pytest.approx(found["auc"])
    mirror = binary_metrics(logits[:, ::-1], 1 - labels)
    assert mirror["loss"] == pytest.approx(found["loss"])
    assert mirror["auc"] == pytest.approx(found["auc"])


def test_calibration_error_by_hand() -> None:
    # all four predict class 1 with confidence .9: right 3 of 4 -> |.75 - .9|
    assert expected_calibration_error([0.9] * 4, [1, 1, 1, 0]) == pytest.approx(0.15)
    # two bins: (.9, 1 of 2 right) and (.6, 1 of 2): (2/4)(.4) + (2/4)(.1) = .25
    assert expected_calibration_error([0.9, 0.9, 0.6, 0.6], [1, 0, 1, 0]) == pytest.approx(0.25)
    # with one bin they pool: |.5 - .75|
    assert expected_calibration_error([0.9, 0.9, 0.6, 0.6], [1, 0, 1, 0], bins=1) == pytest.approx(0.25)
    # the smaller side is the same confidence in class 0
    assert expected_calibration_error([0.1] * 4, [0, 0, 0, 1]) == pytest.approx(0.15)
    assert expected_calibration_error([1.0, 0.0], [1, 0]) == 0


def test_calibration_of_one_or_two_columns_agrees() -> None:
    generator = np.random.default_rng(0)
    share = generator.random(200)
    labels = generator.integers(0, 2, 200)
    both = np.stack([1 - share, share], axis=1)
    assert expected_calibration_error(share, labels) == expected_calibration_error(both, labels)


def test_a_calibrated_model_has_a_small_error() -> None:
    generator = np.random.default_rng(1)
    share = generator.random(20_000)
    assert expected_calibration_error(share, generator.random(20_000) < share) < 0.02


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: binary_metrics([[0, 1], [1, 0]], [1, 1]), "all 2 labels are 1"),
        (lambda: binary_metrics([[0, math.nan], [1, 0]], [1, 0]), "1 of 4 logits"),
        (lambda: binary_metrics([[0, 1]], [1, 0]), r"\(1, 2\) and \(2,\)"),
        (lambda: binary_metrics(np.empty((0, 2)), []), "at least one"),
        (lambda: binary_metrics([[0, 1], [1, 0]], [0, 2]), "not 2"),
        (lambda: expected_calibration_error([1.5], [1]), "softmax"),
        (lambda: expected_calibration_error([0.5], [1], bins=0), "at least 1"),
    ],
)
def test_bad_input_is_named(call: object, says: str) -> None:
    with pytest.raises(MetricsError, match=says):
        call()  # type: ignore[operator]
