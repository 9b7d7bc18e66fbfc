import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.intervals import trailing_median_score
from harness.reporting.learning_curves import (
    FEWEST_EPOCHS,
    RULES,
    LearningCurve,
    learning_curve_of,
    trailing_medians,
)

shares = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@given(shares)
def test_the_best_trailing_median_is_the_score(val) -> None:
    width = min(3, len(val))
    assert max(trailing_medians(val)[width - 1 :]) == trailing_median_score(val).value


@given(shares, st.floats(5, 2_000))
def test_at_most_one_rule_holds_and_it_is_defined(val, n_eff) -> None:
    found = LearningCurve(tuple(val), tuple(val)).findings(n_eff)
    assert len(found) <= 1
    assert {one.rule for one in found} <= set(RULES)
    if len(val) < FEWEST_EPOCHS:
        assert found == ()


FLAT = (0.5, 0.8, 0.8, 0.8, 0.81, 0.8, 0.8, 0.82, 0.8)
RISING = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
FALLING = (0.6, 0.8, 0.85, 0.85, 0.8, 0.75, 0.7, 0.66, 0.62)
LEARNING = (0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.99)


@pytest.mark.parametrize(
    ("train", "val", "n_eff", "rules"),
    [
        (LEARNING, FLAT, 100, ["early plateau"]),
        (LEARNING, RISING, 100, []),
        (LEARNING, FALLING, 100, ["late overfitting"]),
        # one standard error of .85 with n_eff = 3 is .21: what falls by .15 may be noise
        (LEARNING, FALLING, 3, ["early plateau"]),
        # training falls too: the rate was too high, that is no overfitting
        (tuple(reversed(LEARNING)), FALLING, 100, []),
        ((), FALLING, 100, []),  # training was not recorded
    ],
)
def test_the_rules_by_hand(train, val, n_eff, rules) -> None:
    found = LearningCurve(train, val).findings(n_eff)
    assert [one.rule for one in found] == rules
    assert all("s.e." in one.numbers for one in found)


def test_the_first_two_epochs_are_no_score() -> None:
    # .9 at epoch 1 stands alone: the first whole median is .6, at epoch 3, and later ones do beat it.
    lucky = (0.9, 0.6, 0.6, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85)
    assert LearningCurve((), lucky).findings(400) == ()
    assert trailing_median_score(lucky).value == 0.8
    (found,) = LearningCurve((), (0.99, *FLAT[1:])).findings(100)
    assert found.numbers.startswith("0.800 at epoch 3 of 9")


@pytest.mark.parametrize("answer", [0.0, 1.0])
def test_a_model_of_one_answer_is_named_as_such(answer: float) -> None:
    (found,) = LearningCurve((0.5,) * 2, (0.5,) * 2).findings(100, answer)
    assert found.rule == "constant predictor"
    assert found.numbers == f"{answer:.0%} of the validation windows are answered with 1"
    assert [one.rule for one in LearningCurve((), FLAT).findings(100, 0.4)] == ["early plateau"]


def test_outcomes_of_earlier_versions_have_a_validation_curve() -> None:
    assert learning_curve_of({"val_accuracy": [0.5, 0.6]}) == LearningCurve((), (0.5, 0.6))
    assert learning_curve_of({"curves": {"train": [0.7], "val": [0.6]}}) == LearningCurve((0.7,), (0.6,))
    assert learning_curve_of({}) is None
