"""What stops a trial is written down as it stops; it is what the journal's order says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from harness.reporting.explain.pruning import pruning_reason, pruning_sentence, replayed_reason
from harness.study.sampling.pruning_decision import PRUNED_BY, should_prune
from harness.study.storage.record import Record
from harness.study.study import Study, load_study
from tests.harness.places.report_study import ReportRecord
from tests.harness.places.why_answers import study_of

RULES = ("median", "patient", "halving", "hyperband")
EPOCHS = 6


def definition(rule: str) -> dict[str, Any]:
    pruner = {"type": rule, "startup_trials": 1, "warmup_epochs": 1, "reduction_factor": 2, "patience": 1}
    return {"pruner": pruner, "parameters": {"learning_rate": {"float": [1e-4, 1e-2]}, "epochs": EPOCHS}}


class Worker:
    """Trains one trial after another in a study that others train in too."""

    def __init__(self, study: Study) -> None:
        self.study, self.pruned, self.trial = study, list[int](), study.optuna_study.ask()

    def epoch(self, score: float) -> None:
        study, epoch = self.study.optuna_study, len(self.frozen().intermediate_values)
        self.trial.report(score, epoch)
        if should_prune(study, self.study.sweep.pruner, self.trial):
            self.pruned.append(self.trial.number)
            study.tell(self.trial, state=TrialState.PRUNED)
        elif epoch + 1 == EPOCHS:
            study.tell(self.trial, score)
        if self.frozen().state.is_finished():
            self.trial = study.ask()

    def frozen(self) -> Any:
        return self.study.optuna_study.get_trials(deepcopy=False)[self.trial.number]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rule=st.sampled_from(RULES),
    epochs=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20)), min_size=60, max_size=90),
)
def test_what_is_written_is_what_the_journal_says(
    tmp_path_factory: Any, rule: str, epochs: list[tuple[int, int]]
) -> None:
    record = ReportRecord(tmp_path_factory.mktemp("pruned")).record
    study = study_of(record, **definition(rule))
    workers = [Worker(study) for _ in range(3)]
    for worker, score in epochs:
        workers[worker].epoch(score / 20)
    read = load_study(record, study.name)
    for number in (number for worker in workers for number in worker.pruned):
        written, replayed = (found(record, read, number) for found in (pruning_reason, replayed_reason))
        assert written == replayed
        assert written is not None
        assert written.rule == rule
        assert written.rank > 1
        assert pruning_sentence(read.sweep.pruner, written) == pruning_sentence(read.sweep.pruner, replayed)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_writes_its_numbers(record: Record, rule: str) -> None:
    worker = Worker(study_of(record, **definition(rule)))
    for score in range(40, 0, -1):
        worker.epoch(score / 40)
    assert worker.pruned
    for number in worker.pruned:
        assert PRUNED_BY in worker.study.optuna_study.trials[number].user_attrs


def test_a_trial_that_goes_on_has_none(record: Record) -> None:
    worker = Worker(study_of(record, **definition("median")))
    for score in range(3 * EPOCHS):
        worker.epoch(score / 40)
    assert worker.pruned == []
    assert all(PRUNED_BY not in trial.user_attrs for trial in worker.study.optuna_study.trials)
