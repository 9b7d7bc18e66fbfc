"""Laws of the measuring: order of arms, dropped rounds, intervals that cover."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from tests.benchmarks import rounds
from tests.benchmarks.rounds import (
    CannotRun,
    Reading,
    Rounds,
    cpu,
    cpu_of_tree,
    interleaved,
    measured,
    median_estimate,
    quiet_rounds,
)


@pytest.fixture
def canaries(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], None]:
    """Say what the canary takes, again and again the last value."""

    def say(values: list[float]) -> None:
        def reading() -> Iterator[float]:
            yield from values
            while True:
                yield values[-1]

        endless = reading()
        monkeypatch.setattr(rounds, "Canary", lambda: lambda: next(endless))

    return say


def arms(log: list[str], names: str = "AB") -> dict[str, Callable[[], Reading]]:
    def arm(name: str) -> Callable[[], Reading]:
        def run() -> Reading:
            log.append(name)
            return Reading(wall_s=float(len(log)), cpu_s=1.0)

        return run

    return {name: arm(name) for name in names}


@pytest.mark.parametrize(("names", "once"), [("AB", "ABBA"), ("ABC", "ABCCBA")])
def test_arms_run_forward_then_backward_after_a_warm_up(
    canaries: Callable[[list[float]], None], names: str, once: str
) -> None:
    canaries([0.05])
    log: list[str] = []
    found = interleaved(arms(log, names), 3)
    assert "".join(log) == names + 3 * once
    assert (found.kept, found.dropped, found.steady) == (3, 0, True)
    assert all(len(taken) == 2 for taken in found.readings["A"])


def test_arms_that_begin_cold_are_not_warmed_up(canaries: Callable[[list[float]], None]) -> None:
    canaries([0.05])
    log: list[str] = []
    interleaved(arms(log), 2, warm_up=False)
    assert "".join(log) == 2 * "ABBA"


def test_a_single_round_runs_each_arm_once_and_is_kept_whatever_the_canary_says(
    canaries: Callable[[list[float]], None],
) -> None:
    canaries([0.05, 0.5])
    log: list[str] = []
    found = interleaved(arms(log), 1)
    assert log == ["A", "B"]
    assert (found.kept, found.steady) == (1, False)
    assert "not steady" in found.notes[0]


def test_a_round_whose_canary_drifts_is_dropped_and_taken_again(
    canaries: Callable[[list[float]], None],
) -> None:
    # Round:     0           1           2 drifts    3           4
    canaries([0.05, 0.05, 0.05, 0.052, 0.05, 0.06, 0.048, 0.05, 0.05, 0.05])
    log: list[str] = []
    found = interleaved(arms(log), 4)
    assert (found.kept, found.dropped) == (4, 1)
    assert "".join(log) == "AB" + 5 * "ABBA"
    # What was read in the dropped round (readings 11 to 14) is in no estimate.
    assert [int(one.wall_s) for taken in found.readings["A"] for one in taken] == [
        3,
        6,
        7,
        10,
        15,
        18,
        19,
        22,
    ]
    assert "1 more dropped" in found.notes[0]


def test_a_machine_that_never_rests_gives_no_value(canaries: Callable[[list[float]], None]) -> None:
    canaries([0.05, 0.1] * 6)
    log: list[str] = []
    with pytest.raises(CannotRun, match="no quiet round in 6"):
        interleaved(arms(log), 3)
    assert len(log) == 2 + 6 * 4  # at most twice as many rounds


@pytest.mark.parametrize(("limit_s", "kept"), [(60.0, 5), (1.0, 3), (0.5, 1)])
def test_the_longer_it_takes_the_fewer_quiet_rounds_are_enough(
    canaries: Callable[[list[float]], None], monkeypatch: pytest.MonkeyPatch, limit_s: float, kept: int
) -> None:
    # Round:     0 drifts    1           2           3           4           5
    canaries([0.05, 0.09, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05])
    now = itertools.chain([0.0], itertools.repeat(1.0))
    monkeypatch.setattr(rounds, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    found = interleaved(arms([]), 5, limit_s=limit_s)
    assert (found.kept, found.dropped) == (kept, 1)


def test_drift_is_from_the_median_either_way() -> None:
    steady = (1.0, 1.0)
    assert quiet_rounds([steady, (1.14, 0.86), steady]) == [0, 1, 2]
    assert quiet_rounds([steady, (1.0, 1.16), (0.84, 1.0), steady]) == [0, 3]


def simulated(ratio: float, count: int, rng: np.random.Generator) -> Rounds:
    """Readings whose rounds are slowed together, by up to a third, and each reading by some per cent of its own."""

    def readings(seconds: float, slowed: np.ndarray) -> tuple[tuple[Reading, ...], ...]:
        own = rng.lognormal(sigma=0.05, size=(count, 2))
        return tuple(
            tuple(Reading(float(seconds * s * o), 0.0) for o in two)
            for s, two in zip(slowed, own, strict=True)
        )

    slowed = 1 + rng.random(count) / 3
    return Rounds({"A": readings(ratio, slowed), "B": readings(1.0, slowed)})


@pytest.mark.parametrize(("count", "least", "most"), [(7, 0.94, 1.0), (21, 0.92, 1.0)])
def test_the_interval_covers_the_true_ratio_as_often_as_it_says(
    count: int, least: float, most: float
) -> None:
    rng = np.random.default_rng(0)
    draws = [simulated(3.0, count, rng).ratio("A", "B") for _ in range(150)]
    covered = np.mean([one.low <= 3.0 <= one.high for one in draws])
    assert least <= covered <= most
    assert abs(np.median([one.value for one in draws]) - 3) < 0.03
    assert all(one.low <= one.value <= one.high for one in draws)


def test_an_estimate_repeats_itself_and_one_round_has_no_interval() -> None:
    values = [1.0, 1.1, 0.9, 1.05, 0.98]
    assert median_estimate(values) == median_estimate(values)
    assert np.isnan([median_estimate([2.0]).low, median_estimate([2.0]).high]).all()
    three = median_estimate([1.0, 2.0, 4.0])
    assert (three.low, three.value, three.high) == (1.0, 2.0, 4.0)


def test_a_ratio_is_of_what_was_asked_for() -> None:
    taken = ((Reading(2.0, 8.0, {"p99": 1.0}), Reading(4.0, 4.0, {"p99": 3.0})),)
    other = ((Reading(1.0, 2.0, {"p99": 2.0}), Reading(1.0, 2.0, {"p99": 2.0})),)
    both = Rounds({"A": taken, "B": other})
    assert both.ratio("A", "B").value == 3.0
    assert both.ratio("A", "B", cpu).value == 3.0
    assert both.ratio("A", "B", lambda one: one.details["p99"]).value == 1.0
    assert both.median("A", lambda one: one.wall_s) == 3.0


def test_cpu_of_the_tree_counts_children_that_ended() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass"

    def run() -> None:
        subprocess.run([sys.executable, "-c", burn], check=True)

    reading = measured(run)
    assert reading.cpu_s >= 0.19
    assert cpu_of_tree() >= reading.cpu_s


def test_cpu_of_the_tree_counts_children_that_live() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
    before = cpu_of_tree()
    with subprocess.Popen(
        [sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        assert cpu_of_tree() - before >= 0.19
        child.stdin.close()
