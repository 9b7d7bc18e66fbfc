import numpy as np
import pytest

from harness.sweep import Pruner
from tests.benchmarks.b11_pruning import Judged, best_of, speedup_of
from tests.benchmarks.replay import Replayed, Shape, fitted, generated, replay
from tests.benchmarks.rounds import Estimate

RISING = np.linspace(0.5, 0.9, 8)


def test_without_a_rule_every_epoch_is_trained_and_the_best_is_kept() -> None:
    curves = np.stack([RISING - 0.01 * row for row in range(5)])
    assert replay(curves, Pruner(type="none")) == Replayed(40, 40, True, 0.0)


@pytest.mark.parametrize("kind", ["median", "patient", "halving", "hyperband"])
def test_no_trial_is_pruned_before_the_warm_up_has_passed(kind: str) -> None:
    curves = np.stack([RISING - 0.05 * row for row in range(8)])
    rule = Pruner.model_validate({"type": kind, "warmup_epochs": 4, "startup_trials": 1})
    found = replay(curves, rule)
    assert found.epochs >= 4 * len(curves)
    assert found.kept


def test_a_lucky_epoch_misleads_raw_values_and_no_median_of_three() -> None:
    """The best trial is at 0.2 in the one epoch at which the rule looks first; its median of three is not."""
    best = np.array([0.8, 0.8, 0.8, 0.2, 0.9, 0.9, 0.9, 0.9])
    curves = np.stack([RISING * 0.9, RISING * 0.9, RISING * 0.9, best])
    rule = Pruner(type="halving", warmup_epochs=3, reduction_factor=2)
    assert replay(curves, rule, smoothed=True).kept
    assert not replay(curves, rule, smoothed=False).kept


def test_a_shape_is_found_again_in_its_own_curve() -> None:
    shape = Shape(start=0.5, top=0.9, time=4.0, fall=0.0, noise=0.0)
    found = fitted(shape.mean(20).tolist())
    assert found.top == pytest.approx(0.9, abs=0.01)
    assert found.time == pytest.approx(4.0, abs=0.3)
    assert found.noise < 1e-3


def test_generated_sweeps_repeat_themselves_and_differ_by_seed() -> None:
    shapes = [Shape(0.5, 0.9, 4.0, 0.0, 0.02), Shape(0.5, 0.6, 2.0, 0.001, 0.03)]
    first = generated(shapes, 6, 10, seed=1)
    assert first.shape == (6, 10)
    assert ((first >= 0) & (first <= 1)).all()
    np.testing.assert_array_equal(first, generated(shapes, 6, 10, seed=1))
    assert (first != generated(shapes, 6, 10, seed=2)).any()


def test_the_rule_that_is_chosen_keeps_enough_or_most() -> None:
    def judged(speedup: float, kept: float) -> Judged:
        return Judged(Estimate(speedup, speedup, speedup), kept, 0.0)

    assert best_of({"bold": judged(5, 0.8), "good": judged(3, 0.95), "shy": judged(2, 1.0)}) == "good"
    assert best_of({"bold": judged(5, 0.5), "less": judged(3, 0.8)}) == "less"


def test_epochs_are_summed_before_they_are_divided() -> None:
    found = speedup_of([Replayed(10, 100, True, 0.0), Replayed(90, 100, True, 0.0)])
    assert found.value == 2.0
    assert found.low < 2.0 < found.high
