"""Ranking configurations by their scores on several seeds: pure functions of numbers.

Rank by mean - t_{.975,n-1} s / sqrt(n); the winner is the cheapest (multiply-accumulates) whose mean lies within
one standard error of the best's; of its seeds the one with the lower-median score ships.
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
    """Scores of one configuration on n seeds: ``se = sd / sqrt(n)``, ``low = mean - t_{.975,n-1} se``."""

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
    """Indices from best to worst by lower bound; of equals the higher mean, then the cheaper, then the first."""
    return sorted(
        range(len(spreads)), key=lambda i: (-spreads[i].low, -spreads[i].mean, macs[i], i)
    )  # fmt: skip


def winner_of(spreads: Sequence[Spread], macs: Sequence[int]) -> int:
    """Index of the cheapest whose mean is within one standard error of the best's; of equals the higher ranked."""
    order = ranking(spreads, macs)
    best = spreads[order[0]]
    within = [index for index in order if spreads[index].mean >= best.mean - best.se]
    return min(within, key=lambda index: macs[index])


def median_seed(scores: Sequence[float]) -> int:
    """Index of the seed with the lower-median score; of equals the first."""
    return list(scores).index(lower_median(scores))
