"""Fresh seeds as numbers: the spread of an arm, the order of the arms, the winner and the seed that ships."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.intervals import StatisticsError
from harness.metrics.seed_ranking import median_seed, ranking, spread_of, winner_of

SCORES = st.integers(2, 6).flatmap(
    lambda n: st.lists(
        st.lists(st.floats(0, 1, allow_subnormal=False), min_size=n, max_size=n), min_size=1, max_size=6
    )
)


def test_the_lower_bound_is_students_of_the_mean() -> None:
    spread = spread_of([0.80, 0.82, 0.84, 0.78, 0.81])
    assert (spread.mean, spread.sd, spread.se) == pytest.approx((0.81, 0.0223607, 0.01))
    assert spread.low == pytest.approx(0.81 - 2.776445 * 0.01)  # t_{.975, 4} of any table


@given(SCORES)
def test_a_spread_is_numpys_and_its_bound_lies_below_the_mean(arms: list[list[float]]) -> None:
    for scores in arms:
        spread = spread_of(scores)
        assert spread.mean == pytest.approx(np.mean(scores))
        assert spread.sd == pytest.approx(np.std(scores, ddof=1), abs=1e-12)
        assert spread.low <= spread.mean


@pytest.mark.parametrize("scores", [[], [0.5], [0.5, float("nan")]])
def test_scores_without_a_spread_are_refused(scores: list[float]) -> None:
    with pytest.raises(StatisticsError, match="two finite scores"):
        spread_of(scores)


@given(SCORES, st.data())
def test_the_winner_is_the_cheapest_within_one_standard_error(arms: list[list[float]], data: Any) -> None:
    macs = data.draw(st.lists(st.integers(1, 5), min_size=len(arms), max_size=len(arms)))
    spreads = [spread_of(scores) for scores in arms]
    order = ranking(spreads, macs)
    assert sorted(order) == list(range(len(arms)))
    lows = [spreads[index].low for index in order]
    assert lows == sorted(lows, reverse=True)
    best, winner = spreads[order[0]], winner_of(spreads, macs)
    within = [i for i, spread in enumerate(spreads) if spread.mean >= best.mean - best.se]
    assert winner in within
    assert all((macs[winner], -spreads[winner].low) <= (macs[i], -spreads[i].low) for i in within)


@given(SCORES, st.data())
def test_the_order_in_which_arms_are_listed_decides_nothing(arms: list[list[float]], data: Any) -> None:
    macs = data.draw(st.lists(st.integers(1, 5), min_size=len(arms), max_size=len(arms)))
    shuffled = data.draw(st.permutations(range(len(arms))))
    spreads = [spread_of(scores) for scores in arms]
    other = winner_of([spreads[i] for i in shuffled], [macs[i] for i in shuffled])
    first, second = winner_of(spreads, macs), shuffled[other]
    assert (spreads[first], macs[first]) == (spreads[second], macs[second])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_the_seed_that_ships_holds_the_lower_median(scores: list[float]) -> None:
    shipped = scores[median_seed(scores)]
    assert sum(score <= shipped for score in scores) * 2 >= len(scores)
    assert sum(score >= shipped for score in scores) * 2 > len(scores)
