"""Fresh seeds: the ranking and the winner as numbers, who is confirmed, what the study remembers."""

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from data.prepare import prepare
from harness.choosing import choose, expected_luck
from harness.cli import cli
from harness.confirm import Plan, no_winner
from harness.confirmation import (
    Confirmation,
    Finalist,
    Replicate,
    concluded,
    confirmation_of,
    progress_of,
    set_out,
    unfinished_of,
)
from harness.confirmation_record import (
    Arm,
    Result,
    definition_of,
    keep_definition,
    keep_result,
    key_of,
    results_of,
    runs_named,
)
from harness.confirmation_runs import ConfirmationRuns, header_of
from harness.cost import estimate_trainings, training_s
from harness.ensemble_record import EnsembleSummary, remember
from harness.executors.protocol import (
    EpochDone,
    Event,
    Job,
    TrialDone,
    TrialFailed,
    WorkerLost,
    WorkersFailedError,
)
from harness.finalists import ConfirmationError, arms_of
from harness.jobs import Jobs
from harness.provenance import provenance
from harness.ranking import median_seed, ranking, spread_of, winner_of
from harness.record import Record
from harness.replicate import replicate_of
from harness.room import OutOfSpaceError
from harness.statistics import StatisticsError
from harness.study import Study, StudyError
from harness.trial_config import TrialConfig, derived_seed
from harness.view import View
from harness.writer import waiting_line
from tests.harness.places.untrained_study import outcome, told, told_study

MFCC = {"feature": "mfcc", "width": 0.125}
WAVE = {"feature": "waveform", "width": 0.125}

SCORES = st.integers(2, 6).flatmap(
    lambda n: st.lists(
        st.lists(st.floats(0, 1, allow_subnormal=False), min_size=n, max_size=n), min_size=1, max_size=6
    )
)

# Numbers


def test_the_lower_bound_is_students_of_the_mean() -> None:
    spread = spread_of([0.80, 0.82, 0.84, 0.78, 0.81])
    assert (spread.mean, spread.sd, spread.se) == pytest.approx((0.81, 0.0223607, 0.01))
    assert spread.low == pytest.approx(0.81 - 2.776445 * 0.01)  # t_{.975, 4} of any table


@given(SCORES)
def test_a_spread_is_numpys_and_its_bound_lies_below_the_mean(arms: list[list[float]]) -> None:
    for scores in arms:
        spread = spread_of(scores)
        assert spread.mean == pytest.approx(np.mean(scores))
        assert spread.sd == pytest.approx(np.std(scores, ddof=1), abs=1e-12)
        assert spread.low <= spread.mean


@pytest.mark.parametrize("scores", [[], [0.5], [0.5, float("nan")]])
def test_scores_without_a_spread_are_refused(scores: list[float]) -> None:
    with pytest.raises(StatisticsError, match="two finite scores"):
        spread_of(scores)


@given(SCORES, st.data())
def test_the_winner_is_the_cheapest_within_one_standard_error(arms: list[list[float]], data: Any) -> None:
    macs = data.draw(st.lists(st.integers(1, 5), min_size=len(arms), max_size=len(arms)))
    spreads = [spread_of(scores) for scores in arms]
    order = ranking(spreads, macs)
    assert sorted(order) == list(range(len(arms)))
    lows = [spreads[index].low for index in order]
    assert lows == sorted(lows, reverse=True)
    best, winner = spreads[order[0]], winner_of(spreads, macs)
    within = [i for i, spread in enumerate(spreads) if spread.mean >= best.mean - best.se]
    assert winner in within
    assert all((macs[winner], -spreads[winner].low) <= (macs[i], -spreads[i].low) for i in within)


@given(SCORES, st.data())
def test_the_order_in_which_arms_are_listed_decides_nothing(arms: list[list[float]], data: Any) -> None:
    macs = data.draw(st.lists(st.integers(1, 5), min_size=len(arms), max_size=len(arms)))
    shuffled = data.draw(st.permutations(range(len(arms))))
    spreads = [spread_of(scores) for scores in arms]
    other = winner_of([spreads[i] for i in shuffled], [macs[i] for i in shuffled])
    first, second = winner_of(spreads, macs), shuffled[other]
    assert (spreads[first], macs[first]) == (spreads[second], macs[second])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_the_seed_that_ships_holds_the_lower_median(scores: list[float]) -> None:
    shipped = scores[median_seed(scores)]
    assert sum(score <= shipped for score in scores) * 2 >= len(scores)
    assert sum(score >= shipped for score in scores) * 2 > len(scores)


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
    found = concluded("s", 3, finalists)
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
    assert concluded("s", 3, [broken]) is None


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
    assert concluded("s", 3, [constant]) is None


def test_a_confirmation_in_which_nothing_may_ship_says_so(record: Record) -> None:
    study = told_study(record, [(MFCC, outcome(0.6))], baseline=MFCC)
    planned = keep_definition(study, arms_of(study, record, None, 1, None)[0], 2)
    (arm,) = planned.arms
    for seed in (1, 2):
        keep_result(study, arm.fingerprint, seed, Result(outcome(0.7, at_best=ONE_CLASS)))
    assert confirmation_of(study) is None
    assert "no configuration may ship" in progress_of(study)[0]
    plan = Plan(study, planned, [], estimate_trainings([], 1, "cpu", {}), [], {})
    assert "no configuration may ship" in no_winner(plan)
    assert "trial 0 (the baseline): 0.700" in no_winner(plan)
    assert "answers one class (predicted-positive rate 0.970)" in no_winner(plan)
    keep_definition(study, planned.arms, 2, named=True)
    assert confirmation_of(study, 0) is None
    said = progress_of(study, 0)[0]
    assert "of trial 0 alone: trial 0 cannot ship: its median seed answers one class" in said


# Who is confirmed


def test_finalists_are_the_best_promotable_trials_and_the_baseline(record: Record) -> None:
    no = outcome(0.9, promotable="no: it holds a loop")
    study = told_study(
        record, [(MFCC, outcome(0.6)), (WAVE, no), ({**MFCC, "width": 0.25}, outcome(0.8)), ({**WAVE, "width": 0.25}, outcome(0.7))]
    )  # fmt: skip
    arms, notes = arms_of(study, record, None, 2, None)
    assert [arm.label for arm in arms] == ["trial 2", "trial 3", "baseline"]
    assert notes == ["trial 1 is no finalist: it cannot be promoted (no: it holds a loop)"]
    assert arms[-1].is_baseline
    assert (arms[-1].config.feature.kind, arms[-1].config.model.width) == ("mfcc", 1.0)
    assert arms[0].optimism is not None
    assert arms[1].optimism is not None
    assert arms[0].optimism == pytest.approx(expected_luck(study.trial(2), 4, 2))
    assert arms[1].optimism == pytest.approx(expected_luck(study.trial(3), 4, 3))
    assert arms[0].optimism > arms[1].optimism > 0.0 - arms[0].optimism
    with pytest.raises(ConfirmationError, match="trial 1 is no finalist"):
        arms_of(study, record, "1", 2, None)
    named, _ = arms_of(study, record, "0", 2, None)
    assert [arm.label for arm in named] == ["trial 0", "baseline"]


def test_a_baseline_among_the_finalists_is_not_trained_twice(record: Record) -> None:
    study = told_study(record, [(MFCC, outcome(0.6)), (WAVE, outcome(0.7))], baseline=MFCC)
    arms, _ = arms_of(study, record, None, 5, None)
    assert [(arm.label, arm.is_baseline) for arm in arms] == [("trial 1", False), ("trial 0", True)]
    arms, _ = arms_of(
        study, record, None, 5, {"feature": "waveform", "width": 1.0}
    )  # of an edited sweep file
    assert [arm.label for arm in arms] == ["trial 1", "trial 0", "baseline"]
    assert arms[-1].name == "baseline waveform width=1"


def test_a_baseline_that_is_a_trial_and_no_finalist_is_confirmed_as_that_trial(record: Record) -> None:
    wide = {**MFCC, "width": 0.25}
    study = told_study(
        record, [(wide, outcome(0.8)), (WAVE, outcome(0.7)), (MFCC, outcome(0.6))], baseline=MFCC
    )
    arms, notes = arms_of(study, record, None, 1, None)
    last = arms[-1]
    assert notes == []
    assert [(arm.label, arm.is_baseline, arm.is_added) for arm in arms] == [
        ("trial 0", False, False),
        ("trial 2", True, True),
    ]
    assert (last.sweep_score, last.optimism) == (0.6, expected_luck(study.trial(2), 3, 3))
    planned = set_out(study, arms, 2)
    for arm, seed in planned.trainings():
        keep_result(study, arm.fingerprint, seed, Result(outcome(0.55)))
    found = confirmation_of(study)
    assert found is not None
    assert found.baseline.title == "trial 2 (the baseline)"
    assert found.baseline.shrink == pytest.approx(0.05)


def test_fewer_trials_than_finalists_asked_for_are_explained(record: Record) -> None:
    study = told_study(record, [(MFCC, outcome(0.6))])
    _, notes = arms_of(study, record, None, 5, None)
    assert notes == ["1 finalist, not 5: the study has no more complete trials that can be promoted"]
    assert arms_of(study, record, "0", 5, None)[1] == []


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ((), "has no complete trial to confirm yet: its sweep has just begun"),
        (
            (TrialState.PRUNED,),
            "has no complete trial to confirm: all were pruned; run it under another name",
        ),
        ((TrialState.PRUNED, TrialState.FAIL), ": 1 of 2 were pruned"),
        ((TrialState.PRUNED, TrialState.RUNNING), "it is being swept now, or was interrupted"),
        ((TrialState.FAIL,), "to confirm; see: harness status told"),
    ],
)
def test_a_study_without_complete_trials_says_why_and_what_to_do(
    record: Record, states: tuple[TrialState, ...], said: str
) -> None:
    study = told_study(record, [])
    for state in states:
        study.optuna_study.add_trial(create_trial(state=state, user_attrs={"fingerprint": "f"}))
    with pytest.raises(StudyError) as error:
        arms_of(study, record, None, 5, None)
    assert said in str(error.value)
    assert "promot" not in str(error.value)
    with pytest.raises(StudyError, match="to promote"):
        choose(study, None)


def test_an_ensemble_cannot_be_confirmed(record: Record) -> None:
    study = told_study(record, [(MFCC, outcome(0.6)), (WAVE, outcome(0.7))])
    remember(study, EnsembleSummary("0+1", "r" * 32, tuple(study.trials()), ("a", "b"), "f", outcome(0.8)))
    with pytest.raises(ConfirmationError, match=r"ensemble 0\+1 cannot be confirmed.*trials 0, 1"):
        arms_of(study, record, "0+1", 5, None)


# What the study remembers


def test_a_confirmation_is_there_once_every_training_has_ended_and_later_ones_reuse_them(
    record: Record,
) -> None:
    study = told_study(record, [(MFCC, outcome(0.6)), (WAVE, outcome(0.7))], baseline=MFCC)
    assert (confirmation_of(study), progress_of(study)) == (None, [])
    arms, _ = arms_of(study, record, None, 2, None)
    planned = keep_definition(study, arms, 2)
    again = definition_of(study)
    assert again is not None
    assert [(arm.fingerprint, arm.label, arm.sweep_score) for arm in again.arms] == [
        (arm.fingerprint, arm.label, arm.sweep_score) for arm in arms
    ]
    for index, (arm, seed) in enumerate(planned.trainings()):
        assert confirmation_of(study) is None
        assert f"{index} of 4 trainings done" in progress_of(study)[0]
        keep_result(study, arm.fingerprint, seed, Result(outcome(0.5 + 0.01 * index)))
    found = confirmation_of(study)
    assert found is not None
    assert (found.winner.label, found.winner.scores) == ("trial 0", [0.51, 0.53])
    assert found.shipped.key == key_of(study, found.winner.fingerprint, found.shipped.replicate)
    assert found.baseline.label == "trial 0"
    wider = set_out(study, arms, 3)
    assert len(wider.left(results_of(study))) == 2
    assert confirmation_of(study) == found  # until the wider one has a winner
    assert progress_of(study) == [
        "confirmation: 4 of 6 trainings done; harness confirm told goes on, until then the one before holds"
    ]
    wider = set_out(study, arms, 4)  # nor is it lost when what never ended is replaced
    assert confirmation_of(study) == found
    for arm, seed in wider.left(results_of(study)):
        keep_result(study, arm.fingerprint, seed, Result(outcome(0.6)))
    widest = confirmation_of(study)
    assert widest is not None
    assert (widest.seeds, progress_of(study), unfinished_of(study)) == (4, [], None)
    assert "the lower median with" in widest.conclusion
    narrow = set_out(study, arms[:1], 2)
    assert narrow.left(results_of(study)) == []


def test_a_trial_that_is_named_is_confirmed_apart_and_wins_whatever_the_baseline_scores(
    record: Record,
) -> None:
    study = told_study(record, [(MFCC, outcome(0.6)), (WAVE, outcome(0.7))], baseline=MFCC)
    own = set_out(study, arms_of(study, record, None, 2, None)[0], 2)
    for arm, seed in own.trainings():
        score = 0.8 if arm.is_baseline else 0.7  # and the baseline is cheaper
        keep_result(study, arm.fingerprint, seed, Result(outcome(score + 0.01 * seed)))
    of_study = confirmation_of(study)
    assert of_study is not None
    assert of_study.winner.label == "trial 0"
    arms = arms_of(study, record, "1", 5, None)[0]
    assert [(arm.label, arm.is_added) for arm in arms] == [("trial 1", False), ("trial 0", True)]
    named = set_out(study, arms, 3, named=True)
    assert confirmation_of(study) == of_study
    assert progress_of(study) == []
    assert "harness confirm told --run 1 --seeds 3 goes on" in progress_of(study, 1)[0]
    assert confirmation_of(study, 1) is None
    for arm, seed in named.left(results_of(study)):
        keep_result(study, arm.fingerprint, seed, Result(outcome(0.72)))
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
    keep_result(study, arms[0].fingerprint, 2, Result({}, "diverged: nan"))
    assert confirmation_of(study, 1) is None  # the baseline does not stand in
    assert "trial 1 cannot ship: it has no score on every seed" in progress_of(study, 1)[0]


def test_trials_that_end_after_the_finalists_were_chosen_are_said(record: Record) -> None:
    study = told_study(record, [(MFCC, outcome(0.6))], baseline=MFCC)
    planned = set_out(study, arms_of(study, record, None, 1, None)[0], 2)
    for arm, seed in planned.trainings():
        keep_result(study, arm.fingerprint, seed, Result(outcome(0.6)))
    found = confirmation_of(study)
    assert found is not None
    assert (found.age, found.as_json()["trials_since"]) == ("", 0)
    told(study, [(WAVE, outcome(0.712)), ({**WAVE, "width": 0.25}, outcome(0.7))])
    found = confirmation_of(study)
    assert found is not None
    assert found.lines()[-1] == "2 trials since, the best 0.712: confirm again: harness confirm told"
    set_out(study, arms_of(study, record, None, 3, None)[0], 2)
    assert unfinished_of(study) is not None
    set_out(study, planned.arms, 2)  # the same arms, chosen among all of them
    again = confirmation_of(study)
    assert again is not None
    assert again.age == ""


def test_a_training_that_the_machine_spoilt_is_tried_again_and_a_bad_one_is_not(record: Record) -> None:
    study = told_study(record, [(MFCC, outcome(0.6))], baseline=MFCC)
    planned = keep_definition(study, arms_of(study, record, None, 1, None)[0], 2)
    (arm,) = planned.arms
    keep_result(study, arm.fingerprint, 1, Result({}, "diverged: nan"))
    keep_result(study, arm.fingerprint, 2, Result({}, "infrastructure, 3 times: worker 0 died", again=True))
    assert planned.left(results_of(study)) == []
    assert planned.left(results_of(study), again=True) == [(arm, 2)]
    assert confirmation_of(study) is None  # nothing can be ranked
    assert (
        "no configuration has a score on every seed; harness confirm told tries again"
        in progress_of(study)[0]
    )
    assert unfinished_of(study) == definition_of(study)
    keep_result(study, arm.fingerprint, 2, Result({}, "diverged: nan"))
    assert "try more: harness confirm told --finalists 2" in progress_of(study)[0]
    assert unfinished_of(study) is None


# The trainings, told what becomes of them


class Scripted:
    """An executor whose trainings end as their seed says: 1 well after a worker's death, 2 badly, 3 lost for good."""

    def __init__(self, slots: int = 1, full: bool = False, events: Sequence[Event] = ()) -> None:
        self.slots, self.full, self.events = slots, full, list(events)
        self.jobs: list[Job] = []
        self.submitted: list[Job] = []
        self.replies: list[bool] = []

    @property
    def idle(self) -> int:
        return self.slots - len(self.jobs)

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        self.submitted.append(job)

    def poll(self, timeout_s: float) -> Iterator[Event]:
        if not self.jobs:
            return
        job = self.jobs.pop(0)
        times = sum(one.spool == job.spool for one in self.submitted)
        seed = int(job.specification["run_id"].rpartition("/")[2])
        if self.events:
            yield replace(self.events.pop(0), number=job.number)
        elif self.full:
            yield TrialFailed(job.number, "out_of_space", "[Errno 28] No space left on device", "")
        elif seed == 2:
            yield TrialFailed(job.number, "diverged", "the loss is nan", "Traceback: ...")
        elif seed == 3 or times == 1:
            yield WorkerLost(job.number, "worker 0 died")
        else:
            yield EpochDone(job.number, 0, {})
            yield TrialDone(job.number, outcome(0.75))

    def reply(self, number: int, *, stop: bool) -> None:
        self.replies.append(stop)

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


class Poked:
    """A writer that only notes what it is shown."""

    behind, unreachable_since, problem = False, None, None

    def __init__(self) -> None:
        self.folders: list[str] = []

    def poke(self, spool: Any, *, begun: bool = False) -> None:
        self.folders.append(spool.folder.name)

    def news(self) -> None:
        return None


def jobs_of(study: Study, record: Record, cache: Path) -> Jobs:
    prepared = prepare(study.sweep.data, data_root=None, cache=cache)
    return Jobs(study, record, {study.sweep.data.digest(): prepared}, provenance("cpu"), cache)


def test_trainings_are_retried_recorded_and_never_pruned(record: Record, demo_cache: Path) -> None:
    study = told_study(record, [(MFCC, outcome(0.6))], baseline=MFCC)
    planned = keep_definition(study, arms_of(study, record, None, 1, None)[0], 3)
    executor, writer = Scripted(), Poked()
    jobs = jobs_of(study, record, demo_cache)
    left = planned.left(results_of(study))
    ConfirmationRuns(jobs, executor, writer, View(), left, 3).run()  # type: ignore[arg-type]
    results = {seed: result for (_, seed), result in results_of(study).items()}
    assert results[1].outcome["score"] == 0.75
    assert (results[2].reason, results[2].again) == ("diverged: the loss is nan", False)
    assert results[3].reason.startswith("infrastructure, 3 times: worker 0 died")
    assert results[3].again
    assert executor.replies == [False]
    first = executor.submitted[0]
    assert first.specification["run_id"] == "told/0/1"
    assert first.seed == derived_seed("training", study.sweep.seed, 1)
    header = jobs.spool(Path(first.spool).name).read("trial")
    assert header is not None
    assert header["key"] == key_of(study, planned.arms[0].fingerprint, 1)
    kinds = {key: header["tags"][f"harness.{key}"] for key in ("kind", "trial", "replicate")}
    assert kinds == {"kind": "confirmation", "trial": "0", "replicate": "1"}
    assert [trial.number for trial in study.trials()] == [0]  # Optuna heard of none


def test_a_full_disk_stops_the_trainings_and_fails_none(record: Record, demo_cache: Path) -> None:
    study = told_study(record, [(MFCC, outcome(0.6))], baseline=MFCC)
    planned = keep_definition(study, arms_of(study, record, None, 1, None)[0], 2)
    jobs = jobs_of(study, record, demo_cache)
    runs = ConfirmationRuns(
        jobs, Scripted(full=True), Poked(), View(), planned.left({}), 2  # type: ignore[arg-type]
    )  # fmt: skip
    with pytest.raises(OutOfSpaceError, match="run the same command again"):
        runs.run()
    assert results_of(study) == {}


def test_a_full_disk_of_mlflow_stops_the_trainings(record: Record, demo_cache: Path) -> None:
    study = told_study(record, [(MFCC, outcome(0.6))], baseline=MFCC)
    planned = keep_definition(study, arms_of(study, record, None, 1, None)[0], 3)
    writer: Any = Poked()
    writer.unreachable_since, writer.problem = 1.0, "OSError: [Errno 28] No space left on device"
    executor = Scripted(events=[EpochDone(0, 0, {})])
    runs = ConfirmationRuns(jobs_of(study, record, demo_cache), executor, writer, View(), planned.left({}), 3)
    assert runs.must_leave()
    with pytest.raises(OutOfSpaceError, match="run the same command again"):
        runs.run()
    assert len(executor.submitted) == 1
    assert results_of(study) == {}


def test_no_training_begins_while_mlflow_is_behind(record: Record, demo_cache: Path) -> None:
    study = told_study(record, [(MFCC, outcome(0.6))], baseline=MFCC)
    planned = keep_definition(study, arms_of(study, record, None, 1, None)[0], 2)
    executor, began = Scripted(), []

    class Behind(Poked):
        behind = True

        def news(self) -> None:  # asked once a round
            began.append(len(executor.submitted))
            self.behind = len(began) < 3

    writer: Any = Behind()
    ConfirmationRuns(
        jobs_of(study, record, demo_cache), executor, writer, View(), planned.left({}), 2
    ).run()  # fmt: skip
    assert began[:3] == [0, 0, 0]
    assert len(results_of(study)) == 2


BROKEN = TrialFailed(0, "configuration", "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED", "")
DIVERGED = TrialFailed(0, "diverged", "the loss is nan", "")


@pytest.mark.parametrize(
    ("events", "trained"),
    [([BROKEN] * 6, 5), ([DIVERGED] * 6, 6), ([BROKEN] * 4 + [TrialDone(0, outcome(0.7)), BROKEN], 6)],
)
def test_trainings_that_fail_alike_stop_a_confirmation(
    record: Record, demo_cache: Path, events: list[Event], trained: int
) -> None:
    study = told_study(record, [(MFCC, outcome(0.6))], baseline=MFCC)
    planned = keep_definition(study, arms_of(study, record, None, 1, None)[0], 6)
    writer: Any = Poked()
    runs = ConfirmationRuns(
        jobs_of(study, record, demo_cache), Scripted(events=events), writer, View(), planned.left({}), 6
    )
    with pytest.raises(WorkersFailedError, match="5 trainings in a row") if trained < 6 else nullcontext():
        runs.run()
    assert len(results_of(study)) == trained


@pytest.mark.parametrize("state", ["complete", "pruned"])
def test_a_trial_that_ends_clears_the_failures_of_a_sweep(
    record: Record, demo_cache: Path, state: str
) -> None:
    from harness.coordinator import Coordinator

    space: Any = {"feature": ["mfcc"], "dropout": {"float": [0.0, 0.5]}}
    study = told_study(record, [], budget={"trials": 11}, parameters=space)
    ended = TrialDone(0, {"windows_per_s": 1.0, **outcome(0.7, state=state)})
    events: list[Event] = [BROKEN, DIVERGED, BROKEN, BROKEN, BROKEN, ended, *[BROKEN] * 5]
    writer: Any = Poked()
    jobs = jobs_of(study, record, demo_cache)
    executor = Scripted(events=events)
    with pytest.raises(WorkersFailedError, match="5 trainings in a row failed the same way"):
        Coordinator(
            study, record, jobs.prepared, executor, writer, View(), provenance("cpu"), demo_cache
        ).run()  # fmt: skip
    assert len(executor.submitted) == len(events)


def test_a_confirmation_without_room_is_refused_before_anything_is_set_out(
    record: Record, demo_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = told_study(record, [(MFCC, outcome(0.6))], baseline=MFCC)
    prepared = prepare(study.sweep.data, data_root=None, cache=demo_cache)
    digests = {split: part.manifest.digest for split, part in prepared.splits.items()}
    study.optuna_study.set_user_attr("manifests", {study.sweep.data.digest(): digests})
    monkeypatch.setattr("harness.room.MIN_FREE_BYTES", 10**18)
    place = ("--record", str(record.root), "--cache", str(demo_cache), "--workers", "1")
    done = CliRunner().invoke(cli, ["confirm", "told", *place])
    assert done.exit_code == 1
    assert "and this needs about" in done.stderr
    assert definition_of(study) is None


def test_a_later_sweep_replays_what_ended_and_leaves_what_did_not(record: Record, demo_cache: Path) -> None:
    from harness.coordinator import Coordinator

    study = told_study(record, [(MFCC, outcome(0.6))], baseline=MFCC, budget={"trials": 1})
    jobs = jobs_of(study, record, demo_cache)
    (arm,) = arms_of(study, record, None, 1, None)[0]
    for seed in (1, 2):
        spool = jobs.spool(f"confirm-x-{seed}")
        spool.write("trial", header_of(jobs, replicate_of(study, arm, seed, Result({})), spool))
    keep_result(study, arm.fingerprint, 1, Result(outcome(0.7)))
    writer: Any = Poked()
    executor = Scripted()
    Coordinator(
        study, record, jobs.prepared, executor, writer, View(), provenance("cpu"), demo_cache
    ).run()  # fmt: skip
    assert writer.folders == ["confirm-x-1"]
    verdict = jobs.spool("confirm-x-1").read("verdict")
    assert verdict is not None
    assert (verdict["status"], verdict["metrics"]["best/score"]) == ("FINISHED", 0.7)
    assert jobs.spool("confirm-x-2").read("verdict") is None
    assert jobs.spool("confirm-x-2").read("trial") is not None
    assert executor.submitted == []


# The price


def test_without_options_an_unfinished_confirmation_is_gone_on_with_as_it_is(
    record: Record, demo_cache: Path
) -> None:
    study = told_study(record, [(MFCC, outcome(0.6)), (WAVE, outcome(0.7))], baseline=MFCC)
    prepared = prepare(study.sweep.data, data_root=None, cache=demo_cache)
    digests = {split: part.manifest.digest for split, part in prepared.splits.items()}
    study.optuna_study.set_user_attr("manifests", {study.sweep.data.digest(): digests})

    def priced(*words: str) -> tuple[int, int, int]:
        place = ("--record", str(record.root), "--cache", str(demo_cache), "--workers", "1")
        done = CliRunner().invoke(cli, ["confirm", "told", "--dry-run", "--json", *words, *place])
        assert done.exit_code == 0, done.output
        document = json.loads(done.stdout)
        return len(document["finalists"]), document["seeds"], document["done"]

    assert priced() == (2, 5, 0)
    planned = set_out(study, arms_of(study, record, "1", 1, None)[0][:1], 3)
    keep_result(study, planned.arms[0].fingerprint, 1, Result(outcome(0.7)))
    assert priced() == (1, 3, 1)
    assert priced("--seeds", "4") == (2, 4, 1)
    assert priced("--run", "0") == (1, 5, 0)
    for seed in (2, 3):
        keep_result(study, planned.arms[0].fingerprint, seed, Result(outcome(0.7)))
    assert priced() == (2, 5, 3)


def test_what_was_not_stored_is_counted_and_a_hurry_is_reason_enough() -> None:
    assert waiting_line(1, None, hurried=True) == (
        "1 run waits in the spool for MLflow and will be stored by the next launch"
    )
    assert waiting_line(2, None, hurried=False) == (
        "2 runs wait in the spool for MLflow (MLflow did not answer); the next launch stores them"
    )
    assert "1 run waits in the spool for MLflow (refused); the next launch stores it" in waiting_line(
        1, "refused", hurried=True
    )


def test_the_price_goes_by_the_measured_pace_and_adds_up() -> None:
    config = TrialConfig()
    windows = {config.data.digest(): (1000, 200)}
    slow, fast = training_s(config, "cpu", windows, 10.0), training_s(config, "cpu", windows, 1000.0)
    assert slow > 10 * fast
    one = estimate_trainings([(config, 10.0)], 2, "cpu", windows)
    four = estimate_trainings([(config, 10.0)] * 4, 2, "cpu", windows)
    assert (one.trials, four.trials) == (1, 4)
    assert four.seconds - one.seconds == pytest.approx(slow)
    assert four.disk_bytes == pytest.approx(4 * one.disk_bytes)
    assert estimate_trainings([], 2, "cpu", windows).seconds == 0
    assert Arm("n", config, {}).label == "baseline"
