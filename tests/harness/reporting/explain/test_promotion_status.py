"""Why a trial was promoted or not: the decisions about it, its confirmation, the baseline, its ensemble."""

from dataclasses import replace

from click.testing import CliRunner

from harness.cli.main import cli
from harness.config.trial.trial_config import TrialConfig
from harness.study.confirmation.definition import (
    ConfirmedConfig,
    ReplicateResult,
    save_definition,
    save_result,
)
from harness.study.decisions import Decision, add_decision, decisions_of
from harness.study.ensembles import EnsembleSummary
from harness.study.ensembles import save_ensemble as remember_ensemble
from harness.study.study import Study
from tests.harness.places.report_study import ReportRecord
from tests.harness.places.why_answers import asked, text_of

GUARD = {"name": "latency P99, batch 1", "level": "quality", "ok": False, "measured": "112.0 ms on CPU", "bound": "< 10 ms",
         "advice": "A smaller width is cheaper."}  # fmt: skip


def test_decisions_are_kept_and_told(place: ReportRecord, study: Study) -> None:
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
        add_decision(study, decision)
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
        ConfirmedConfig(
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
    save_definition(study, arms, 3)
    for arm in arms:
        for seed, score in enumerate(scores[arm.trial], 1):
            save_result(
                study,
                arm.fingerprint,
                seed,
                ReplicateResult({**study.trial(arm.trial).outcome, "score": score}),
            )


def test_a_confirmation_says_who_lost_and_what_it_lacked(place: ReportRecord, study: Study) -> None:
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


def test_the_baseline_answers_by_name(place: ReportRecord, study: Study) -> None:
    answer = asked(place, study, "baseline")
    assert (answer.trial, answer.state) == ("baseline", "absent")
    assert "harness confirm voices" in text_of(answer)
    told = [study.trial(number) for number in (0, 1)]
    arms = [
        ConfirmedConfig(
            one.name, TrialConfig.model_validate(one.config), one.values, number, one.score, is_baseline=False
        )
        for number, one in zip((0, None), told, strict=True)
    ]
    arms[1] = replace(arms[1], is_baseline=True)
    save_definition(study, arms, 2)
    assert "0 of 4 trainings done" in text_of(asked(place, study, "baseline"))
    for arm, scores in zip(arms, ((0.8, 0.82), (0.6, 0.62)), strict=True):
        for seed, score in enumerate(scores, 1):
            save_result(study, arm.fingerprint, seed, ReplicateResult({**told[0].outcome, "score": score}))
    answer = asked(place, study, "baseline")
    assert answer.why == (
        "the baseline was not promoted: the confirmation on fresh seeds chose trial 0, the baseline ranks 2 of 2 there"
    )
    assert "it lost: its mean, 0.610" in text_of(answer)
    add_decision(study, Decision("2026-01-01", "default", "baseline, seed 2", "refused"))
    assert "baseline, seed 2 was refused" in asked(place, study, "baseline").why
    save_definition(study, [replace(arms[0], is_baseline=True)], 2)
    assert asked(place, study, "baseline").trial == "trial 0"


def test_a_number_is_not_taken_for_the_start_of_another() -> None:
    decision = Decision("", "default", "trial 12", "refused")
    assert decision.is_about("trial 12")
    assert not decision.is_about("trial 1")


def test_what_was_decided_about_the_same_configuration_under_another_name_is_found(
    place: ReportRecord, study: Study
) -> None:
    trial = study.trial(2)
    promoted = Decision(
        "2026-01-02T00:00:00+00:00", "default", "baseline, seed 1", "promoted", "m", "1", fingerprint=trial.fingerprint
    )  # fmt: skip
    add_decision(study, promoted)
    assert decisions_of(study) == [promoted]
    answer = asked(place, study, "2")
    assert answer.why == "baseline, seed 1 was promoted as m version 1 on 2026-01-02 under policy default"
    assert answer.decisions == (promoted,)
    assert asked(place, study, "0").decisions == ()
    assert not Decision("", "default", "baseline", "refused").is_about("trial 2", "")  # from before the field


def test_a_trial_that_was_confirmed_alone_says_so(place: ReportRecord, study: Study) -> None:
    one = study.trial(0)
    arm = ConfirmedConfig(
        one.name, TrialConfig.model_validate(one.config), one.values, 0, one.score, 0.01, True
    )
    save_definition(study, [arm], 2, named=True)
    assert "confirmation of trial 0 alone: 0 of 2 trainings done" in text_of(asked(place, study, "0"))
    for seed in (1, 2):
        save_result(study, arm.fingerprint, seed, ReplicateResult({**one.outcome, "score": 0.7}))
    assert "confirmed alone: trial 0 (the baseline): 0.700" in text_of(asked(place, study, "0"))
    assert "the trial that was named" not in text_of(asked(place, study, "1"))
    record = ["--record", str(place.record.root)]
    shown = CliRunner().invoke(cli, ["status", "voices", *record]).output
    assert "trial 0 confirmed alone: winner: trial 0 (the baseline)" in shown


def test_an_ensemble_answers_by_name(place: ReportRecord, study: Study) -> None:
    members = (study.trial(0), study.trial(1))
    remember_ensemble(
        study, EnsembleSummary("both", "a" * 32, members, ("r0", "r1"), "f", members[0].outcome)
    )
    answer = asked(place, study, "both")
    assert answer.trial == "ensemble both"
    assert "mean probability of trial 0" in text_of(answer)
    assert "not promoted" in answer.why
