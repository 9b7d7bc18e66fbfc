"""Who is confirmed on fresh seeds: the best trials that can be promoted, and the baseline."""

import pytest
from optuna.trial import TrialState, create_trial

from harness.selection.choose_finalists import ConfirmationError, choose_finalists
from harness.study.choose_trial import choose_trial
from harness.study.confirmation.conclusion import confirmation_of, start_confirmation
from harness.study.confirmation.definition import ReplicateResult, save_result
from harness.study.ensembles import EnsembleSummary, save_ensemble
from harness.study.leaderboard import expected_optimism
from harness.study.storage.record import Record
from harness.study.study import StudyError
from tests.harness.places.untrained_study import MFCC, WAVE, finished_study, outcome


def test_finalists_are_the_best_promotable_trials_and_the_baseline(record: Record) -> None:
    no = outcome(0.9, promotable="no: it holds a loop")
    study = finished_study(
        record, [(MFCC, outcome(0.6)), (WAVE, no), ({**MFCC, "width": 0.25}, outcome(0.8)), ({**WAVE, "width": 0.25}, outcome(0.7))]
    )  # fmt: skip
    arms, notes = choose_finalists(study, record, None, 2, None)
    assert [arm.label for arm in arms] == ["trial 2", "trial 3", "baseline"]
    assert notes == ["trial 1 is no finalist: it cannot be promoted (no: it holds a loop)"]
    assert arms[-1].is_baseline
    assert (arms[-1].config.feature.kind, arms[-1].config.model.width) == ("mfcc", 1.0)
    assert arms[0].optimism is not None
    assert arms[1].optimism is not None
    assert arms[0].optimism == pytest.approx(expected_optimism(study.trial(2), 4, 2))
    assert arms[1].optimism == pytest.approx(expected_optimism(study.trial(3), 4, 3))
    assert arms[0].optimism > arms[1].optimism > 0.0 - arms[0].optimism
    with pytest.raises(ConfirmationError, match="trial 1 is no finalist"):
        choose_finalists(study, record, "1", 2, None)
    named, _ = choose_finalists(study, record, "0", 2, None)
    assert [arm.label for arm in named] == ["trial 0", "baseline"]


def test_a_baseline_among_the_finalists_is_not_trained_twice(record: Record) -> None:
    study = finished_study(record, [(MFCC, outcome(0.6)), (WAVE, outcome(0.7))], baseline=MFCC)
    arms, _ = choose_finalists(study, record, None, 5, None)
    assert [(arm.label, arm.is_baseline) for arm in arms] == [("trial 1", False), ("trial 0", True)]
    arms, _ = choose_finalists(
        study, record, None, 5, {"feature": "waveform", "width": 1.0}
    )  # of an edited sweep file
    assert [arm.label for arm in arms] == ["trial 1", "trial 0", "baseline"]
    assert arms[-1].name == "baseline waveform width=1"


def test_a_baseline_that_is_a_trial_and_no_finalist_is_confirmed_as_that_trial(record: Record) -> None:
    wide = {**MFCC, "width": 0.25}
    study = finished_study(
        record, [(wide, outcome(0.8)), (WAVE, outcome(0.7)), (MFCC, outcome(0.6))], baseline=MFCC
    )
    arms, notes = choose_finalists(study, record, None, 1, None)
    last = arms[-1]
    assert notes == []
    assert [(arm.label, arm.is_baseline, arm.is_added) for arm in arms] == [
        ("trial 0", False, False),
        ("trial 2", True, True),
    ]
    assert (last.sweep_score, last.optimism) == (0.6, expected_optimism(study.trial(2), 3, 3))
    planned = start_confirmation(study, arms, 2)
    for arm, seed in planned.trainings():
        save_result(study, arm.fingerprint, seed, ReplicateResult(outcome(0.55)))
    found = confirmation_of(study)
    assert found is not None
    assert found.baseline.title == "trial 2 (the baseline)"
    assert found.baseline.shrink == pytest.approx(0.05)


def test_fewer_trials_than_finalists_asked_for_are_explained(record: Record) -> None:
    study = finished_study(record, [(MFCC, outcome(0.6))])
    _, notes = choose_finalists(study, record, None, 5, None)
    assert notes == ["1 finalist, not 5: the study has no more complete trials that can be promoted"]
    assert choose_finalists(study, record, "0", 5, None)[1] == []


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
    study = finished_study(record, [])
    for state in states:
        study.optuna_study.add_trial(create_trial(state=state, user_attrs={"fingerprint": "f"}))
    with pytest.raises(StudyError) as error:
        choose_finalists(study, record, None, 5, None)
    assert said in str(error.value)
    assert "promot" not in str(error.value)
    with pytest.raises(StudyError, match="to promote"):
        choose_trial(study, None)


def test_an_ensemble_cannot_be_confirmed(record: Record) -> None:
    study = finished_study(record, [(MFCC, outcome(0.6)), (WAVE, outcome(0.7))])
    save_ensemble(
        study, EnsembleSummary("0+1", "r" * 32, tuple(study.trials()), ("a", "b"), "f", outcome(0.8))
    )
    with pytest.raises(ConfirmationError, match=r"ensemble 0\+1 cannot be confirmed.*trials 0, 1"):
        choose_finalists(study, record, "0+1", 5, None)
