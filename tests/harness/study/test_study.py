from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from harness.config.search_rules import Pruner
from harness.config.search_space import Values
from harness.config.sweep import Sweep
from harness.study.sampling.samplers import build_pruner, build_sampler
from harness.study.storage.record import Record, RecordError
from harness.study.study import DataChangedError, Study, StudyError, load_study, open_study, study_names
from harness.study.trials import TrialSummary, best_of


def opened(record: Record, definition: Sweep) -> Study:
    """The study as the next launch finds it: nobody holds it any more."""
    study = open_study(record, definition)
    study.release()
    return study


def sweep(**changes: Any) -> Sweep:
    base = {
        "name": "demo",
        "parameters": {"feature": ["mfcc", "log_mel"], "learning_rate": {"float": [1e-4, 1e-2], "log": True}},
        "budget": {"trials": 8},
    }
    return Sweep.model_validate(base | changes)


OTHER = {"feature": ["mfcc", "waveform"]}


# Names and resuming


def test_a_new_study_is_not_resumed_and_an_unchanged_one_is(record: Record) -> None:
    first = opened(record, sweep())
    again = opened(record, sweep())
    assert (first.name, first.resumed, first.note) == ("demo", False, "")
    assert (again.name, again.resumed, again.note) == ("demo", True, "")


def test_an_edited_sweep_is_another_study_and_says_so(record: Record) -> None:
    opened(record, sweep())
    second = opened(record, sweep(parameters=OTHER))
    third = opened(record, sweep(seed=7))
    assert [(one.name, one.resumed) for one in (second, third)] == [("demo-2", False), ("demo-3", False)]
    assert "demo exists with another definition" in second.note
    assert second.note.count("\n") == 0


def test_going_back_to_a_definition_resumes_its_study(record: Record) -> None:
    for definition in (sweep(), sweep(parameters=OTHER)):
        opened(record, definition)
    assert (opened(record, sweep()).name, opened(record, sweep()).resumed) == ("demo", True)
    assert (
        opened(record, sweep(parameters=OTHER)).name,
        opened(record, sweep(parameters=OTHER)).resumed,
    ) == ("demo-2", True)
    assert study_names(record) == ["demo", "demo-2"]


def test_a_larger_budget_resumes(record: Record) -> None:
    opened(record, sweep())
    again = opened(record, sweep(budget={"trials": 30}, workers=4, description="more of it"))
    assert (again.name, again.resumed) == ("demo", True)
    assert load_study(record, "demo").sweep.budget.trials == 30


def test_another_record_object_sees_the_same_study(record: Record) -> None:
    study = opened(record, sweep())
    tell(study, 0.5)
    assert [trial.score for trial in load_study(Record(record.root), "demo").trials()] == [0.5]
    assert load_study(Record(record.root), "demo").sweep == sweep()


def test_an_unknown_study_names_the_nearest(record: Record) -> None:
    with pytest.raises(StudyError, match="there is none yet"):
        load_study(record, "demo")
    opened(record, sweep())
    with pytest.raises(StudyError, match="did you mean demo\\?"):
        load_study(record, "demos")
    with pytest.raises(StudyError, match="there is demo"):
        load_study(record, "zzz")


def test_no_record_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="run `harness sweep FILE` first"):
        load_study(Record(tmp_path), "demo")
    with pytest.raises(RecordError, match="no record"):
        study_names(Record(tmp_path))


# Trials and the budget


def tell(study: Study, value: float | None, state: TrialState = TrialState.COMPLETE, **attrs: Any) -> int:
    trial = study.optuna_study.ask()
    study.space.suggest(trial)
    for name, attr in {"fingerprint": f"f{trial.number}", **attrs}.items():
        trial.set_user_attr(name, attr)
    study.optuna_study.tell(trial, value, state=state)
    return int(trial.number)


def test_the_budget_counts_what_ran_or_runs(record: Record) -> None:
    study = opened(record, sweep())
    tell(study, 0.5)
    tell(study, None, TrialState.PRUNED)
    tell(study, None, TrialState.FAIL)
    assert study.spent() == 3
    study.optuna_study.ask().set_user_attr("fingerprint", "f")
    assert study.spent() == 4
    tell(study, 0.5, duplicate_of=0)
    abandoned = study.optuna_study.ask()
    abandoned.set_user_attr("state", "abandoned")
    study.optuna_study.tell(abandoned, state=TrialState.FAIL)
    assert study.spent() == 4
    assert [trial.state for trial in study.trials()] == [
        "complete",
        "pruned",
        "failed",
        "running",
        "duplicate",
        "abandoned",
    ]


def test_a_parked_trial_shows_as_interrupted(record: Record) -> None:
    study = opened(record, sweep())
    trial = study.optuna_study.ask()
    trial.set_user_attr("fingerprint", "f")
    study.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
    assert [one.state for one in load_study(record, "demo").trials()] == ["interrupted"]


def test_a_pruned_trial_shows_the_score_it_had(record: Record) -> None:
    study = opened(record, sweep())
    tell(study, None, TrialState.PRUNED, outcome={"score": 0.4, "epochs": 3})
    assert [(one.score, one.epochs) for one in study.trials()] == [(0.4, 3)]
    assert study.best() is None


def summary(number: int, score: float | None, state: str = "complete") -> TrialSummary:
    return TrialSummary(number, state, "", score, 1, "", {}, {}, {}, "")


def test_of_equal_scores_the_first_is_best() -> None:
    trials = [summary(0, 0.2), summary(1, 0.9), summary(2, 0.9), summary(3, 0.1)]
    assert best_of(trials) == trials[1]
    assert best_of(trials[::-1]) == trials[1]


def test_only_a_complete_trial_is_best() -> None:
    assert best_of([]) is None
    assert best_of([summary(0, 0.9, "pruned"), summary(1, None), summary(2, 0.95, "duplicate")]) is None
    assert best_of([summary(0, 0.9, "failed"), summary(1, 0.0)]) == summary(1, 0.0)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8))
def test_the_best_is_never_beaten(scores: list[float]) -> None:
    best = best_of([summary(number, score) for number, score in enumerate(scores)])
    assert best is not None
    assert best.score == max(scores)
    assert best.number == scores.index(max(scores))


# The sampler


def run_trials(study: Study, count: int) -> list[Values]:
    found = []
    for _ in range(count):
        number = len(study.optuna_study.get_trials(deepcopy=False))
        study.optuna_study.sampler = build_sampler(study.sweep, number, workers=1, storage=study.storage)
        trial = study.optuna_study.ask()
        values = study.space.suggest(trial)
        found.append(values)
        study.optuna_study.tell(trial, float(str(values["learning_rate"])))
    return found


@pytest.mark.parametrize("sampler", [{"type": "tpe", "startup_trials": 4}, {"type": "random"}])
def test_an_interrupted_study_asks_what_an_undisturbed_one_asks(
    tmp_path: Path, sampler: dict[str, Any]
) -> None:
    found = []
    for name, pieces in (("whole", [10]), ("broken", [3, 1, 6])):
        record = Record(tmp_path / name)
        record.locks.mkdir(parents=True)
        asked: list[Values] = []
        for piece in pieces:
            asked += run_trials(opened(record, sweep(sampler=sampler)), piece)
        found.append(asked)
    assert found[0] == found[1]
    assert len({str(values) for values in found[0]}) > 5


def test_another_seed_asks_other_things(record: Record) -> None:
    one = run_trials(opened(record, sweep(seed=1)), 4)
    assert one != run_trials(opened(record, sweep(seed=2)), 4)


@pytest.mark.parametrize("kind", ["tpe", "random", "grid"])
def test_every_sampler_of_the_schema_can_be_built(kind: str) -> None:
    storage = optuna.storages.InMemoryStorage()
    built = build_sampler(sweep(sampler=kind), 0, workers=2, storage=storage)
    assert isinstance(built, optuna.samplers.BaseSampler)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("median", "MedianPruner"),
        ("patient", "PatientPruner"),
        ("halving", "SuccessiveHalvingPruner"),
        ("hyperband", "HyperbandPruner"),
        ("none", "NopPruner"),
    ],
)
def test_every_pruner_of_the_schema_can_be_built(kind: Any, expected: str) -> None:
    assert type(build_pruner(Pruner(type=kind), longest=2)).__name__ == expected


# Data


def test_other_windows_are_refused_and_both_digests_are_named(record: Record) -> None:
    study = opened(record, sweep())
    digests = {"c": {"train": "a" * 64, "val": "b" * 64, "test": "c" * 64}}
    study.check_manifests(digests)
    study.check_manifests(digests)
    changed = {"c": {**digests["c"], "val": "d" * 64}}
    with pytest.raises(
        DataChangedError, match=f"the val windows of study demo .* digest {'d' * 12} now, {'b' * 12} when"
    ):
        load_study(record, "demo").check_manifests(changed)
    study.check_manifests(digests)  # the refusal changed nothing


def test_windows_of_another_configuration_are_added(record: Record) -> None:
    study = opened(record, sweep())
    study.check_manifests({"c": {"val": "b"}})
    study.check_manifests({"d": {"val": "e"}})
    with pytest.raises(DataChangedError):
        study.check_manifests({"c": {"val": "x"}})
    with pytest.raises(DataChangedError):
        study.check_manifests({"d": {"val": "x"}})


def test_a_study_killed_while_it_was_made_is_taken_over(record: Record) -> None:
    optuna.create_study(study_name="demo", storage=record.storage(), direction="maximize")
    assert study_names(record) == []
    study = opened(record, sweep())
    assert study.name == "demo"
    assert study_names(record) == ["demo"]
