"""What a dead process left is put right, whatever it was, and only once."""

import uuid
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from harness.config.sweep import Sweep
from harness.execution.recovery import ended_spools, find_stale, reconcile, reconcile_study
from harness.study.ask import TrialAsker
from harness.study.storage.record import Record, RecordError
from harness.study.storage.trial_spool import TrialSpool
from harness.study.study import Study, open_study
from harness.tracking.run_header import run_name

SWEEP = {"name": "left", "parameters": {"learning_rate": {"float": [0.001, 0.01]}}, "sampler": "random"}
optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture
def study(record: Record) -> Study:
    return open_study(record, Sweep.model_validate(SWEEP))


def spool_of(record: Record, study: Study, number: int) -> TrialSpool:
    return TrialSpool(record.spool / study.name / f"{number:05d}")


def begin(record: Record, study: Study) -> Any:
    """A trial as far as its spool: it runs."""
    asked = TrialAsker(study, 1).next()
    assert asked is not None
    trial, values, config = asked
    trial.set_user_attr("name", run_name(trial.number, values, ()))
    trial.set_user_attr("config", config.model_dump(mode="json"))
    trial.set_user_attr("fingerprint", config.fingerprint())
    header = {
        "number": trial.number,
        "tags": {"harness.kind": "trial"},
        "label_shares": {"labels/train/share_1": 0.5},
    }
    spool_of(record, study, trial.number).write("trial", header)
    return trial


def asked(record: Record, study: Study) -> None:
    TrialAsker(study, 1).next()


def running(record: Record, study: Study) -> None:
    begin(record, study)


def waiting(record: Record, study: Study) -> None:
    study.storage.set_trial_state_values(begin(record, study)._trial_id, TrialState.WAITING)


def told(record: Record, study: Study) -> None:
    study.optuna_study.tell(begin(record, study).number, 0.5)


def failed(record: Record, study: Study) -> None:
    study.optuna_study.tell(begin(record, study).number, state=TrialState.FAIL)


def judged(record: Record, study: Study) -> None:
    trial = begin(record, study)
    study.optuna_study.tell(trial.number, 0.5)
    spool_of(record, study, trial.number).write("verdict", {"status": "FINISHED"})


def twin(record: Record, study: Study) -> None:
    first = begin(record, study)
    second = study.optuna_study.ask()
    second.set_user_attr("duplicate_of", first.number)
    study.optuna_study.tell(first.number, 0.75)


def half_removed(record: Record, study: Study) -> None:
    spool = spool_of(record, study, 77)
    spool.write("verdict", {"status": "FINISHED"})


def unknown(record: Record, study: Study) -> None:
    spool_of(record, study, 99).write("trial", {"number": 99, "tags": {"harness.kind": "trial"}})


LEFT = (asked, running, told, failed, judged, twin, half_removed, unknown)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(left=st.lists(st.sampled_from(LEFT), max_size=6), parked=st.booleans())
def test_whatever_was_left_is_put_right_once(
    record: Record, left: list[Callable[[Record, Study], None]], parked: bool
) -> None:
    study = open_study(record, Sweep.model_validate({**SWEEP, "name": f"left-{uuid.uuid4().hex}"}))
    left = [*left, waiting] if parked else left  # last: the next `ask` would get it
    for leave in left:
        leave(record, study)
    reconcile_study(study, record)
    assert reconcile_study(study, record) == []
    trials = study.optuna_study.get_trials()
    for trial in trials:  # told, or it waits with its configuration
        assert trial.state.is_finished() or (
            trial.state == TrialState.WAITING and "fingerprint" in trial.user_attrs
        )
    states = [trial.state for trial in trials]
    assert states.count(TrialState.WAITING) == sum(leave in (running, waiting) for leave in left)
    assert states.count(TrialState.COMPLETE) == sum(
        {told: 1, judged: 1, twin: 2}.get(leave, 0) for leave in left
    )
    ended = {spool.folder.name for spool in ended_spools(study, record)}
    begun = {
        f"{trial.number:05d}"
        for trial in trials
        if trial.state.is_finished() and "fingerprint" in trial.user_attrs
    }
    assert ended == begun
    assert {folder.name for folder in record.spooled(study.name)} == {
        f"{trial.number:05d}" for trial in trials if "fingerprint" in trial.user_attrs
    }
    study.release()


def test_a_twin_is_told_what_its_first_was(record: Record, study: Study) -> None:
    twin(record, study)
    assert reconcile_study(study, record)[0] == "trial 1: told as the trial that it repeats"
    assert [trial.value for trial in study.optuna_study.get_trials()] == [0.75, 0.75]


def test_a_trial_that_never_began_gives_its_configuration_to_the_next(record: Record, study: Study) -> None:
    first = TrialAsker(study, 1).next()
    reconcile_study(study, record)
    second = TrialAsker(study, 1).next()
    assert first is not None
    assert second is not None
    assert (first[0].number, second[0].number) == (0, 1)
    assert first[2] == second[2]


def test_a_queued_configuration_is_queued_once(record: Record) -> None:
    grid = {**SWEEP, "name": "grid", "parameters": {"width": [0.125, 0.25]}, "sampler": "grid"}
    study = open_study(record, Sweep.model_validate(grid))
    TrialAsker(study, 1)._enqueue_unseen()  # and killed
    reconcile_study(study, record)
    asking = TrialAsker(study, 1)
    assert [asking.next() is not None for _ in range(3)] == [True, True, False]
    assert len(study.optuna_study.get_trials()) == 2


def test_what_is_stale_is_listed_and_a_living_study_is_left_alone(record: Record, study: Study) -> None:
    running(record, study)
    assert find_stale(record) == []
    with pytest.raises(RecordError, match="is being run by process"):
        reconcile(record, "left")
    study.release()
    (stale,) = find_stale(record)
    assert (stale.study, stale.text) == ("left", "trial 0: nobody trains it, it waits for the next launch")
    assert reconcile(record, "left") == [stale.text]  # nothing to store: no server is started
    assert not record.server_log.exists()
    assert reconcile(record, "left") == []
    assert find_stale(record) == []
