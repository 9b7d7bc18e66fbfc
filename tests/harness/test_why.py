"""What became of a trial: studies as the coordinator leaves them, in Optuna's journal alone."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import optuna
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from harness.cli import cli
from harness.confirmation_record import Arm, Result, keep_definition, keep_result
from harness.controls import Control, Judgement, keep_control
from harness.decisions import Decision, decisions_of, remember
from harness.ensemble_record import EnsembleSummary
from harness.ensemble_record import remember as remember_ensemble
from harness.pruning import pruned_by
from harness.record import Record
from harness.study import Study, StudyError, open_study
from harness.sweep import Sweep
from harness.trial_config import TrialConfig
from harness.why import why
from tests.harness.places.report_study import Place

GUARD = {"name": "latency P99, batch 1", "level": "quality", "ok": False, "measured": "112.0 ms on CPU", "bound": "< 10 ms",
         "advice": "A smaller width is cheaper."}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def study(place: Place) -> Study:
    return place.two_front_ends()


def study_of(record: Record, name: str = "voices", **changes: Any) -> Study:
    sweep = {
        "name": name,
        "parameters": {"learning_rate": {"float": [1e-4, 1e-2], "log": True}, "epochs": 27},
        "budget": {"trials": 9},
    }
    study = open_study(record, Sweep.model_validate(sweep | changes))
    study.release()
    return study


def train(study: Study, series: list[float]) -> tuple[int, bool]:
    """One trial as the coordinator runs it: report, ask the pruner, tell."""
    trial = study.optuna_study.ask()
    values = study.space.suggest(trial)
    config = study.space.config(values)
    attributes = {"name": f"{trial.number:03d} mfcc", "values": values, "config": config.model_dump(mode="json"),
                  "fingerprint": config.fingerprint()}  # fmt: skip
    for name, attribute in attributes.items():
        trial.set_user_attr(name, attribute)
    for epoch, value in enumerate(series):
        trial.report(value, epoch)
        if epoch + 1 >= study.sweep.pruner.warmup_epochs and trial.should_prune():
            trial.set_user_attr(
                "outcome", {"state": "pruned", "epochs": epoch + 1, "score": max(series[: epoch + 1])}
            )
            trial.set_user_attr(
                "reason", f"the {study.sweep.pruner.type} pruner stopped it after epoch {epoch + 1}"
            )
            study.optuna_study.tell(trial, state=TrialState.PRUNED)
            return trial.number, True
    study.optuna_study.tell(trial, series[-1])
    return trial.number, False


def asked(place: Place, study: Study, word: str, is_run: bool = False) -> Any:
    return why(place.record, study, word, is_run=is_run)


def text_of(answer: Any) -> str:
    return "\n".join(answer.lines())


# Pruned


def test_the_median_rule_is_told_with_what_it_saw(record: Record) -> None:
    study = study_of(record, pruner={"type": "median", "startup_trials": 3, "warmup_epochs": 2})
    for last in (0.6, 0.7, 0.8):
        assert train(study, [0.5, 0.55, last - 0.05, last]) == (len(study.trials()) - 1, False)
    number, pruned = train(study, [0.5, 0.58, 0.56, 0.57])
    assert pruned
    train(study, [0.9, 0.9, 0.9, 0.9])  # complete later: the rule did not know it
    found = pruned_by(record, study, number)
    assert (found.rule, found.epoch, found.value, found.bound, found.rank) == (
        "median",
        3,
        0.58,
        pytest.approx(0.65),
        3,
    )
    assert found.others == pytest.approx((0.75, 0.65, 0.55))
    answer = why(record, study, "003", is_run=False)
    assert answer.state == "pruned"
    assert answer.why == (
        "trial 3 was pruned by the median rule at epoch 3: its smoothed validation score, 0.580, was below 0.650"
    )
    assert "median at epoch 3 of the 3 trials" in text_of(answer)
    assert "it ranked 3 of 4 there; trained 3 of 27 epochs, score until then 0.580" in text_of(answer)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), rule=st.sampled_from(["median", "patient", "halving", "hyperband"]))
def test_whatever_optuna_prunes_is_explained_by_its_own_rule(
    tmp_path_factory: Any, data: Any, rule: str
) -> None:
    """The numbers that are found again decide as Optuna decided."""
    place = Place(tmp_path_factory.mktemp("pruned"))
    pruner = {"type": rule, "startup_trials": 2, "warmup_epochs": 1, "reduction_factor": 2, "patience": 1}
    study = study_of(
        place.record, pruner=pruner, parameters={"learning_rate": {"float": [1e-4, 1e-2]}, "epochs": 6}
    )
    score = st.integers(0, 20).map(lambda k: k / 20)
    series = st.lists(score, min_size=6, max_size=6)
    for _ in range(7):
        number, pruned = train(study, data.draw(series))
        found = pruned_by(place.record, study, number)
        if pruned:
            assert found.rule == rule
            assert found.value < found.bound
            assert found.epoch == len(study.optuna_study.trials[number].intermediate_values)
            if rule in ("median", "patient"):
                assert found.bound == median(found.others)


def test_a_trial_is_judged_by_those_of_its_own_study(record: Record) -> None:
    first = study_of(record, pruner={"type": "median", "startup_trials": 1, "warmup_epochs": 1})
    other = study_of(record, name="other", pruner={"type": "median", "startup_trials": 1, "warmup_epochs": 1})
    train(other, [0.9, 0.9])
    train(first, [0.6, 0.6])
    number, pruned = train(first, [0.5, 0.5])
    assert pruned
    assert pruned_by(record, first, number).others == (0.6,)


def test_a_pruned_trial_whose_epochs_are_unknown_keeps_its_reason(place: Place, study: Study) -> None:
    assert asked(place, study, "3").why == "trial 3 was pruned: the median pruner stopped it"


# Failed, left out, unfinished


def test_a_failure_is_told_with_its_kind_and_the_end_of_its_traceback(place: Place, study: Study) -> None:
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


def test_a_duplicate_names_its_first(place: Place, study: Study) -> None:
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


def test_a_skipped_arm_gives_its_reason(place: Place, study: Study) -> None:
    skipped = {"state": "skipped", "values": {}, "reason": "no file /x.bin"}
    study.optuna_study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=skipped))
    answer = asked(place, study, "5")
    assert (answer.state, answer.why) == ("skipped", "trial 5 was skipped: no file /x.bin")


def test_what_is_not_finished_says_what_the_next_launch_does(place: Place, study: Study) -> None:
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


def test_controls_answer_by_name(place: Place, study: Study) -> None:
    assert asked(place, study, "unseen").state == "absent"
    keep_control(study, Control("unseen", Judgement("broken", 0.8, 0.7, 100, 20), "", "f"))
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


def test_a_trial_that_luck_may_explain_is_not_called_worse(place: Place, study: Study) -> None:
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


def test_the_best_is_told_to_be_promoted(place: Place, study: Study) -> None:
    best = study.best().number
    answer = asked(place, study, str(best))
    assert (
        answer.why
        == f"trial {best} is the best by validation score; nobody has promoted it yet: harness promote voices"
    )
    assert "none has succeeded" in text_of(answer)


def test_trials_judged_on_other_windows_are_no_rivals(place: Place, study: Study) -> None:
    other = place.study("second", seed=3)
    place.add(other, 0.6, seed=9)
    assert "rank 1 of 1" in text_of(asked(place, other, "0"))


def test_what_cannot_be_exported_says_so(place: Place) -> None:
    study = place.study()
    place.add(study, 0.8, seed=1, promotable="no: the embedding network cannot be exported")
    assert "the embedding network cannot be exported" in asked(place, study, "0").why


def test_decisions_are_kept_and_told(place: Place, study: Study) -> None:
    best = study.best().number
    other = next(number for number in (0, 1) if number != best)
    refused = Decision(
        "2026-01-02T03:04:05+00:00", "production", f"trial {other}", "refused", guards=(GUARD,)
    )
    promoted = Decision(
        "2026-01-03T03:04:05+00:00", "default", f"trial {best}, seed 2", "promoted", "gender-only", "4"
    )
    challenger = Decision(
        "2026-01-04T03:04:05+00:00",
        "default",
        "trial 2",
        "challenger",
        "gender-only",
        "5",
        note="not shown better",
    )
    for decision in (refused, promoted, challenger):
        remember(study, decision)
    assert decisions_of(study) == [refused, promoted, challenger]
    answer = asked(place, study, str(other))
    assert (
        answer.why
        == f"trial {other} was refused on 2026-01-02 under policy production by latency P99, batch 1"
    )
    assert "112.0 ms on CPU, bound < 10 ms. A smaller width is cheaper." in text_of(answer)
    assert answer.decisions == (refused,)
    assert "as gender-only version 4 on 2026-01-03 under policy default" in asked(place, study, str(best)).why
    assert "challenger and not champion" in asked(place, study, "2").why
    place.add(study, 0.5, seed=4)
    text = text_of(asked(place, study, "5"))
    assert f"no promotion has asked for it; trial {best}, seed 2 was promoted" in text
    assert "the best by validation score" in text


def confirm(study: Study, scores: dict[int, tuple[float, float, float]]) -> None:
    """Three fresh seeds of each of these trials; the first is the baseline too."""
    arms = [
        Arm(
            one.name,
            TrialConfig.model_validate(one.config),
            one.values,
            number,
            one.score,
            0.01,
            number == min(scores),
        )
        for number in scores
        for one in [study.trial(number)]
    ]
    keep_definition(study, arms, 3)
    for arm in arms:
        for seed, score in enumerate(scores[arm.trial], 1):
            keep_result(
                study, arm.fingerprint, seed, Result({**study.trial(arm.trial).outcome, "score": score})
            )


def test_a_confirmation_says_who_lost_and_what_it_lacked(place: Place, study: Study) -> None:
    confirm(study, {0: (0.70, 0.71, 0.72), 1: (0.80, 0.81, 0.82)})
    lost = asked(place, study, "0")
    assert (
        lost.why
        == "trial 0 was not promoted: the confirmation on fresh seeds chose trial 1, it ranks 2 of 2 there"
    )
    assert (
        "it lost: its mean, 0.710, is more than one standard error below trial 1's (0.810 - 0.006 = 0.804)"
        in text_of(lost)
    )
    assert "trial 1 is the confirmation's winner" in asked(place, study, "1").why
    assert "seed 2 ships" in text_of(asked(place, study, "1"))
    stranger = asked(place, study, "2")
    assert "it was no finalist" in stranger.why
    confirm(study, {0: (0.80, 0.80, 0.83), 1: (0.80, 0.81, 0.82)})
    equal = [asked(place, study, number) for number in ("0", "1")]
    assert sum("within one standard error of the best as well" in text_of(one) for one in equal) == 1


def test_the_baseline_answers_by_name(place: Place, study: Study) -> None:
    answer = asked(place, study, "baseline")
    assert (answer.trial, answer.state) == ("baseline", "absent")
    assert "harness confirm voices" in text_of(answer)
    told = [study.trial(number) for number in (0, 1)]
    arms = [
        Arm(
            one.name, TrialConfig.model_validate(one.config), one.values, number, one.score, is_baseline=False
        )
        for number, one in zip((0, None), told, strict=True)
    ]
    arms[1] = replace(arms[1], is_baseline=True)
    keep_definition(study, arms, 2)
    assert "0 of 4 trainings done" in text_of(asked(place, study, "baseline"))
    for arm, scores in zip(arms, ((0.8, 0.82), (0.6, 0.62)), strict=True):
        for seed, score in enumerate(scores, 1):
            keep_result(study, arm.fingerprint, seed, Result({**told[0].outcome, "score": score}))
    answer = asked(place, study, "baseline")
    assert answer.why == (
        "the baseline was not promoted: the confirmation on fresh seeds chose trial 0, the baseline ranks 2 of 2 there"
    )
    assert "it lost: its mean, 0.610" in text_of(answer)
    remember(study, Decision("2026-01-01", "default", "baseline, seed 2", "refused"))
    assert "baseline, seed 2 was refused" in asked(place, study, "baseline").why
    keep_definition(study, [replace(arms[0], is_baseline=True)], 2)
    assert asked(place, study, "baseline").trial == "trial 0"


def test_a_number_is_not_taken_for_the_start_of_another() -> None:
    decision = Decision("", "default", "trial 12", "refused")
    assert decision.is_about("trial 12")
    assert not decision.is_about("trial 1")


def test_what_was_decided_about_the_same_configuration_under_another_name_is_found(
    place: Place, study: Study
) -> None:
    trial = study.trial(2)
    promoted = Decision(
        "2026-01-02T00:00:00+00:00", "default", "baseline, seed 1", "promoted", "m", "1", fingerprint=trial.fingerprint
    )  # fmt: skip
    remember(study, promoted)
    assert decisions_of(study) == [promoted]
    answer = asked(place, study, "2")
    assert answer.why == "baseline, seed 1 was promoted as m version 1 on 2026-01-02 under policy default"
    assert answer.decisions == (promoted,)
    assert asked(place, study, "0").decisions == ()
    assert not Decision("", "default", "baseline", "refused").is_about("trial 2", "")  # from before the field


def test_a_trial_that_was_confirmed_alone_says_so(place: Place, study: Study) -> None:
    one = study.trial(0)
    arm = Arm(one.name, TrialConfig.model_validate(one.config), one.values, 0, one.score, 0.01, True)
    keep_definition(study, [arm], 2, named=True)
    assert "confirmation of trial 0 alone: 0 of 2 trainings done" in text_of(asked(place, study, "0"))
    for seed in (1, 2):
        keep_result(study, arm.fingerprint, seed, Result({**one.outcome, "score": 0.7}))
    assert "confirmed alone: trial 0 (the baseline): 0.700" in text_of(asked(place, study, "0"))
    assert "the trial that was named" not in text_of(asked(place, study, "1"))
    record = ["--record", str(place.record.root)]
    shown = CliRunner().invoke(cli, ["status", "voices", *record]).output
    assert "trial 0 confirmed alone: winner: trial 0 (the baseline)" in shown


def test_an_ensemble_answers_by_name(place: Place, study: Study) -> None:
    members = (study.trial(0), study.trial(1))
    remember_ensemble(
        study, EnsembleSummary("both", "a" * 32, members, ("r0", "r1"), "f", members[0].outcome)
    )
    answer = asked(place, study, "both")
    assert answer.trial == "ensemble both"
    assert "mean probability of trial 0" in text_of(answer)
    assert "not promoted" in answer.why


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
    place: Place, study: Study, word: str, said: str
) -> None:
    with pytest.raises(StudyError, match=said):
        asked(place, study, word)


def test_the_command_prints_text_or_one_document(place: Place, study: Study) -> None:
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
