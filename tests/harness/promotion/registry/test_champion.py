"""What a challenger must show: better, or not worse and cheaper; never on a handful of speakers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.cost import window_macs
from harness.config.policy import ChampionRule
from harness.config.trial.trial_config import TrialConfig
from harness.promotion.registry.champion import (
    Champion,
    Contestant,
    ContestWindows,
    compare_challenger,
    macs_of,
)
from harness.promotion.registry.model_versions import RegisteredVersion
from harness.reporting.analysis import WindowCorrectness

RULE = ChampionRule(margin=0.01, cheaper=0.2)
MACS = 1_000_000


def answers(rights: float, clusters: int, seed: int = 0, windows: int = 20) -> tuple[Any, list[str]]:
    """Windows that are answered rightly with this probability, and the speaker of each."""
    rng = np.random.default_rng(seed)
    return rng.random(clusters * windows) < rights, [f"s{i // windows}" for i in range(clusters * windows)]


def against(ours: Any, theirs: Any, clusters: list[str], macs: int = MACS, **more: Any) -> Any:
    run_id = "a" * 32 if more.pop("same_source", False) else ""
    challenger = Contestant("trial 0", ours, macs, run_id)
    champion = Contestant("champion x", theirs, more.pop("champion_macs", MACS), run_id)
    windows = ContestWindows(clusters, more.pop("subsets", None))
    return compare_challenger(challenger, champion, windows, RULE, **more)


def test_better() -> None:
    ours, clusters = answers(0.95, 40)
    theirs, _ = answers(0.7, 40, seed=1)
    found = against(ours, theirs, clusters, macs=3 * MACS)
    assert (found.wins, found.verdict, found.cheaper) == (True, "better", -2)
    assert found.text.startswith("better, against champion x: +2")
    assert "40 clusters, 800 windows; 3 M MACs a window against 1 M" in found.text


def test_the_same_answers_win_only_with_a_fifth_fewer_macs() -> None:
    ours, clusters = answers(0.8, 40)
    assert against(ours, ours, clusters, macs=800_000).verdict == "non-inferior and cheaper"
    assert against(ours, ours, clusters, macs=800_001).verdict == "not shown better"
    assert not against(ours, ours, clusters, macs=1, champion_macs=None).wins  # nobody knows what it needs


def test_worse_by_more_than_the_margin_is_no_bargain() -> None:
    clusters = [f"s{i // 20}" for i in range(800)]
    theirs = np.ones(800, bool)
    ours = theirs.copy()
    ours[::20] = False  # one window of each speaker: 5 points
    found = against(ours, theirs, clusters, macs=1)
    assert not found.wins
    assert found.text.endswith("it is worse")


def test_a_few_speakers_are_no_evidence() -> None:
    ours, theirs = np.ones(180, bool), np.zeros(180, bool)
    clusters = [f"s{i // 20}" for i in range(180)]
    found = against(ours, theirs, clusters, macs=1)
    assert (found.wins, found.verdict) == (False, "not shown better")
    assert (
        "fewer than 10 clusters; about 10 clusters (speakers, or groups of them) would decide" in found.text
    )


def test_the_same_run_renews_its_evidence() -> None:
    ours, clusters = answers(0.8, 3)
    found = against(ours, ours, clusters, same_source=True)
    assert (found.wins, found.verdict) == (True, "the same model")


@settings(max_examples=30, deadline=None)
@given(st.floats(0.3, 1), st.floats(0.3, 1), st.integers(2, 30), st.integers(0, 99))
def test_of_two_equally_dear_models_at_most_one_beats_the_other(
    a: float, b: float, k: int, seed: int
) -> None:
    ours, clusters = answers(a, k, seed)
    theirs, _ = answers(b, k, seed + 100)
    one, other = against(ours, theirs, clusters), against(theirs, ours, clusters)
    assert not (one.wins and other.wins)
    assert one.difference == other.difference.reversed()
    for found in (one, other):
        assert found.wins == (found.difference.low > 0 and k >= 10)
        assert found.as_json()["difference"]["clusters"] == k


FRONT_ENDS = ({"kind": "mfcc"}, {"kind": "waveform"}, {"kind": "log_mel"}, {"kind": "mfcc_delta"})


@pytest.mark.parametrize("front_end", FRONT_ENDS, ids=lambda one: str(one["kind"]))
def test_macs_of_a_specification_are_those_of_its_configuration(front_end: dict[str, str]) -> None:
    config = TrialConfig.model_validate({"feature": front_end, "model": {"width": 0.5}})
    network = {
        "front_end": config.feature.model_dump(mode="json"),
        "architecture": config.model.model_dump(mode="json"),
    }
    assert macs_of(network) == window_macs(config)
    assert macs_of({"front_end": None, "architecture": None, "members": [network] * 3}) == 3 * window_macs(
        config
    )
    assert macs_of({}) is None


def champion(task: str) -> Champion:
    registered = RegisteredVersion("n", "3", "r", "s", "study", "verified", "t" * 64, 1, None, None)
    specification = {"task": task, "label_map_digest": "a", "manifest_digests": {"test": "t"}}
    return Champion(registered, Path(), 1, specification, ("old",))


def test_other_label_maps_and_other_test_windows_are_said() -> None:
    same = {"label_map_digest": "a", "manifest_digests": {"test": "t"}}
    other = {"label_map_digest": "b", "manifest_digests": {"test": "u"}}
    assert champion("pseudo").notes_against(same) == ["old"]
    assert champion("pseudo").incomparable_with(same) == ""
    labels = champion("pseudo").incomparable_with(other)
    assert "answers mean nothing on these windows" in labels
    assert "`harness rollback n --to VERSION`" in labels
    _, windows = champion("pseudo").notes_against(other)
    assert "it may have been trained on some of these" in windows
    assert champion("overlap").incomparable_with(other) == ""


def test_answers_that_mean_nothing_decide_nothing() -> None:
    ours, clusters = answers(0.95, 40)
    theirs, _ = answers(0.5, 40, seed=1)
    found = against(
        ours, theirs, clusters, macs=1, incomparable="it learned another label map", notes=("old",)
    )
    assert (found.wins, found.verdict) == (False, "not comparable")
    assert found.text == "not comparable, against champion x: it learned another label map; note: old"
    won = against(ours, theirs, clusters, notes=("it may have been trained on some of these",))
    assert won.wins
    assert won.text.endswith("; note: it may have been trained on some of these")


# Pools of evaluation subsets


def pool(*parts: tuple[str, float, float, int]) -> tuple[Any, Any, list[str], list[str]]:
    """Subsets by name, with how often each model is right there and how many speakers there are."""
    ours, theirs, clusters, subsets = [], [], [], []
    for name, our_share, their_share, speakers in parts:
        for mine, share in ((ours, our_share), (theirs, their_share)):
            mine += [index % 20 < round(20 * share) for index in range(20 * speakers)]
        clusters += [f"{name}{index // 20}" for index in range(20 * speakers)]
        subsets += [name] * (20 * speakers)
    return np.array(ours), np.array(theirs), clusters, subsets


def test_a_pool_is_won_only_where_every_telling_subset_is() -> None:
    ours, theirs, clusters, subsets = pool(("clean", 0.95, 0.7, 60), ("other", 0.7, 0.75, 12))
    assert against(ours, theirs, clusters).verdict == "better"  # the pool alone hides it
    found = against(ours, theirs, clusters, subsets=subsets)
    assert (found.wins, found.verdict) == (False, "not shown better")
    assert "decided the other way on other" in found.text
    both, few = (
        pool(("clean", 0.95, 0.7, 60), ("other", share, 0.75, k)) for share, k in ((0.9, 12), (0.7, 5))
    )
    for ours, theirs, clusters, subsets in (both, few):  # five speakers tell nothing, either way
        assert against(ours, theirs, clusters, subsets=subsets).verdict == "better"


def test_the_cheaper_one_may_be_worse_nowhere() -> None:
    ours, theirs, clusters, subsets = pool(("clean", 0.8, 0.8, 140), ("other", 0.75, 0.8, 10))
    assert against(ours, theirs, clusters, macs=1).verdict == "non-inferior and cheaper"
    found = against(ours, theirs, clusters, macs=1, subsets=subsets)
    assert not found.wins
    assert "on every evaluation subset of 10 clusters too" in found.text
    same = pool(("clean", 0.8, 0.8, 60), ("other", 0.8, 0.8, 10))
    assert against(*same[:3], macs=1, subsets=same[3]).verdict == "non-inferior and cheaper"
    small = pool(*((name, 0.9, 0.8, 6) for name in ("clean", "other")))
    assert against(*small[:3], macs=1).wins
    assert not against(*small[:3], macs=1, subsets=small[3]).wins  # no subset tells anything


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0.3, 1), st.floats(0.3, 1), st.integers(2, 20)), min_size=1, max_size=3))
def test_a_report_and_a_promotion_decide_alike(parts: list[tuple[float, float, int]]) -> None:
    ours, theirs, clusters, subsets = pool(*((f"p{index}", *one) for index, one in enumerate(parts)))
    told = [WindowCorrectness(one, np.array(clusters), np.array(subsets)) for one in (ours, theirs)]
    found = against(ours, theirs, clusters, subsets=subsets)
    assert found.difference == told[0].difference_from(told[1])
    assert found.wins == (found.difference.decided and found.difference.value > 0)
