"""Arms that are measured side by side: interleaved, watched by a canary, compared within each round.

::

    canary  A B B A  canary  A B B A  canary ...        ratio = median over rounds of (A + A) / (B + B)
            round 1          round 2

A machine that gets slower does so for both arms of a round, and their ratio stays; one that is disturbed within
a round shows in the canary (a fixed matmul, some 50 ms on one thread), and the round is taken again.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import psutil
from scipy import stats
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

CANARY_S = 0.05
SLOW_LIMIT_S = 150.0  # where a round takes minutes
DRIFT = 0.15  # of a canary from the median canary
LIMIT_S = 60.0  # after so long ...
ENOUGH = 3  # ... so many quiet rounds are enough; after twice as long, one
RESAMPLES = 2_000
LEVEL = 0.95
_SIDE = 512  # of the canary's matrices


class CannotRun(RuntimeError):  # noqa: N818 - an answer, not a fault
    """A benchmark that this machine does not allow, with the reason: its row says so, and holds nothing."""


@dataclass(frozen=True)
class Reading:
    """What one arm took in one run.

    wall_s : seconds by the clock; cpu_s : of the process and all that it ran
    details : anything else that was measured or counted, by name
    """

    wall_s: float
    cpu_s: float
    details: Mapping[str, float] = field(default_factory=dict)


Arm = Callable[[], Reading]


def wall(reading: Reading) -> float:
    """Seconds by the clock."""
    return reading.wall_s


def cpu(reading: Reading) -> float:
    """Seconds on a core, children included."""
    return reading.cpu_s


def cpu_of_tree() -> float:
    """CPU seconds of this process and its descendants, those included that ended and were waited for."""
    ended = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    total = sum(usage.ru_utime + usage.ru_stime for usage in ended)
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:  # ended meanwhile: whoever waits for it has its seconds
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def measured(call: Callable[[], Mapping[str, float] | None]) -> Reading:
    """Run something once; what it returns becomes the reading's details."""
    cpu_before, before = cpu_of_tree(), time.perf_counter()
    details = call()
    wall_s = time.perf_counter() - before
    return Reading(wall_s, cpu_of_tree() - cpu_before, dict(details or {}))


class Canary:
    """A fixed amount of arithmetic: as many 512 x 512 products as take some 50 ms here, on one thread."""

    def __init__(self) -> None:
        self._matrix = np.random.default_rng(0).standard_normal((_SIDE, _SIDE)).astype(np.float32)
        self._products = 1
        self()
        self._products = max(1, round(CANARY_S / min(self() for _ in range(5))))

    def __call__(self) -> float:
        """Seconds that it took."""
        with threadpool_limits(limits=1):
            start = time.perf_counter()
            for _ in range(self._products):
                self._matrix @ self._matrix
            return time.perf_counter() - start


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Rounds:
    """The rounds that were kept: by arm its readings, one tuple per round.

    canary_s : median of the canaries; steady : false where a single round was kept although its canary drifted
    """

    readings: Mapping[str, tuple[tuple[Reading, ...], ...]]
    dropped: int = 0
    canary_s: float = float("nan")
    steady: bool = True

    @property
    def kept(self) -> int:
        """Rounds that count."""
        return len(next(iter(self.readings.values())))

    def ratio(self, over: str, under: str, of: Callable[[Reading], float] = wall) -> Estimate:
        """Median of the rounds' ratios, each of the sums of a round's readings, with its bootstrap interval."""
        ratios = [
            sum(map(of, upper)) / sum(map(of, lower))
            for upper, lower in zip(self.readings[over], self.readings[under], strict=True)
        ]
        return median_estimate(ratios)

    def estimate(self, arm: str, of: Callable[[Reading], float] = wall) -> Estimate:
        """Median over the rounds of an arm's mean in each, with its bootstrap interval."""
        return median_estimate([float(np.mean([of(one) for one in taken])) for taken in self.readings[arm]])

    def median(self, arm: str, of: Callable[[Reading], float] = wall) -> float:
        """Median of all of an arm's readings."""
        return float(np.median([of(one) for taken in self.readings[arm] for one in taken]))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result has to know about its rounds."""
        text = f"{self.kept} round{'s' * (self.kept != 1)}"
        if self.dropped:
            text += f", {self.dropped} more dropped because the canary drifted"
        return (text if self.steady else f"{text}; the machine was not steady",)


def interleaved(
    arms: Mapping[str, Arm],
    rounds: int,
    *,
    warm_up: bool = True,
    once: bool = False,
    limit_s: float | None = None,
) -> Rounds:
    """Measure arms forward, then backward, round after round, each warmed up by one run before.

    `once`, for arms that take minutes: every round has each arm once, forward in one and backward in the next.

    A round whose canary, before or after it, is more than 15 % off the median is dropped and taken again, up to
    twice as many rounds in all. After `limit_s` three quiet ones are enough, after twice as long one is. A single round
    (the quick form) runs every arm once and is kept either way.
    `warm_up` is false for arms that begin cold by what they measure, or leave their own first part out.

    Raises
    ------
    CannotRun
        If no round was quiet.
    """
    canary = Canary()
    for arm in arms.values() if warm_up and rounds > 1 else ():
        arm()
    forward = list(arms)
    backward = forward[::-1]
    orders = [forward, backward] if once or rounds == 1 else [[*forward, *backward]]
    canaries: list[tuple[float, float]] = []
    taken: list[dict[str, list[Reading]]] = []
    quiet: list[int] = []
    began = time.perf_counter()
    while len(taken) < 2 * rounds and len(quiet) < _wanted(
        rounds, time.perf_counter() - began, limit_s or LIMIT_S
    ):
        before = canary()
        readings: dict[str, list[Reading]] = {name: [] for name in arms}
        for name in orders[len(taken) % len(orders)]:
            readings[name].append(arms[name]())
        taken.append(readings)
        canaries.append((before, canary()))
        quiet = quiet_rounds(canaries)
        if rounds == 1:
            break
    steady = bool(quiet)
    if not steady and rounds > 1:
        raise CannotRun(f"no quiet round in {len(taken)}: the canary drifted by more than {DRIFT:.0%}")
    kept = [taken[i] for i in (quiet or [0])]
    by_arm = {name: tuple(tuple(one[name]) for one in kept) for name in arms}
    return Rounds(by_arm, len(taken) - len(kept), float(np.median(canaries)), steady)


def _wanted(rounds: int, elapsed_s: float, limit_s: float) -> int:
    """How many quiet rounds are enough by now."""
    if elapsed_s < limit_s:
        return rounds
    return min(rounds, ENOUGH) if elapsed_s < 2 * limit_s else 1


def quiet_rounds(canaries: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the rounds of whose canaries, before and after, neither drifted from the median of all."""
    drifts = np.abs(np.asarray(canaries) / np.median(canaries) - 1)  # (round, 2)
    return [int(i) for i in np.flatnonzero((drifts <= DRIFT).all(axis=1))]


def median_estimate(values: Sequence[float]) -> Estimate:
    """Median of one value a round, and its 95 % interval from resampled rounds.

    The percentiles are widened as Student's interval is against the normal one (Hesterberg's expanded percentile
    interval): as they stand, 7 rounds cover 88 %, not 95. Three rounds reach from the smallest to the largest, which
    covers 75 %: more they cannot say.
    """
    sample = np.asarray(values, dtype=np.float64)
    count = len(sample)
    if count < 2:
        return Estimate(float(sample[0]), float("nan"), float("nan"))
    draws = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    medians = np.median(sample[draws], axis=1)
    tail = stats.norm.cdf(np.sqrt(count / (count - 1)) * stats.t.ppf((1 - LEVEL) / 2, count - 1))
    low, high = np.quantile(medians, [tail, 1 - tail])
    return Estimate(float(np.median(sample)), float(low), float(high))
