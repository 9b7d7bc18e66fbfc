import json
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.trial import TrialState

from harness.study.storage.journal import AtomicJournalBackend
from harness.study.storage.journal_reader import FastJournalStorage
from harness.study.storage.record import Record

Operation = tuple[str, int, float]
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "suggest", "other", "report", "user", "system", "complete", "prune", "fail", "wait",
                         "enqueue", "study", "delete"]),
        st.integers(0, 3),
        st.floats(0, 1) | st.sampled_from([float("nan"), float("inf")]),
    ),
    max_size=25,
)  # fmt: skip


def journal(path: Path) -> AtomicJournalBackend:
    return AtomicJournalBackend(path, FileLock(path.with_suffix(".lock")))


def act(storage: JournalStorage, operations: list[Operation]) -> None:
    """Write a journal by Optuna's own calls; those that it refuses are left out."""
    studies = [optuna.create_study(study_name="s0", storage=storage, direction="maximize")]
    trials: list[optuna.Trial] = []
    for what, at, value in operations:
        study = studies[at % len(studies)]
        if what == "study":
            studies.append(optuna.create_study(study_name=f"s{len(studies)}", storage=storage))
        elif what == "ask":
            trials.append(study.ask())
        elif what == "enqueue":
            study.enqueue_trial({"x": 0.5}, user_attrs={"queued": at})
        elif what == "delete" and len(studies) > 5:
            storage.delete_study(studies.pop()._study_id)
        elif trials:
            on_trial(storage, trials[at % len(trials)], what, value)


def on_trial(storage: JournalStorage, trial: optuna.Trial, what: str, value: float) -> None:
    known = storage.get_trial(trial._trial_id)
    if known.state.is_finished():
        return
    ends = {"prune": TrialState.PRUNED, "fail": TrialState.FAIL, "wait": TrialState.WAITING}
    if what == "suggest":
        trial.suggest_float("x", 0, 1)
        trial.suggest_categorical("kind", ["a", "b"])
    elif what == "other" and "y" not in known.params:
        trial.suggest_float("y", 1e-3, 1 + int(10 * value) if value < 1 else 2.0, log=True)
    elif what == "report" and len(known.intermediate_values) < 5:
        trial.report(value, len(known.intermediate_values))
    elif what in ("user", "system"):
        getattr(storage, f"set_trial_{what}_attr")(trial._trial_id, "key", {"nested": [value, None]})
    elif what == "complete" and value <= 1:
        storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [value])
    elif what in ends:
        storage.set_trial_state_values(trial._trial_id, ends[what])


def content(storage: JournalStorage) -> str:
    """Everything that a storage knows; NaN equals itself as text."""
    result: dict[str, Any] = {}
    for study in storage.get_all_studies():
        result[study.study_name] = [
            study.user_attrs, study.system_attrs, [repr(trial) for trial in storage.get_all_trials(study._study_id)]
        ]  # fmt: skip
    return json.dumps(result, sort_keys=True, default=str)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
@example(
    operations=[("study", 0, 0.0)] * 5
    + [("ask", 5, 0.0), ("suggest", 0, 0.0), ("delete", 0, 0.0), ("ask", 0, 0.0)]
)
def test_a_journal_is_read_as_optuna_reads_it(tmp_path_factory: Any, operations: list[Operation]) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = tmp_path_factory.mktemp("journal") / "optuna.journal"
    act(JournalStorage(journal(path)), operations)
    theirs, ours = JournalStorage(journal(path)), FastJournalStorage(journal(path))
    assert content(ours) == content(theirs)
    assert ours._replay_result.log_number_read == theirs._replay_result.log_number_read
    # Both go on in the same way, and see what the other writes.
    act_again = [("ask", 0, 0.0), ("suggest", 0, 0.0), ("user", 0, 1.0)]
    study = optuna.load_study(study_name="s0", storage=ours)
    trial = study.ask()
    for what, _, value in act_again[1:]:
        on_trial(ours, trial, what, value)
    assert content(ours) == content(theirs) == content(FastJournalStorage(journal(path)))


def test_what_was_given_out_never_changes(record: Record) -> None:
    """Only while a storage is being opened are trials changed in place."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name="s", storage=record.storage())
    study.ask()
    reopened = optuna.load_study(study_name="s", storage=record.storage())
    (held,) = reopened.get_trials(deepcopy=False)
    reopened._storage.set_trial_user_attr(held._trial_id, "key", 1)
    assert held.user_attrs == {}
    assert reopened.get_trials(deepcopy=False)[0].user_attrs == {"key": 1}


def test_a_torn_last_line_is_passed_over(record: Record) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    optuna.create_study(study_name="s", storage=record.storage()).ask()
    with record.journal.open("ab") as file:
        file.write(b'{"op_code": 8, "worker')
    reopened = optuna.load_study(study_name="s", storage=record.storage())
    assert len(reopened.trials) == 1
    reopened.ask()
    assert len(optuna.load_study(study_name="s", storage=record.storage()).trials) == 2


def test_a_distribution_that_does_not_fit_the_studys_first_is_left_out_as_optuna_does(record: Record) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name="s", storage=record.storage())
    for name, distribution in (
        ("x", {"low": 0, "high": 1}),
        ("y", {"low": 0, "high": 1, "log": False, "step": 1}),
    ):
        trial = study.ask()
        kind = "FloatDistribution" if name == "x" else "IntDistribution"
        text = json.dumps({"name": kind, "attributes": {"log": False, "step": None, **distribution}})
        line = {"op_code": 5, "worker_id": "w", "trial_id": trial._trial_id, "param_name": "z",
                "param_value_internal": 1, "distribution": text}  # fmt: skip
        with record.journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    theirs, ours = JournalStorage(journal(record.journal)), FastJournalStorage(journal(record.journal))
    assert content(ours) == content(theirs)
    assert [trial.params for trial in ours.get_all_trials(0)] == [{"z": 1.0}, {}]
