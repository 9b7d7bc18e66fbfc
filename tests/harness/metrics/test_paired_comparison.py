import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, t

from harness.metrics.intervals import StatisticsError
from harness.metrics.paired_comparison import (
    MOST_CLUSTERS,
    Difference,
    clusters_to_decide,
    paired_cluster_bootstrap,
    two_figures,
)

pairs = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.sampled_from(["s1", "s2", "s3", "s4", "s5"])), min_size=1, max_size=60
)  # fmt: skip


def columns(windows):
    return [np.array(column) for column in zip(*windows, strict=True)]


@given(pairs)
def test_exchanged_models_give_the_negated_difference(windows) -> None:
    a, b, clusters = columns(windows)
    there, back = paired_cluster_bootstrap(a, b, clusters), paired_cluster_bootstrap(b, a, clusters)
    assert (back.value, back.low, back.high) == (-there.value, -there.high, -there.low)
    assert back == there.reversed()
    assert back.needed == there.needed


@given(pairs)
def test_a_model_does_not_differ_from_itself(windows) -> None:
    a, _, clusters = columns(windows)
    found = paired_cluster_bootstrap(a, a, clusters)
    bounds = (found.low, found.high) if found.clusters > 1 else (0, 0)
    assert (found.value, *bounds, found.needed) == (0, 0, 0, None)
    assert (found.decided, found.verdict) == (False, "undecided")
    assert found.remedy == (
        "no difference is seen"
        if found.clusters > 1
        else "one cluster: how many would decide cannot be estimated"
    )


@given(pairs, st.randoms(use_true_random=False))
def test_the_order_of_windows_says_nothing(windows, source) -> None:
    shuffled = source.sample(windows, len(windows))
    assert paired_cluster_bootstrap(*columns(windows)) == paired_cluster_bootstrap(*columns(shuffled))


@given(pairs)
def test_the_interval_lies_within_what_is_possible(windows) -> None:
    found = paired_cluster_bootstrap(*columns(windows))
    assert -1 <= found.low <= found.high <= 1
    assert found.windows == len(windows)
    assert found.needed is None or 2 <= found.needed <= MOST_CLUSTERS


def test_clusters_to_decide_by_hand() -> None:
    # Ten clusters of four windows: in five of them model a is right once more, so d = .25 or 0, D = .125,
    # s^2 = 10 * .125^2 / 9, s = .131762. The first K with t_{.975,K-1} s / sqrt(K) < .125:
    # K = 6: 2.5706 * .131762 / 2.4495 = .13828; K = 7: 2.4469 * .131762 / 2.6458 = .12186.
    b = np.array([1, 0, 0, 0] * 10)
    a = b.copy()
    a[1::8] = 1
    clusters = np.repeat(np.arange(10), 4)
    assert clusters_to_decide(a, b, clusters) == 7
    spread = math.sqrt(10 * 0.125**2 / 9)
    assert t.ppf(0.975, 5) * spread / math.sqrt(6) > 0.125 > t.ppf(0.975, 6) * spread / math.sqrt(7)
    assert paired_cluster_bootstrap(a, b, clusters).decided


def test_a_difference_that_never_varies_takes_two_clusters_and_few_are_no_evidence() -> None:
    a, b, clusters = np.ones(20), np.zeros(20), np.repeat(np.arange(5), 4)
    found = paired_cluster_bootstrap(a, b, clusters)
    assert clusters_to_decide(a, b, clusters) == 2
    assert (found.value, found.low, found.high, found.needed) == (1, 1, 1, 10)
    assert found.verdict == "undecided"
    assert found.remedy == (
        "fewer than 10 clusters; about 10 clusters (speakers, or groups of them) would decide"
    )


def test_a_hair_is_not_decided_by_anybody() -> None:
    source = np.random.default_rng(3)
    b = source.integers(0, 2, 4_000)
    a = source.integers(0, 2, 4_000)
    a[: abs(int(a.sum() - b.sum())) + 60] = b[: abs(int(a.sum() - b.sum())) + 60]
    difference = int(a.sum() - b.sum())
    flip = np.flatnonzero(a == (difference > 0))[: abs(difference) - 1]
    a[flip] = 1 - a[flip]  # one window in 4,000 is left between them
    found = paired_cluster_bootstrap(a, b, np.repeat(np.arange(40), 100))
    assert abs(found.value) == 1 / 4_000
    assert found.needed is None
    assert found.remedy == "more than 10,000 clusters (speakers, or groups of them) would decide"
    assert replace(found, speakers=40).remedy == "more than 10,000 speakers would decide"


# value, low, high, windows, clusters, needed
OPEN = Difference(0.02, -0.01, 0.05, 400, 12, 20)
APART = Difference(0.1, 0.02, 0.2, 400, 12, 8)
FEW = Difference(0.1, 0.02, 0.2, 400, 8, 10)


def test_what_would_decide_is_told_in_speakers() -> None:
    assert replace(OPEN, speakers=12).remedy == "about 20 speakers would decide"
    groups = replace(OPEN, speakers=34)  # groups of some three
    assert groups.remedy == "about 57 speakers in 20 clusters would decide"
    assert (groups.speakers_needed, groups.as_json()["speakers_needed"]) == (57, 57)
    assert OPEN.speakers_needed is None
    assert two_figures(1_234) == "1,300"
    assert replace(FEW, speakers=24).remedy == (
        "fewer than 10 clusters; about 30 speakers in 10 clusters would decide"
    )


@pytest.mark.parametrize(
    ("columns", "remedy"),
    [
        ({"clean": APART, "other": FEW}, ""),
        ({"clean": APART, "other": APART}, ""),
        ({"clean": FEW, "other": FEW}, "no evaluation subset has 10 clusters"),
        (
            {"clean": APART, "other": OPEN},
            "on other about 20 clusters (speakers, or groups of them) would decide",
        ),
        ({"clean": APART, "other": APART.reversed()}, "decided the other way on other"),
    ],
)
def test_a_pool_is_decided_only_where_its_columns_are(columns, remedy) -> None:
    pool = replace(APART, columns=tuple(columns.items()))
    assert (pool.decided, pool.remedy) == (remedy == "", remedy)
    assert (pool.reversed().decided, pool.reversed().remedy) == (pool.decided, remedy)
    assert pool.as_json()["columns"]["other"] == columns["other"].as_json()
    assert not replace(OPEN, columns=pool.columns).decided


def test_what_is_asked_for_does_decide() -> None:
    # Draw as many clusters as were asked for from the very same clusters: about half of the draws decide.
    source = np.random.default_rng(5)
    d = source.binomial(20, 0.56, 15) - source.binomial(20, 0.5, 15)
    a = np.concatenate([np.r_[np.ones(max(0, x)), np.zeros(20 - max(0, x))] for x in d])
    b = np.concatenate([np.r_[np.ones(max(0, -x)), np.zeros(20 - max(0, -x))] for x in d])
    clusters = np.repeat(np.arange(15), 20)
    needed = clusters_to_decide(a, b, clusters)
    assert needed is not None
    decided = 0
    for seed in range(40):
        drawn = np.random.default_rng(seed).integers(0, 15, needed)
        index = (drawn[:, None] * 20 + np.arange(20)).ravel()
        decided += paired_cluster_bootstrap(a[index], b[index], np.repeat(np.arange(needed), 20)).decided
    assert 10 <= decided <= 34


@pytest.mark.parametrize(
    ("count", "first", "second", "icc"), [(12, 0.75, 0.7, 0.4), (25, 0.9, 0.85, 0.2), (40, 0.6, 0.6, 0.4)]
)
def test_the_interval_covers_the_truth_95_times_in_100(count, first, second, icc) -> None:
    """Two models that agree on half of the speakers; 25 windows each, clustered as the reference results are."""
    source, size, runs = np.random.default_rng(count), (1 - icc) / icc, 200
    covered = 0
    for seed in range(runs):
        u, v = source.random(count), source.random(count)
        v = np.where(source.random(count) < 0.5, u, v)
        p = beta.ppf(u, first * size, (1 - first) * size)[:, None]
        q = beta.ppf(v, second * size, (1 - second) * size)[:, None]
        a, b = (source.random((count, 25)) < p).ravel(), (source.random((count, 25)) < q).ravel()
        found = paired_cluster_bootstrap(a, b, np.repeat(np.arange(count), 25), seed=seed)
        covered += found.low <= first - second <= found.high
    assert 0.9 <= covered / runs <= 0.99


@pytest.mark.parametrize(
    ("a", "b", "clusters", "says"),
    [
        ([1, 0], [1], ["x", "y"], "(2,), (1,) and (2,)"),
        ([], [], [], "no windows"),
        ([1, 2], [0, 1], ["x", "y"], "not 2.0"),
        ([[1]], [[0]], [["x"]], "(1, 1)"),
    ],
)
def test_what_cannot_be_compared_is_said(a, b, clusters, says) -> None:
    with pytest.raises(StatisticsError, match=f".*{says.replace('(', '[(]').replace(')', '[)]')}"):
        paired_cluster_bootstrap(a, b, clusters)


def test_a_level_is_a_share() -> None:
    with pytest.raises(StatisticsError, match=r"0\.95 means 95 %"):
        paired_cluster_bootstrap([1], [0], ["x"], level=95)
