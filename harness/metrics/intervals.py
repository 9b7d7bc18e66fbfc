"""What a score on clustered windows may claim: pure functions of numbers, no torch.

Windows of one speaker are right or wrong together, so a thousand windows of fifteen speakers carry
the evidence of a few dozen. Everything here counts evidence in that currency. A cluster is what windows are not
independent within: a speaker, a group of speakers who were mixed with each other, meetings that share a speaker.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

from harness.core.errors import InputError
from harness.metrics.few_clusters import FEW_CLUSTERS as FEW_CLUSTERS
from harness.metrics.few_clusters import few_clusters_note

Floats = npt.NDArray[np.float64]
Clusters = Sequence[str] | npt.NDArray[np.generic]


class StatisticsError(InputError):
    """Numbers from which nothing can be concluded; the message says which and why."""


@dataclass(frozen=True)
class ClusteredInterval:
    """A proportion with an interval that knows its clusters.

    Attributes
    ----------
    value : share of right windows; low and high its bounds, all in [0, 1]
    windows, clusters : how many of each
    icc : intraclass correlation, see `intraclass_correlation`
    deff : design effect (Kish 1965), how many times the variance is that of as many independent windows; 1 or more
    n_eff : ``windows / deff``, as many independent windows as would say as much
    """

    value: float
    low: float
    high: float
    windows: int
    clusters: int
    icc: float
    deff: float
    n_eff: float

    @property
    def few_clusters(self) -> bool:
        """Whether there are too few clusters (below 10) for the interval to count as evidence."""
        return self.clusters < FEW_CLUSTERS

    def __str__(self) -> str:
        bounds = f"[{_short(self.low)}, {_short(self.high)}]"
        clusters = f"K = {self.clusters}{few_clusters_note(self.clusters)}"
        return f"{_short(self.value)} {bounds} ({self.windows} windows, {clusters})"


@dataclass(frozen=True)
class Score:
    """A trial's score and the 0-based epoch whose weights it belongs to."""

    value: float
    epoch: int


def intraclass_correlation(correct: npt.ArrayLike, clusters: Clusters) -> float:
    """Share of the variance of ``correct`` that lies between clusters (one-way analysis of variance).

    With K clusters of m_k windows, n in all::

        n0  = (n - sum m_k^2 / n) / (K - 1)
        rho = (MSB - MSW) / (MSB + (n0 - 1) MSW)

    (Donner 1986, Int. Stat. Review 54). It may be negative. It is 0 where nothing varies and where every
    cluster holds one window; one cluster says nothing about others and counts as the worst case, 1.

    Parameters
    ----------
    correct : (window,) of 0 or 1
    clusters : (window,) cluster names, in any order

    Raises
    ------
    StatisticsError
        No window, other shapes, or a value that is neither 0 nor 1.
    """
    sizes, hits = _by_cluster(correct, clusters)
    return _icc(sizes, hits)


def clustered_interval(
    correct: npt.ArrayLike,
    clusters: Clusters,
    level: float = 0.95,
    side: Literal["two", "lower"] = "two",
) -> ClusteredInterval:
    """Wilson interval with n_eff windows and Student's t with K - 1 degrees of freedom.

    ``deff = 1 + (n/K - 1) max(rho, 0)`` (Kish 1965, of the mean cluster), ``n_eff = n / deff``; then Wilson (1927)::

        (p + t^2/2n_eff +- t sqrt(p(1-p)/n_eff + t^2/4n_eff^2)) / (1 + t^2/n_eff)

    On a class-balanced manifest ``p`` is the balanced accuracy. One cluster gives [0, 1].

    Simulated coverage of the 95 % interval (beta-binomial clusters of 25 windows): 94-96 % for ICC .4 and
    p <= .75; 87 % at K = 10 and 92-93 % from K = 20 for p = .9, where cluster shares pile up at 1;
    97-99 % for ICC 0.

    Parameters
    ----------
    correct : (window,) of 0 or 1
    clusters : (window,) cluster names, in any order
    level : confidence of the interval, in (0, 1)
    side : ``two``, or ``lower`` for a one-sided lower bound (``high`` is then 1)

    Raises
    ------
    StatisticsError
        A level outside (0, 1), no window, other shapes, or a value that is neither 0 nor 1.
    """
    if not 0 < level < 1:
        raise StatisticsError(f"level must lie in (0, 1), not {level}: 0.95 means 95 %")
    sizes, hits = _by_cluster(correct, clusters)
    windows, count = int(sizes.sum()), len(sizes)
    value = float(hits.sum()) / windows
    icc = _icc(sizes, hits)
    deff = 1 + (windows / count - 1) * max(icc, 0.0)
    n_eff = windows / deff
    quantile = (1 + level) / 2 if side == "two" else level
    low, high = 0.0, 1.0
    if count > 1:
        low, high = _wilson(value, n_eff, float(stdtrit(count - 1, quantile)))
    return ClusteredInterval(value, low, high if side == "two" else 1.0, windows, count, icc, deff, n_eff)


def lower_median(values: Sequence[float]) -> float:
    """Middle value of one or more; of an even number the smaller of the two, so that it is always one of them."""
    return sorted(values)[(len(values) - 1) // 2]


def trailing_median_score(per_epoch: Sequence[float], window: int = 3) -> Score:
    """Best trailing median of ``window`` epochs, and the epoch that holds it.

    ::

        epoch      0    1    2    3    4
        value     .50  .90  .70  .80  .60
        median              .70  .80  .70    -> Score(.80, epoch 3)

    While there are fewer epochs than the window, their lower median counts. Of equal medians the
    earliest window wins, and in it the latest epoch with that value: so the score's epoch only ever
    moves to one of the last ``window`` epochs, and a trainer need keep no more weights than those.

    Parameters
    ----------
    per_epoch : (epoch,) finite

    Raises
    ------
    StatisticsError
        No epoch, a value that is not finite, a window below 1.
    """
    if window < 1:
        raise StatisticsError(f"window must be at least 1 epoch, not {window}")
    if not per_epoch:
        raise StatisticsError("no epoch, no score: the series is empty")
    if not all(math.isfinite(value) for value in per_epoch):
        raise StatisticsError(f"a score needs finite values, not {list(per_epoch)}")
    width = min(window, len(per_epoch))
    medians = [lower_median(per_epoch[end - width : end]) for end in range(width, len(per_epoch) + 1)]
    first = medians.index(max(medians))
    epoch = max(e for e in range(first, first + width) if per_epoch[e] == medians[first])
    return Score(float(per_epoch[epoch]), epoch)


def lag1_correlation(series: Sequence[float]) -> float:
    """Correlation of a series (epoch,) with itself one epoch later, about the common mean; 0 where undefined.

    ``sum (x_t - m)(x_t+1 - m) / sum (x_t - m)^2``: a constant or a series under 3 values gives 0.
    """
    values = np.asarray(series, dtype=np.float64)
    # a constant's deviations are rounding noise, not a correlation
    if len(values) < 3 or values.min() == values.max():
        return 0.0
    away = values - values.mean()
    return float((away[:-1] * away[1:]).sum() / (away**2).sum())


def optimism(p: float, n_eff: float, trials: int, epochs: int, r: float, rank: int = 1) -> float:
    """How far the j-th best of many looks at one validation set lies above its true value (winner's curse).

    The expected j-th largest of k normal draws (Blom 1958); below the middle it is negative::

        sigma PHI^-1((k - j + 1 - .375) / (k + .25)),  sigma = sqrt(p(1-p) / n_eff)
        k = trials max(1, epochs (1 - r))

    Parameters
    ----------
    p : accuracy around which the looks scatter
    n_eff : effective windows of the validation set, see `ClusteredInterval`
    trials, epochs : looks taken
    r : lag-1 correlation between the epochs of a trial, see `lag1_correlation`; at 1 a trial is one look
    rank : j, of the trial among the trials: 1 is the best

    Raises
    ------
    StatisticsError
        A number outside its range.
    """
    if not 0 <= p <= 1:
        raise StatisticsError(f"p is a share in [0, 1], not {p}")
    if n_eff <= 0 or trials < 1 or epochs < 1:
        raise StatisticsError(
            f"n_eff must be positive and trials and epochs at least 1, not {n_eff}, {trials}, {epochs}"
        )
    if not -1 <= r <= 1:
        raise StatisticsError(f"r is a correlation in [-1, 1], not {r}")
    if not 1 <= rank <= max(1, trials):
        raise StatisticsError(f"a rank among {trials} trials is 1 to {trials}, not {rank}")
    looks = trials * max(1.0, epochs * (1 - r))
    sigma = math.sqrt(p * (1 - p) / n_eff)
    return sigma * float(ndtri((looks - rank + 1 - 0.375) / (looks + 0.25)))


def _by_cluster(correct: npt.ArrayLike, clusters: Clusters) -> tuple[Floats, Floats]:
    """Windows and hits of each cluster, (K,) each."""
    values = np.asarray(correct, dtype=np.float64)
    names = np.asarray(clusters)
    if values.ndim != 1 or values.shape != names.shape:
        raise StatisticsError(
            f"one cluster name per window: correct is {values.shape}, clusters is {names.shape}"
        )
    if len(values) == 0:
        raise StatisticsError("no windows, no interval: correct is empty")
    wrong = values[(values != 0) & (values != 1)]
    if len(wrong):
        raise StatisticsError(f"correct holds 0 (wrong) or 1 (right), not {wrong[0]}")
    _, index = np.unique(names, return_inverse=True)
    sizes = np.bincount(index).astype(np.float64)
    return sizes, np.bincount(index, weights=values).astype(np.float64)


def _icc(sizes: Floats, hits: Floats) -> float:
    total, count = sizes.sum(), len(sizes)
    if hits.sum() in (0, total):
        return 0.0
    if count == 1:
        return 1.0
    if count == total:
        return 0.0
    shares = hits / sizes
    between = (sizes * (shares - hits.sum() / total) ** 2).sum() / (count - 1)
    within = (sizes * shares * (1 - shares)).sum() / (total - count)
    n0 = (total - (sizes**2).sum() / total) / (count - 1)
    return float((between - within) / (between + (n0 - 1) * within))


def _wilson(value: float, n: float, t: float) -> tuple[float, float]:
    centre = value + t * t / (2 * n)
    half = t * math.sqrt(value * (1 - value) / n + t * t / (4 * n * n))
    scale = 1 + t * t / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def _short(share: float) -> str:
    text = f"{share:.3f}"
    return text[1:] if text.startswith("0.") else text
