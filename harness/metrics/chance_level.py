"""Is a score that should be chance above it? The one question that a negative control is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy.typing as npt


LEVEL = 0.999  # one-sided, of the bound that decides
ChanceVerdict = Literal["sound", "broken", "uninformative"]


@dataclass(frozen=True)
class ChanceTestResult:
    """A score that should be chance: its value, its one-sided 99.9 % lower bound, and what follows.

    ::

        sound           the bound is at or below .5
        broken          the bound is above .5: something tells the classes apart that must not
        uninformative   fewer than 10 clusters: whatever the bound, it is no evidence
    """

    verdict: ChanceVerdict
    value: float
    low: float
    windows: int
    clusters: int

    @property
    def numbers(self) -> str:
        """The score with its bound and its evidence, as one phrase for people."""
        return f"{self.value:.3f}, 99.9 % lower bound {self.low:.3f} ({self.windows} windows, K = {self.clusters})"


def judge_against_chance(correct: npt.ArrayLike, clusters: Sequence[str]) -> ChanceTestResult:
    """Judge whether a score that should be chance (.5) is above it, by the lower bound of its clustered interval.

    The bound is one-sided at 99.9 %: of sound controls about one in a thousand is called broken, as far as the
    interval's coverage is its nominal one (see `clustered_interval`).

    Parameters
    ----------
    correct : (window,) of 0 or 1, whether each prediction is right; half of the windows are of either class
    clusters : (window,) name of what each window is not independent of: its speaker, its group of meetings
    """
    from harness.metrics.intervals import clustered_interval

    interval = clustered_interval(correct, clusters, level=LEVEL, side="lower")
    verdict: ChanceVerdict = "broken" if interval.low > 0.5 else "sound"
    if interval.few_clusters:
        verdict = "uninformative"
    return ChanceTestResult(verdict, interval.value, interval.low, interval.windows, interval.clusters)
