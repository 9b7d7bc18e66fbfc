"""Why a trial was pruned, by the numbers that its pruner saw."""

from statistics import median
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from harness.reporting.explain.pruning import pruning_reason
from harness.reporting.explain.why import explain_trial
from harness.study.storage.record import Record
from harness.study.study import Study
from tests.harness.places.report_study import ReportRecord
from tests.harness.places.why_answers import asked, study_of, text_of


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


def test_the_median_rule_is_told_with_what_it_saw(record: Record) -> None:
    study = study_of(record, pruner={"type": "median", "startup_trials": 3, "warmup_epochs": 2})
    for last in (0.6, 0.7, 0.8):
        assert train(study, [0.5, 0.55, last - 0.05, last]) == (len(study.trials()) - 1, False)
    number, pruned = train(study, [0.5, 0.58, 0.56, 0.57])
    assert pruned
    train(study, [0.9, 0.9, 0.9, 0.9])  # complete later: the rule did not know it
    found = pruning_reason(record, study, number)
    assert (found.rule, found.epoch, found.value, found.bound, found.rank) == (
        "median",
        3,
        0.58,
        pytest.approx(0.65),
        3,
    )
    assert found.others == pytest.approx((0.75, 0.65, 0.55))
    answer = explain_trial(record, study, "003", is_run=False)
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
    place = ReportRecord(tmp_path_factory.mktemp("pruned"))
    pruner = {"type": rule, "startup_trials": 2, "warmup_epochs": 1, "reduction_factor": 2, "patience": 1}
    study = study_of(
        place.record, pruner=pruner, parameters={"learning_rate": {"float": [1e-4, 1e-2]}, "epochs": 6}
    )
    score = st.integers(0, 20).map(lambda k: k / 20)
    series = st.lists(score, min_size=6, max_size=6)
    for _ in range(7):
        number, pruned = train(study, data.draw(series))
        found = pruning_reason(place.record, study, number)
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
    assert pruning_reason(record, first, number).others == (0.6,)


def test_a_pruned_trial_whose_epochs_are_unknown_keeps_its_reason(place: ReportRecord, study: Study) -> None:
    assert asked(place, study, "3").why == "trial 3 was pruned: the median pruner stopped it"
