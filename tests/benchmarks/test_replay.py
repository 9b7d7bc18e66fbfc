import numpy as np
import pytest

from harness.config.search_rules import Pruner
from tests.benchmarks.b11_pruning import Judged, best_of, judge, speedup_of
from tests.benchmarks.replay import Recorded, Replayed, replay
from tests.benchmarks.rounds import Estimate

RISING = np.linspace(0.5, 0.9, 8)


def test_without_a_rule_every_epoch_is_trained_and_the_best_is_kept() -> None:
    curves = np.stack([RISING - 0.01 * row for row in range(5)])
    assert replay(curves, Pruner(type="none")) == Replayed(40, 40, 0.0)


@pytest.mark.parametrize("kind", ["median", "patient", "halving", "hyperband"])
def test_no_trial_is_pruned_before_the_warm_up_has_passed(kind: str) -> None:
    curves = np.stack([RISING - 0.05 * row for row in range(8)])
    rule = Pruner.model_validate({"type": kind, "warmup_epochs": 4, "startup_trials": 1})
    found = replay(curves, rule)
    assert found.epochs >= 4 * len(curves)
    assert found.regret == 0


def test_a_lucky_epoch_misleads_raw_values_and_no_median_of_three() -> None:
    """The best trial is at 0.2 in the one epoch at which the rule looks first; its median of three is not."""
    best = np.array([0.8, 0.8, 0.8, 0.2, 0.9, 0.9, 0.9, 0.9])
    curves = np.stack([RISING * 0.9, RISING * 0.9, RISING * 0.9, best])
    rule = Pruner(type="halving", warmup_epochs=3, reduction_factor=2)
    assert replay(curves, rule, smoothed=True).regret == 0
    assert replay(curves, rule, smoothed=False).regret > 0


def recorded() -> Recorded:
    return Recorded(np.stack([RISING - 0.01 * row for row in range(9)]), windows=400)


def test_orders_hold_the_same_trials_and_blends_lie_between_two_of_them() -> None:
    known = recorded()
    one, other = known.shuffled(1), known.shuffled(2)
    assert (one != other).any()
    np.testing.assert_array_equal(np.sort(one, axis=0), np.sort(known.curves, axis=0))
    blends = known.blended(20, seed=1)
    assert blends.shape == (20, 8)
    assert (blends >= known.curves.min(axis=0)).all()
    assert (blends <= known.curves.max(axis=0)).all()
    np.testing.assert_array_equal(blends, known.blended(20, seed=1))
    assert (blends != known.blended(20, seed=2)).any()


def test_equal_is_what_the_windows_cannot_tell_apart() -> None:
    known = recorded()
    best = float(RISING[-2])  # the last three epochs' median
    assert known.standard_error() == pytest.approx((best * (1 - best) / 400) ** 0.5)
    late = RISING.copy()
    late[:4] = 0.0  # pruned there, though it ends as the best
    curves = np.stack([*(RISING - 0.005 for _ in range(6)), late])
    rule = Pruner(type="median", startup_trials=1)
    near = judge(rule, [curves], equal=0.01, smoothed=False)
    assert (near.kept, near.same) == (1.0, 0.0)
    assert judge(rule, [curves], equal=0.001, smoothed=False).kept == 0.0


def test_the_curves_that_are_replayed_are_there() -> None:
    known = Recorded.read()
    assert known.curves.shape == (40, 30)
    assert ((known.curves >= 0) & (known.curves <= 1)).all()


def test_the_rule_that_is_chosen_keeps_enough_or_most() -> None:
    def judged(speedup: float, kept: float) -> Judged:
        return Judged(Estimate(speedup, speedup, speedup), kept, kept, 0.0)

    assert best_of({"bold": judged(5, 0.8), "good": judged(3, 0.95), "shy": judged(2, 1.0)}) == "good"
    assert best_of({"bold": judged(5, 0.5), "less": judged(3, 0.8)}) == "less"


def test_epochs_are_summed_before_they_are_divided() -> None:
    found = speedup_of([Replayed(10, 100, 0.0), Replayed(90, 100, 0.0)])
    assert found.value == 2.0
    assert found.low < 2.0 < found.high
