"""What a confirmation concludes of its scores, and what the study remembers of it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from harness.config.cost import estimate_trainings
from harness.config.trial.trial_config import TrialConfig
from harness.selection.choose_finalists import choose_finalists
from harness.selection.confirm import Plan, no_winner
from harness.study.confirmation.conclusion import (
    Confirmation,
    Finalist,
    Replicate,
    conclude,
    confirmation_of,
    confirmation_progress,
    start_confirmation,
    unfinished_confirmation,
)
from harness.study.confirmation.definition import (
    ReplicateResult,
    definition_of,
    key_of,
    results_of,
    runs_named,
    save_definition,
    save_result,
)
from harness.study.storage.record import Record
from tests.harness.places.untrained_study import MFCC, WAVE, add_complete_trials, finished_study, outcome

# Finalists and conclusion


def finalist(scores: Sequence[float], macs: int, trial: int | None = 0, *, failed: int = 0) -> Finalist:
    replicates = tuple(
        Replicate(
            -1 if trial is None else trial, "complete", "n", score, 1, "", {}, outcome(score), {}, "f", seed, "k"
        )
        for seed, score in enumerate(scores, 1)
    )  # fmt: skip
    return Finalist(
        "baseline" if trial is None else f"trial {trial}", "n", TrialConfig(), "f", macs, trial,
        None if trial is None else 0.9, None if trial is None else 0.04, trial is None, replicates,
        ("seed 9: diverged: nan",) * failed,
    )  # fmt: skip


def conclusion(*finalists: Finalist) -> Confirmation:
    found = conclude("s", 3, finalists)
    assert found is not None
    return found


def test_a_cheaper_one_within_one_standard_error_wins_and_its_median_seed_ships() -> None:
    dear, cheap = finalist([0.80, 0.82, 0.84], 100, 1), finalist([0.79, 0.80, 0.87], 10, 2)
    bad = finalist([0.5, 0.5, 0.5], 1, None)
    found = conclusion(dear, cheap, bad)
    assert [one.label for one in found.finalists] == ["trial 1", "trial 2", "baseline"]
    assert (found.winner.label, found.shipped.replicate, found.shipped.label) == (
        "trial 2",
        2,
        "trial 2, seed 2",
    )
    assert found.winner.shrink == pytest.approx(0.9 - 0.82)
    assert "the cheapest within one standard error (0.012) of trial 1" in found.conclusion
    assert "shrank by 0.080 (predicted optimism at its rank 0.040)" in found.finalists[1].line()
    document = found.as_json()
    assert (document["winner"], document["beats_baseline"], document["shipped"]["replicate"]) == (
        "trial 2",
        True,
        2,
    )


def test_a_baseline_that_wins_is_said_plainly() -> None:
    found = conclusion(finalist([0.7, 0.71, 0.72], 100), finalist([0.80, 0.81, 0.82], 50, None))
    assert found.conclusion.startswith("nothing found beats the baseline; winner: baseline")
    assert found.shipped.as_json()["number"] is None
    assert found.as_json()["beats_baseline"] is False
    assert found.winner.shrink is None


def test_that_the_baseline_is_not_beaten_is_said_as_strongly_as_the_scores_allow() -> None:
    dear, cheap = finalist([0.80, 0.82, 0.84], 100, 1), finalist([0.79, 0.80, 0.87], 10, None)
    assert conclusion(dear, cheap).conclusion.startswith("nothing found beats the baseline")  # equal means
    near = finalist([0.79, 0.80, 0.86], 10, None)
    assert conclusion(dear, near).conclusion.startswith(
        "no finalist is shown better than the cheaper baseline; "
    )
    wild, steady = finalist([0.60, 0.80, 0.99], 10, 1), finalist([0.78, 0.78, 0.78], 10, None)
    assert conclusion(wild, steady).conclusion.startswith("no finalist is shown better than the baseline; ")
    even = conclusion(finalist([0.7, 0.8], 10, 1), finalist([0.5, 0.5], 10, None))
    assert "the median with" in even.conclusion  # of the 3 seeds that `conclusion` says
    assert "beats" not in even.conclusion


def test_who_has_a_failed_seed_is_listed_with_the_reason_and_not_ranked() -> None:
    broken = finalist([0.99, 0.99], 1, 5, failed=1)
    found = conclusion(broken, finalist([0.5, 0.6, 0.55], 9, None))
    assert [one.label for one in found.finalists] == ["baseline", "trial 5"]
    assert found.finalists[1].mean is None
    assert "trial 5: not ranked: seed 9: diverged: nan" in "\n".join(found.lines())
    assert conclude("s", 3, [broken]) is None


ONE_CLASS = {"val/predicted_positive": 0.97, "val/recall_0": 0.1, "val/recall_1": 1.0}
DEAF = {"val/predicted_positive": 0.6, "val/recall_0": 0.28, "val/recall_1": 0.95}


def with_median(one: Finalist, at_best: dict[str, float]) -> Finalist:
    """The finalist whose median seed answers like this."""
    shipped = replace(one.shipped, outcome={**one.shipped.outcome, "at_best": at_best})
    return replace(one, replicates=tuple(shipped if r is one.shipped else r for r in one.replicates))


@pytest.mark.parametrize("at_best", [ONE_CLASS, DEAF])
def test_a_finalist_whose_median_seed_answers_one_class_does_not_win(at_best: dict[str, float]) -> None:
    constant = with_median(finalist([0.90, 0.92, 0.94], 1, 1), at_best)
    dear, cheap = finalist([0.80, 0.82, 0.84], 100, 2), finalist([0.79, 0.80, 0.87], 10, 3)
    found = conclusion(dear, constant, cheap, finalist([0.5, 0.5, 0.5], 1, None))
    assert [one.label for one in found.finalists] == ["trial 1", "trial 2", "trial 3", "baseline"]
    assert (found.best.label, found.winner.label) == (
        "trial 2",
        "trial 3",
    )  # the rule, as if it were not there
    assert "not shipped: its median seed answers one class (" in found.finalists[0].line()
    assert "within one standard error (0.012) of trial 2" in found.conclusion
    assert found.conclusion.endswith(f"; trial 1 is not shipped: {found.finalists[0].unfit}")
    assert [bool(one["unfit"]) for one in found.as_json()["finalists"]] == [True, False, False, False]
    assert conclude("s", 3, [constant]) is None


def test_a_confirmation_in_which_nothing_may_ship_says_so(record: Record) -> None:
    study = finished_study(record, [(MFCC, outcome(0.6))], baseline=MFCC)
    planned = save_definition(study, choose_finalists(study, record, None, 1, None)[0], 2)
    (arm,) = planned.arms
    for seed in (1, 2):
        save_result(study, arm.fingerprint, seed, ReplicateResult(outcome(0.7, at_best=ONE_CLASS)))
    assert confirmation_of(study) is None
    assert "no configuration may ship" in confirmation_progress(study)[0]
    plan = Plan(study, planned, [], estimate_trainings([], 1, "cpu", {}), [], {})
    assert "no configuration may ship" in no_winner(plan)
    assert "trial 0 (the baseline): 0.700" in no_winner(plan)
    assert "answers one class (predicted-positive rate 0.970)" in no_winner(plan)
    save_definition(study, planned.arms, 2, named=True)
    assert confirmation_of(study, 0) is None
    said = confirmation_progress(study, 0)[0]
    assert "of trial 0 alone: trial 0 cannot ship: its median seed answers one class" in said


# What the study remembers


def test_a_confirmation_is_there_once_every_training_has_ended_and_later_ones_reuse_them(
    record: Record,
) -> None:
    study = finished_study(record, [(MFCC, outcome(0.6)), (WAVE, outcome(0.7))], baseline=MFCC)
    assert (confirmation_of(study), confirmation_progress(study)) == (None, [])
    arms, _ = choose_finalists(study, record, None, 2, None)
    planned = save_definition(study, arms, 2)
    again = definition_of(study)
    assert again is not None
    assert [(arm.fingerprint, arm.label, arm.sweep_score) for arm in again.arms] == [
        (arm.fingerprint, arm.label, arm.sweep_score) for arm in arms
    ]
    for index, (arm, seed) in enumerate(planned.trainings()):
        assert confirmation_of(study) is None
        assert f"{index} of 4 trainings done" in confirmation_progress(study)[0]
        save_result(study, arm.fingerprint, seed, ReplicateResult(outcome(0.5 + 0.01 * index)))
    found = confirmation_of(study)
    assert found is not None
    assert (found.winner.label, found.winner.scores) == ("trial 0", [0.51, 0.53])
    assert found.shipped.key == key_of(study, found.winner.fingerprint, found.shipped.replicate)
    assert found.baseline.label == "trial 0"
    wider = start_confirmation(study, arms, 3)
    assert len(wider.unfinished_trainings(results_of(study))) == 2
    assert confirmation_of(study) == found  # until the wider one has a winner
    assert confirmation_progress(study) == [
        "confirmation: 4 of 6 trainings done; harness confirm told goes on, until then the one before holds"
    ]
    wider = start_confirmation(study, arms, 4)  # nor is it lost when what never ended is replaced
    assert confirmation_of(study) == found
    for arm, seed in wider.unfinished_trainings(results_of(study)):
        save_result(study, arm.fingerprint, seed, ReplicateResult(outcome(0.6)))
    widest = confirmation_of(study)
    assert widest is not None
    assert (widest.seeds, confirmation_progress(study), unfinished_confirmation(study)) == (4, [], None)
    assert "the lower median with" in widest.conclusion
    narrow = start_confirmation(study, arms[:1], 2)
    assert narrow.unfinished_trainings(results_of(study)) == []


def test_a_trial_that_is_named_is_confirmed_apart_and_wins_whatever_the_baseline_scores(
    record: Record,
) -> None:
    study = finished_study(record, [(MFCC, outcome(0.6)), (WAVE, outcome(0.7))], baseline=MFCC)
    own = start_confirmation(study, choose_finalists(study, record, None, 2, None)[0], 2)
    for arm, seed in own.trainings():
        score = 0.8 if arm.is_baseline else 0.7  # and the baseline is cheaper
        save_result(study, arm.fingerprint, seed, ReplicateResult(outcome(score + 0.01 * seed)))
    of_study = confirmation_of(study)
    assert of_study is not None
    assert of_study.winner.label == "trial 0"
    arms = choose_finalists(study, record, "1", 5, None)[0]
    assert [(arm.label, arm.is_added) for arm in arms] == [("trial 1", False), ("trial 0", True)]
    named = start_confirmation(study, arms, 3, named=True)
    assert confirmation_of(study) == of_study
    assert confirmation_progress(study) == []
    assert "harness confirm told --run 1 --seeds 3 goes on" in confirmation_progress(study, 1)[0]
    assert confirmation_of(study, 1) is None
    for arm, seed in named.unfinished_trainings(results_of(study)):
        save_result(study, arm.fingerprint, seed, ReplicateResult(outcome(0.72)))
    found = confirmation_of(study, 1)
    assert found is not None
    assert (found.winner.label, found.shipped.label, found.as_json()["beats_baseline"]) == (
        "trial 1",
        "trial 1, seed 2",
        False,
    )
    assert found.conclusion.startswith("trial 1 is not shown better than the baseline; winner: trial 1")
    assert "the trial that was named; seed 2 ships, the median with 0.720" in found.conclusion
    assert confirmation_of(study) == of_study
    assert runs_named(study) == [1]
    save_result(study, arms[0].fingerprint, 2, ReplicateResult({}, "diverged: nan"))
    assert confirmation_of(study, 1) is None  # the baseline does not stand in
    assert "trial 1 cannot ship: it has no score on every seed" in confirmation_progress(study, 1)[0]


def test_trials_that_end_after_the_finalists_were_chosen_are_said(record: Record) -> None:
    study = finished_study(record, [(MFCC, outcome(0.6))], baseline=MFCC)
    planned = start_confirmation(study, choose_finalists(study, record, None, 1, None)[0], 2)
    for arm, seed in planned.trainings():
        save_result(study, arm.fingerprint, seed, ReplicateResult(outcome(0.6)))
    found = confirmation_of(study)
    assert found is not None
    assert (found.staleness_note, found.as_json()["trials_since"]) == ("", 0)
    add_complete_trials(study, [(WAVE, outcome(0.712)), ({**WAVE, "width": 0.25}, outcome(0.7))])
    found = confirmation_of(study)
    assert found is not None
    assert found.lines()[-1] == "2 trials since, the best 0.712: confirm again: harness confirm told"
    start_confirmation(study, choose_finalists(study, record, None, 3, None)[0], 2)
    assert unfinished_confirmation(study) is not None
    start_confirmation(study, planned.arms, 2)  # the same arms, chosen among all of them
    again = confirmation_of(study)
    assert again is not None
    assert again.staleness_note == ""


def test_a_training_that_the_machine_spoilt_is_tried_again_and_a_bad_one_is_not(record: Record) -> None:
    study = finished_study(record, [(MFCC, outcome(0.6))], baseline=MFCC)
    planned = save_definition(study, choose_finalists(study, record, None, 1, None)[0], 2)
    (arm,) = planned.arms
    save_result(study, arm.fingerprint, 1, ReplicateResult({}, "diverged: nan"))
    save_result(
        study, arm.fingerprint, 2, ReplicateResult({}, "infrastructure, 3 times: worker 0 died", again=True)
    )
    assert planned.unfinished_trainings(results_of(study)) == []
    assert planned.unfinished_trainings(results_of(study), again=True) == [(arm, 2)]
    assert confirmation_of(study) is None  # nothing can be ranked
    assert (
        "no configuration has a score on every seed; harness confirm told tries again"
        in confirmation_progress(study)[0]
    )
    assert unfinished_confirmation(study) == definition_of(study)
    save_result(study, arm.fingerprint, 2, ReplicateResult({}, "diverged: nan"))
    assert "try more: harness confirm told --finalists 2" in confirmation_progress(study)[0]
    assert unfinished_confirmation(study) is None
