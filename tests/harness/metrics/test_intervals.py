import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.intervals import (
    StatisticsError,
    clustered_interval,
    intraclass_correlation,
    lag1_correlation,
    optimism,
    trailing_median_score,
)

# Two speakers of four windows, 4 and 2 right: n = 8, K = 2, p = 6/8 = .75.
# MSB = (4(1-.75)^2 + 4(.5-.75)^2) / 1 = .5
# MSW = (4*1*0 + 4*.5*.5) / (8-2) = 1/6
# n0  = (8 - (16+16)/8) / 1 = 4
# rho = (1/2 - 1/6) / (1/2 + 3/6) = 1/3
TWO = ([1, 1, 1, 1, 1, 1, 0, 0], list("aaaabbbb"))


def test_icc_by_hand() -> None:
    assert intraclass_correlation(*TWO) == pytest.approx(1 / 3, abs=1e-15)


def test_icc_of_unequal_clusters_by_hand() -> None:
    # a: 2 of 2, b: 1 of 4; n = 6, p = .5
    # MSB = (2*.25 + 4*.0625) / 1 = .75;  MSW = (0 + 4*.25*.75) / (6-2) = .1875
    # n0 = (6 - 20/6) / 1 = 8/3;  rho = .5625 / (.75 + 5/3*.1875) = .5625 / 1.0625
    assert intraclass_correlation([1, 1, 1, 0, 0, 0], list("aabbbb")) == pytest.approx(0.5625 / 1.0625)


def test_icc_where_every_cluster_is_of_one_mind_is_one() -> None:
    assert intraclass_correlation([1, 1, 0, 0, 1, 1], list("aabbcc")) == 1


def test_icc_may_be_negative() -> None:
    # both clusters half right: MSB = 0, so rho = -MSW / ((n0-1) MSW) = -1/(n0-1) = -1
    assert intraclass_correlation([1, 0, 1, 0], list("aabb")) == -1


@pytest.mark.parametrize(
    ("correct", "clusters", "icc"),
    [([1, 1, 1, 1], "aabb", 0), ([0, 0], "ab", 0), ([1, 0, 1], "abc", 0), ([1, 0, 1], "aaa", 1)],
)
def test_icc_at_the_edges(correct: list[int], clusters: str, icc: float) -> None:
    assert intraclass_correlation(correct, list(clusters)) == icc


def test_interval_by_hand() -> None:
    # deff = 1 + (8/2 - 1)/3 = 2, n_eff = 4, t_{.975,1} = tan(.475 pi) = 12.7062, t^2 = 161.4476
    # centre = (.75 + 161.4476/8) / (1 + 161.4476/4) = 20.93095 / 41.36190 = .506044
    # half = 12.7062 sqrt(.1875/4 + 161.4476/64) / 41.36190 = 12.7062 * 1.602964 / 41.36190 = .492424
    found = clustered_interval(*TWO)
    assert (found.value, found.windows, found.clusters) == (0.75, 8, 2)
    assert (found.deff, found.n_eff) == (pytest.approx(2), pytest.approx(4))
    assert found.low == pytest.approx(0.013620, abs=2e-6)
    assert found.high == pytest.approx(0.998468, abs=2e-6)


def test_interval_without_clustering_is_wilson_with_t() -> None:
    # ten clusters of one window, 8 right; t_{.975,9} = 2.262157, t^2 = 5.117354
    # centre = (.8 + .2558677) / 1.5117354; half = 2.262157 sqrt(.016 + .01279339) / 1.5117354
    found = clustered_interval([1] * 8 + [0] * 2, [f"s{k}" for k in range(10)])
    centre, half = 1.0558677 / 1.5117354, 2.262157 * math.sqrt(0.02879339) / 1.5117354
    assert (found.deff, found.n_eff) == (1, 10)
    assert (found.low, found.high) == (
        pytest.approx(centre - half, abs=1e-6),
        pytest.approx(centre + half, abs=1e-6),
    )


def test_lower_bound_at_975_is_the_low_end_at_95() -> None:
    two, lower = clustered_interval(*TWO), clustered_interval(*TWO, level=0.975, side="lower")
    assert lower.low == pytest.approx(two.low, abs=1e-12)
    assert lower.high == 1


def test_one_cluster_claims_nothing() -> None:
    found = clustered_interval([1] * 50, ["a"] * 50)
    assert (found.low, found.high, found.few_clusters) == (0, 1, True)


def test_interval_reads_well() -> None:
    clusters = [f"s{k}" for k in range(12) for _ in range(10)]
    correct = ([1] * 9 + [0]) * 12
    found = clustered_interval(correct, clusters)
    assert str(found) == f".900 [{found.low:.3f}, {found.high:.3f}] (120 windows, K = 12)".replace("0.", ".")
    assert not found.few_clusters
    assert str(clustered_interval(*TWO)) == ".750 [.014, .998] (8 windows, K = 2, few clusters)"
    assert str(clustered_interval([1, 1], ["a", "a"])).startswith("1.000 [.000, 1.000]")


windows = st.lists(st.tuples(st.integers(0, 1), st.sampled_from("abcdefghijkl")), min_size=1, max_size=60)


@given(windows, st.randoms())
def test_interval_laws(drawn: list[tuple[int, str]], random: object) -> None:
    correct, clusters = [w[0] for w in drawn], [w[1] for w in drawn]
    found = clustered_interval(correct, clusters)
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value <= found.high + 1e-12
    assert found.high <= 1
    assert found.icc <= 1 + 1e-12
    assert found.n_eff + 1e-9 >= 1
    assert found.n_eff <= len(drawn)
    # the order of the windows says nothing
    random.shuffle(drawn)  # type: ignore[attr-defined]
    again = clustered_interval([w[0] for w in drawn], [w[1] for w in drawn])
    assert (again.low, again.high) == pytest.approx((found.low, found.high), abs=1e-9)
    # right and wrong swapped mirrors the interval
    mirror = clustered_interval([1 - c for c in correct], clusters)
    assert (1 - mirror.high, 1 - mirror.low) == pytest.approx((found.low, found.high), abs=1e-9)
    # more confidence is never narrower
    wide = clustered_interval(correct, clusters, level=0.99)
    assert wide.low <= found.low + 1e-12
    assert wide.high >= found.high - 1e-12


def coverage(count: int, icc: float, share: float, draws: int = 1000) -> float:
    """Share of simulated data sets whose interval holds the truth: K speakers of about 25 windows."""
    generator = np.random.default_rng([count, int(100 * icc), int(100 * share)])
    spread = (1 - icc) / icc if icc else math.inf
    hits = 0
    for _ in range(draws):
        own = np.full(count, share)
        if icc:
            own = generator.beta(share * spread, (1 - share) * spread, count)
        sizes = generator.integers(15, 36, count)
        clusters = np.repeat(np.arange(count), sizes)
        found = clustered_interval(generator.random(len(clusters)) < np.repeat(own, sizes), clusters)
        hits += found.low <= share <= found.high
    return hits / draws


@pytest.mark.parametrize("count", [10, 20, 40])
@pytest.mark.parametrize("share", [0.5, 0.75])
def test_coverage_of_clustered_windows(count: int, share: float) -> None:
    # beta-binomial speakers with the measured ICC; the standard error of 1000 draws is .7 points
    assert 0.92 <= coverage(count, 0.4, share) <= 0.97


@pytest.mark.parametrize("count", [10, 20, 40])
def test_coverage_of_independent_windows(count: int) -> None:
    # t instead of z and max(rho, 0) cost width, never coverage, where speakers do not matter:
    # with deff = 1 exactly it would be P(|Z| < t_{.975,9} = 2.262) = 97.6 % at K = 10
    assert 0.95 <= coverage(count, 0.0, 0.75) <= 0.995


def test_coverage_is_short_near_one_with_few_speakers() -> None:
    # a limit to know, not to like: at p = .9 and ICC .4 most of 10 speakers are all right, the spread
    # is seen in the few others only, and the interval is too narrow
    assert 0.82 <= coverage(10, 0.4, 0.9) <= 0.91
    assert coverage(40, 0.4, 0.9) >= 0.91


def test_counting_windows_instead_of_speakers_would_not_cover() -> None:
    generator = np.random.default_rng(5)
    hits = 0
    for _ in range(300):
        right = generator.random(500) < np.repeat(generator.beta(0.75, 0.75, 20), 25)
        found = clustered_interval(right, np.arange(500))  # every window its own cluster
        hits += found.low <= 0.5 <= found.high
    assert hits / 300 < 0.75


def test_score_by_hand() -> None:
    # medians of (.5 .9 .7), (.9 .7 .8), (.7 .8 .6) are .7, .8, .7; epoch 3 holds .8
    score = trailing_median_score([0.5, 0.9, 0.7, 0.8, 0.6])
    assert (score.value, score.epoch) == (0.8, 3)


@pytest.mark.parametrize(
    ("series", "value", "epoch"),
    [
        ([0.6], 0.6, 0),
        ([0.6, 0.9], 0.6, 0),  # the lower of two: one lucky epoch is not a score
        ([0.9, 0.6], 0.6, 1),
        ([0.6, 0.9, 0.7], 0.7, 2),
        ([0.5, 0.99, 0.5, 0.5], 0.5, 2),  # a spike alone counts for nothing
        ([0.8, 0.8, 0.8, 0.8], 0.8, 2),  # earliest best window, its latest epoch
    ],
)
def test_score_of_short_and_special_series(series: list[float], value: float, epoch: int) -> None:
    score = trailing_median_score(series)
    assert (score.value, score.epoch) == (value, epoch)


shares = st.integers(0, 20).map(lambda n: n / 20)


@given(st.lists(shares, min_size=1, max_size=30))
def test_score_laws(series: list[float]) -> None:
    score = trailing_median_score(series)
    assert score.value == series[score.epoch]
    assert score.value <= max(series)
    if len(series) >= 3:
        medians = [sorted(series[e - 2 : e + 1])[1] for e in range(2, len(series))]
        assert score.value == max(medians)
    # a trainer that keeps the best and the last three epochs always has the score's weights
    for length in range(1, len(series)):
        before, after = trailing_median_score(series[:length]), trailing_median_score(series[: length + 1])
        assert after.epoch == before.epoch or after.epoch > length - 3
        if length >= 3:
            assert after.value >= before.value


def test_lag1_by_hand() -> None:
    # about the mean 2: -1 0 1 -> products -1*0 + 0*1 = 0;  1 3 1 3: -1 1 -1 1 -> -3/4
    assert lag1_correlation([1, 2, 3]) == 0
    assert lag1_correlation([1, 3, 1, 3]) == -0.75
    assert lag1_correlation([0.1] * 7) == 0
    assert lag1_correlation([0.1, 0.9]) == 0


def test_optimism_by_hand() -> None:
    # p = .5, n_eff = 25: sigma = .1; k = 10: PHI^-1(9.625 / 10.25 = .9390244) = 1.546633
    assert optimism(0.5, 25, trials=10, epochs=1, r=0) == pytest.approx(0.1546633, abs=1e-6)
    # one look is no choice; epochs that repeat each other are one look
    assert optimism(0.5, 25, trials=1, epochs=1, r=0) == 0
    assert optimism(0.5, 25, trials=10, epochs=30, r=1) == optimism(0.5, 25, trials=10, epochs=1, r=0)


def test_the_notebooks_target_can_be_met_without_skill() -> None:
    # n_eff 36, 50 trials of 30 epochs: .5 + .0833 * 3.34 = .778
    assert 0.5 + optimism(0.5, 36, trials=50, epochs=30, r=0) == pytest.approx(0.78, abs=0.005)


@pytest.mark.parametrize(("trials", "epochs"), [(5, 1), (50, 1), (20, 10)])
def test_optimism_against_simulation(trials: int, epochs: int) -> None:
    generator = np.random.default_rng(trials)
    best = generator.binomial(400, 0.7, (2000, trials * epochs)).max(axis=1) / 400
    assert best.mean() - 0.7 == pytest.approx(optimism(0.7, 400, trials, epochs, r=0), rel=0.04)


@given(st.integers(2, 60), st.integers(1, 30), st.floats(0, 1), st.floats(0.05, 0.95))
def test_optimism_falls_with_the_rank(trials: int, epochs: int, r: float, p: float) -> None:
    by_rank = [optimism(p, 100, trials, epochs, r, rank) for rank in range(1, trials + 1)]
    assert by_rank[0] == optimism(p, 100, trials, epochs, r)
    assert all(first > second for first, second in pairwise(by_rank))


def test_optimism_of_each_rank_against_simulation() -> None:
    ranked = np.sort(np.random.default_rng(0).normal(size=(20000, 12)), axis=1)[:, ::-1].mean(axis=0)
    for rank, expected in enumerate(ranked, 1):
        assert optimism(0.5, 0.25, 12, 1, 0, rank) == pytest.approx(expected, abs=0.03)  # sigma is 1


def test_optimism_of_correlated_epochs_against_simulation() -> None:
    # epochs as a stationary AR(1) with r = .8, 20 trials of 20 epochs: k = 20 * 4 is an approximation
    generator, r = np.random.default_rng(3), 0.8
    value = generator.normal(size=(1500, 20))
    best = value.copy()
    for _ in range(19):
        value = r * value + math.sqrt(1 - r * r) * generator.normal(size=value.shape)
        best = np.maximum(best, value)
    expected = 0.05 * best.max(axis=1).mean()  # sigma = sqrt(.25/100) = .05
    assert optimism(0.5, 100, trials=20, epochs=20, r=r) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: clustered_interval([], []), "no windows"),
        (lambda: clustered_interval([1, 0], ["a"]), "one cluster name per window"),
        (lambda: clustered_interval([1, 2], ["a", "b"]), "not 2"),
        (lambda: clustered_interval([1, math.nan], ["a", "b"]), "not nan"),
        (lambda: clustered_interval(*TWO, level=95), "95 %"),
        (lambda: trailing_median_score([]), "no epoch"),
        (lambda: trailing_median_score([0.5, math.nan]), "finite"),
        (lambda: trailing_median_score([0.5], window=0), "at least 1"),
        (lambda: optimism(1.5, 10, 1, 1, 0), "share"),
        (lambda: optimism(0.5, 0, 1, 1, 0), "positive"),
        (lambda: optimism(0.5, 10, 1, 1, 2), "correlation"),
        (lambda: optimism(0.5, 10, 3, 1, 0, 4), "rank among 3 trials is 1 to 3, not 4"),
    ],
)
def test_bad_numbers_are_named(call: object, says: str) -> None:
    with pytest.raises(StatisticsError, match=says):
        call()  # type: ignore[operator]
