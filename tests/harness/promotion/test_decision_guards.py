"""What a policy asks of a confirmation, and what is said against a champion and against a baseline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.config.files.policy_file import load_policy
from harness.config.trial.trial_config import TrialConfig
from harness.promotion.evidence import confirmation_stamp
from harness.promotion.frozen_test_set import baseline_opponent
from harness.promotion.guards.assessment import GuardRefusedError, require_guards_pass
from harness.promotion.guards.guard import Guard, refuses
from harness.promotion.registry.champion import (
    ChallengerComparison,
    Contestant,
    ContestWindows,
    compare_challenger,
)
from harness.selection.choose_finalists import confirmable_trials
from harness.study.confirmation.conclusion import Finalist
from harness.study.storage.record import Record
from harness.study.study import Study
from tests.harness.places.asked_guards import champion_guard, confirmation_guard, no_baseline_guard
from tests.harness.places.untrained_study import confirm_trials, finished_study, outcome

DEFAULT, PRODUCTION = load_policy("default"), load_policy("production")
RULE = PRODUCTION.confirmation
SCORES = (0.9, 0.88, 0.86, 0.84, 0.82, 0.8)


@pytest.fixture
def study(record: Record) -> Study:
    """Six configurations, best first, a seventh that cannot be exported, and the first once more."""
    grid = [(feature, width) for feature in ("mfcc", "waveform") for width in (0.125, 0.25, 1.0)]
    trials: list[Any] = [
        ({"feature": feature, "width": width}, outcome(score))
        for (feature, width), score in zip(grid, SCORES, strict=True)
    ]
    no = ({"feature": "mfcc", "width": 0.5}, outcome(0.99, promotable="no: it holds a loop"))
    parameters = {"feature": ["waveform", "mfcc"], "width": [0.125, 0.25, 0.5, 1.0]}
    return finished_study(record, [*trials, no, (trials[0][0], outcome(0.95))], parameters=parameters)


def asked(study: Study, seeds: int, numbers: tuple[int, ...], **more: Any) -> Guard:
    """The guard of a confirmation of these trials."""
    arms = [(one, study.trial(one).fingerprint, float(study.trial(one).score or 0)) for one in numbers]
    return confirmation_guard(confirm_trials("told", seeds, arms, **more), RULE, confirmable_trials(study))


def test_who_could_be_a_finalist_counts_once_and_only_if_it_can_be_exported(study: Study) -> None:
    assert [one.number for one in confirmable_trials(study)] == [7, 1, 2, 3, 4, 5]


def test_what_the_policy_asks_for_is_confirmed(study: Study) -> None:
    guard = asked(study, 5, (7, 1, 2, 3, 4))
    assert (guard.ok, guard.measured, guard.bound) == (
        True,
        "5 seeds, 5 finalists",
        ">= 5 seeds, >= 5 finalists",
    )
    assert asked(study, 9, (7, 1, 2, 3, 4, 5)).ok


@pytest.mark.parametrize(
    ("seeds", "numbers", "measured"),
    [(2, (7,), "2 seeds, 1 finalist"), (4, (7, 1, 2, 3, 4), "4 seeds, 5 finalists"), (5, (7, 1, 2, 3), "5 seeds, 4")],
)  # fmt: skip
def test_less_than_the_policy_asks_for_is_refused(
    study: Study, seeds: int, numbers: tuple[int, ...], measured: str
) -> None:
    guard = asked(study, seeds, numbers)
    assert refuses(PRODUCTION, guard)
    assert guard.measured.startswith(measured)
    assert "harness confirm told --finalists 5 --seeds 5" in guard.advice


def test_a_study_with_fewer_trials_needs_no_more_finalists_than_it_has(study: Study) -> None:
    known = confirm_trials(
        "told", 5, [(7, study.trial(7).fingerprint, 0.95), (1, study.trial(1).fingerprint, 0.88)]
    )
    able = confirmable_trials(study)
    assert confirmation_guard(known, RULE, able[:2]).ok
    assert not confirmation_guard(known, RULE, able[:3]).ok


def test_trials_that_came_later_and_rank_above_a_finalist_make_it_old(study: Study) -> None:
    guard = asked(study, 5, (7, 1, 2, 4, 5))
    assert refuses(PRODUCTION, guard)
    assert "trial 3 is none of them, and scores 0.840 in the sweep" in guard.measured
    assert "no other trial above the last of them" in guard.bound


def test_of_a_trial_that_was_named_only_the_seeds_are_counted(study: Study) -> None:
    assert asked(study, 5, (4,), named=True).ok
    guard = asked(study, 2, (4,), named=True)
    assert (guard.ok, guard.bound) == (False, ">= 5 seeds")
    assert "harness confirm told --run 4 --seeds 5" in guard.advice


def test_a_baseline_that_is_a_poor_trial_is_no_finalist(study: Study) -> None:
    arms = [
        (one, study.trial(one).fingerprint, float(study.trial(one).score or 0)) for one in (7, 1, 2, 3, 4, 5)
    ]
    known = confirm_trials("told", 5, arms)
    added = replace(
        known, finalists=tuple(replace(one, is_added=one.trial in (4, 5)) for one in known.finalists)
    )
    guard = confirmation_guard(added, RULE, confirmable_trials(study))
    assert (guard.ok, guard.measured) == (False, "5 seeds, 4 finalists")


def test_an_ensemble_is_not_sent_to_confirm() -> None:
    assert "harness confirm" in confirmation_guard(None, RULE).advice
    guard = confirmation_guard(None, RULE, ensemble=True)
    assert refuses(PRODUCTION, guard)
    assert "harness confirm" not in guard.advice
    assert "one of its members" in guard.advice


def test_the_stamp_calls_the_deviation_what_it_is() -> None:
    confirmation = confirm_trials("told", 5, [(7, "f", 0.95)])
    stamp = confirmation_stamp(confirmation.shipped, confirmation)
    assert "has mean 0.950 (sd 0.000) over 5 fresh seeds; the seed with the median" in stamp


# The opponent


def met(opponent: str, **more: Any) -> ChallengerComparison:
    right, clusters = np.ones(800, bool), [f"s{index // 20}" for index in range(800)]
    sides = Contestant("trial 0", right, 100), Contestant(opponent, right, 100)
    return compare_challenger(*sides, ContestWindows(clusters), DEFAULT.champion, **more)


def test_the_advice_depends_on_the_opponent_and_the_policy() -> None:
    lost = met("the baseline (baseline, seed 3)")
    by = {
        (is_champion, policy.name): champion_guard(lost, is_champion=is_champion, policy=policy)
        for is_champion in (True, False)
        for policy in (DEFAULT, PRODUCTION)
    }
    assert not any(guard.ok for guard in by.values())
    assert by[True, "default"].name == "against the champion"
    assert "The champion stays" in by[True, "default"].advice
    for policy in ("default", "production"):
        guard = by[False, policy]
        assert guard.name == "against the baseline"
        assert "The champion" not in guard.advice
        assert "the search was worth more than the baseline" in guard.advice
    assert "it becomes champion all the same, since there is none" in by[False, "default"].advice
    assert "becomes champion" not in by[False, "production"].advice


def test_a_champion_that_cannot_be_compared_does_not_lose_by_numbers() -> None:
    found = met(
        "champion n version 3", incomparable="it learned another label map. `harness rollback n --to V`"
    )
    guard = champion_guard(found, is_champion=True, policy=PRODUCTION)
    assert refuses(PRODUCTION, guard)
    assert "The champion stays" not in guard.advice
    assert "harness rollback" in str(guard)


@pytest.mark.parametrize(
    ("failed", "outcomes", "reason"),
    [
        (("seed 2: diverged: nan",), (0.6,), "not every seed of it has a score (seed 2: diverged: nan)"),
        ((), (0.6, 0.7), "its median seed has no ONNX file (no: it holds a loop)"),
    ],
)
def test_a_baseline_that_cannot_be_compared_fails_with_the_reason(
    failed: tuple[str, ...], outcomes: tuple[float, ...], reason: str
) -> None:
    told = [outcome(score, promotable="no: it holds a loop") for score in outcomes]
    (one,) = confirm_trials("told", 2, [(1, "f", 0.7)]).finalists
    replicates = tuple(
        type(one.shipped)(-1, "complete", "n", of["score"], 1, "", {}, of, {}, "f", seed, "k")
        for seed, of in enumerate(told, 1)
    )
    baseline = Finalist("baseline", "n", TrialConfig(), "f", 1, None, None, None, True, replicates, failed)
    found = baseline_opponent(baseline, None, Path())  # type: ignore[arg-type]  # it asks MLflow for nothing
    assert found == reason
    guard = no_baseline_guard(str(found), PRODUCTION)
    assert (guard.name, guard.measured) == ("against the baseline", f"cannot be compared: {reason}")
    assert refuses(PRODUCTION, guard)
    assert not refuses(DEFAULT, guard)


def test_a_refusal_of_what_the_confirmation_chose_says_how_to_choose_otherwise() -> None:
    guards = [Guard("x", "integrity", False, "0", "1", "Mend it.")]
    for chosen in (True, False):
        with pytest.raises(GuardRefusedError) as refusal:
            require_guards_pass("told", "trial 3, seed 2", guards, DEFAULT, chosen=chosen)
        assert ("or name another with --run" in str(refusal.value)) is chosen
