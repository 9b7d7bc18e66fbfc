"""What became of a trial: failed, left out, unfinished or complete; studies as the coordinator leaves them, in Optuna's journal alone."""

import json

import optuna
import pytest
from click.testing import CliRunner
from optuna.trial import TrialState

from harness.cli.main import cli
from harness.metrics.chance_level import ChanceTestResult
from harness.study.controls import Control, keep_control
from harness.study.study import Study, StudyError
from tests.harness.places.report_study import ReportRecord
from tests.harness.places.why_answers import asked, study_of, text_of

# Failed, left out, unfinished


def test_a_failure_is_told_with_its_kind_and_the_end_of_its_traceback(
    place: ReportRecord, study: Study
) -> None:
    assert asked(place, study, "4").why == "trial 4 failed: configuration: <b>no</b> memory"
    frozen = study.optuna_study.trials[4]
    attributes = {**frozen.user_attrs, "traceback": "\n".join(f"line {k}" for k in range(9)), "retries": 2}
    study.optuna_study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=attributes))
    text = text_of(asked(place, study, "5"))
    for part in (
        "kind: configuration",
        "line 8",
        "traceback.txt of run '004 clean log_mel'",
        "2 times",
        "feature log_mel",
    ):
        assert part in text
    assert "line 2" not in text


def test_a_duplicate_names_its_first(place: ReportRecord, study: Study) -> None:
    twin = {"duplicate_of": 0, "values": {}, "reason": "the same configuration as trial 0"}
    study.optuna_study.add_trial(
        optuna.trial.create_trial(state=TrialState.COMPLETE, value=0.8, user_attrs=twin)
    )
    answer = asked(place, study, "5")
    assert answer.state == "duplicate"
    first = study.trial(0)
    assert f"the same configuration as trial 0, which is complete and scored {first.score:.3f}" in answer.why
    assert first.fingerprint[:16] in text_of(answer)
    assert "cost no budget" in text_of(answer)


def test_a_skipped_arm_gives_its_reason(place: ReportRecord, study: Study) -> None:
    skipped = {"state": "skipped", "values": {}, "reason": "no file /x.bin"}
    study.optuna_study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=skipped))
    answer = asked(place, study, "5")
    assert (answer.state, answer.why) == ("skipped", "trial 5 was skipped: no file /x.bin")


def test_what_is_not_finished_says_what_the_next_launch_does(place: ReportRecord, study: Study) -> None:
    trial = study.optuna_study.ask()
    assert asked(place, study, "5", is_run=True).why == "trial 5 was asked for and has not started"
    trial.set_user_attr("config", study.trial(0).config)
    trial.set_user_attr("fingerprint", "f")
    trial.report(0.5, 0)
    running = asked(place, study, "5", is_run=True)
    assert running.state == "running"
    assert "1 of 30 epochs are done" in running.why
    interrupted = asked(place, study, "5")
    assert interrupted.state == "interrupted"
    assert "the next launch goes on with it, from its checkpoint" in text_of(interrupted)
    study.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
    assert asked(place, study, "5", is_run=True).state == "interrupted"
    trial = study.optuna_study.ask()  # takes the waiting one
    trial.set_user_attr("state", "abandoned")
    study.optuna_study.tell(trial, state=TrialState.FAIL)
    assert asked(place, study, "5").state == "abandoned"


def test_controls_answer_by_name(place: ReportRecord, study: Study) -> None:
    assert asked(place, study, "unseen").state == "absent"
    keep_control(study, Control("unseen", ChanceTestResult("broken", 0.8, 0.7, 100, 20), "", "f"))
    keep_control(study, Control("shuffled_labels", None, "data: no memory", "f"))
    broken = asked(place, study, "unseen")
    assert broken.state == "broken"
    assert "0.800, 99.9 % lower bound 0.700" in broken.why
    failed = asked(place, study, "shuffled_labels")
    assert failed.state == "failed"
    assert "data: no memory" in failed.why
    wanted = study_of(place.record, name="wanted", controls=["unseen"])
    assert asked(place, wanted, "unseen").state == "interrupted"
    assert "before the trials, 5 epochs" in text_of(asked(place, wanted, "unseen"))


# Complete


def test_a_trial_that_luck_may_explain_is_not_called_worse(place: ReportRecord, study: Study) -> None:
    answer = asked(place, study, "1")
    assert answer.state == "complete"
    best, second = sorted((study.trial(0), study.trial(1)), key=lambda trial: -trial.score)
    answer = asked(place, study, str(second.number))
    more = f"{best.score - second.score:.3f}"
    assert answer.why.startswith(
        f"trial {second.number} was not promoted: trial {best.number} scores {more} more"
    )
    text = text_of(answer)
    luck = place.report(study).boards[0].luck
    assert f"as the best of 4 trials, {luck:.3f} of its score may be luck" in text
    assert "cannot be told apart" in text
    assert "rank 2 of 3 complete" in text
    assert "feature " in text
    assert "subset " not in text  # it is the same in both
    assert "it can be exported" in text
    last = text_of(asked(place, study, "2"))
    assert "cannot be told apart" not in last
    assert "the distance is more than that" in last


def test_the_best_is_told_to_be_promoted(place: ReportRecord, study: Study) -> None:
    best = study.best().number
    answer = asked(place, study, str(best))
    assert (
        answer.why
        == f"trial {best} is the best by validation score; nobody has promoted it yet: harness promote voices"
    )
    assert "none has succeeded" in text_of(answer)


def test_trials_judged_on_other_windows_are_no_rivals(place: ReportRecord, study: Study) -> None:
    other = place.study("second", seed=3)
    place.add(other, 0.6, seed=9)
    assert "rank 1 of 1" in text_of(asked(place, other, "0"))


def test_what_cannot_be_exported_says_so(place: ReportRecord) -> None:
    study = place.study()
    place.add(study, 0.8, seed=1, promotable="no: the embedding network cannot be exported")
    assert "the embedding network cannot be exported" in asked(place, study, "0").why


# Words and the command


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("9", "the nearest is 4; it has trials 0 to 4"),
        ("unsen", "did you mean unseen"),
        ("-1", "it has trials 0 to 4"),
        ("", "it has"),
    ],
)
def test_another_word_names_the_nearest_and_the_range(
    place: ReportRecord, study: Study, word: str, said: str
) -> None:
    with pytest.raises(StudyError, match=said):
        asked(place, study, word)


def test_the_command_prints_text_or_one_document(place: ReportRecord, study: Study) -> None:
    record = ["--record", str(place.record.root)]
    shown = CliRunner().invoke(cli, ["why", "voices", "004 clean log_mel", *record])
    assert (shown.exit_code, shown.output.splitlines()[0]) == (
        0,
        "trial 4 failed: configuration: <b>no</b> memory",
    )
    shown = CliRunner().invoke(cli, ["why", "voices", "0", "--json", *record])
    document = json.loads(shown.output)
    assert list(document) == ["study", "trial", "state", "why", "details", "decisions"]
    assert document == {
        **document,
        "study": "voices",
        "trial": "trial 0",
        "state": "complete",
        "decisions": [],
    }
    assert CliRunner().invoke(cli, ["why", "voices", "77", *record]).exit_code == 2
