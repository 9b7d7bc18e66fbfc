"""Ranking configurations by their scores on several seeds: pure functions of numbers.

Rank by mean - t_{.975,n-1} s / sqrt(n); the winner is the cheapest (multiply-accumulates) whose mean lies within
one standard error of the best's (the one-standard-error rule of Breiman et al. 1984, CART); of its seeds the one with
the lower-median score ships, so that a lucky seed is not what is shipped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import stdtrit

from harness.metrics.intervals import StatisticsError, lower_median

# Two-sided confidence of the bound by which finalists are ranked.
LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """Scores of one configuration on n seeds: ``se = sd / sqrt(n)``, ``low = mean - t_{.975,n-1} se``.

    ``sd`` divides by n - 1. ``low`` is the lower end of Student's 95 % interval of the mean over seeds; the windows are
    the same for every seed, so it says nothing of other speakers.
    """

    mean: float
    sd: float
    se: float
    low: float


def spread_of(scores: Sequence[float]) -> Spread:
    """Mean, deviation, standard error and lower bound of two or more scores.

    Raises
    ------
    StatisticsError
        Fewer than two scores (they have no deviation), or one that is not finite.
    """
    if len(scores) < 2 or not all(math.isfinite(score) for score in scores):
        raise StatisticsError(f"a spread needs two finite scores or more, not {list(scores)}")
    mean, sd = fmean(scores), stdev(scores)
    se = sd / math.sqrt(len(scores))
    return Spread(mean, sd, se, mean - float(stdtrit(len(scores) - 1, (1 + LEVEL) / 2)) * se)


def ranking(spreads: Sequence[Spread], macs: Sequence[int]) -> list[int]:
    """Indices from best to worst by lower bound; of equals the higher mean, then the cheaper, then the first.

    Parameters
    ----------
    macs : multiply-accumulates of one window, (configuration,), as are the spreads
    """

    def merit(index: int) -> tuple[float, float, int]:
        return -spreads[index].low, -spreads[index].mean, macs[index]

    return sorted(range(len(spreads)), key=merit)


def winner_of(spreads: Sequence[Spread], macs: Sequence[int]) -> int:
    """Index of the cheapest whose mean is within one standard error of the best's; of equals the higher ranked."""
    order = ranking(spreads, macs)
    best = spreads[order[0]]
    within = [index for index in order if spreads[index].mean >= best.mean - best.se]
    return min(within, key=lambda index: macs[index])


def median_seed(scores: Sequence[float]) -> int:
    """Index of the seed with the lower-median score; of equals the first."""
    return list(scores).index(lower_median(scores))
