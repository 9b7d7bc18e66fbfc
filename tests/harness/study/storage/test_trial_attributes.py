"""Attributes of a trial in one append."""

from pathlib import Path

import pytest
from optuna.trial import TrialState

from harness.config.sweep import Sweep
from harness.study.storage.journal import AtomicJournalBackend
from harness.study.storage.record import Record
from harness.study.storage.trial_attributes import json_attribute, set_attributes
from harness.study.study import load_study, open_study


def test_attributes_are_one_append_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(tmp_path / "mlruns")
    record.locks.mkdir(parents=True)
    study = open_study(record, Sweep.model_validate({"name": "one"}))
    trial = study.optuna_study.ask()
    trial.set_user_attr("kept", 1)
    appends: list[list[dict[str, object]]] = []
    append = AtomicJournalBackend._write

    def counted(self: AtomicJournalBackend, logs: list[dict[str, object]]) -> None:
        appends.append(logs)
        append(self, logs)

    monkeypatch.setattr(AtomicJournalBackend, "_write", counted)
    attributes = {"name": "000", "values": {"epochs": 2}, "fingerprint": "f"}
    set_attributes(study.storage, trial, attributes)
    assert [[line["user_attr"] for line in logs] for logs in appends] == [
        [{"name": "000"}, {"values": {"epochs": 2}}, {"fingerprint": "f"}]
    ]
    assert trial.user_attrs == {"kept": 1, **attributes}
    for seen in (study, study_again(record)):
        assert seen.optuna_study.get_trials()[0].user_attrs == {"kept": 1, **attributes}
    study.release()


def test_large_attributes_are_text_in_the_journal_and_objects_to_whoever_reads_them(tmp_path: Path) -> None:
    record = Record(tmp_path / "mlruns")
    record.locks.mkdir(parents=True)
    study = open_study(record, Sweep.model_validate({"name": "one"}))
    trial = study.optuna_study.ask()
    config = {"training": {"epochs": 2}, "name": 'a "quoted" ä'}
    outcome = {"score": 0.5, "at_best": {"val/loss": float("inf")}}
    set_attributes(study.storage, trial, {"config": config, "outcome": outcome})
    stored = study_again(record).optuna_study.get_trials()[0].user_attrs
    assert {name: type(value) for name, value in stored.items()} == {"config": str, "outcome": str}
    summary = study_again(record).trial(0)
    assert (summary.config, summary.outcome) == (config, outcome)
    assert (dict(summary.config), len(summary.config), repr(summary.config)) == (config, 2, repr(config))
    assert json_attribute({}, "config") == {}
    study.release()


def test_a_record_of_an_older_version_holds_them_as_objects(tmp_path: Path) -> None:
    record = Record(tmp_path / "mlruns")
    record.locks.mkdir(parents=True)
    study = open_study(record, Sweep.model_validate({"name": "one"}))
    trial = study.optuna_study.ask()
    trial.set_user_attr("outcome", {"score": 0.5, "epochs": 2})
    assert (study.trial(0).outcome, study.trial(0).epochs) == ({"score": 0.5, "epochs": 2}, 2)
    study.optuna_study.tell(trial, state=TrialState.PRUNED)
    assert study.trial(0).score == 0.5
    study.release()


def study_again(record: Record):  # type: ignore[no-untyped-def]
    record.database.touch()  # `load_study` wants a complete record; this one's MLflow is not asked
    (record.root / "VERSION").write_text("1")
    return load_study(record, "one")


def test_an_error_on_the_way_leaves_none_and_the_journal_goes_on(tmp_path: Path) -> None:
    record = Record(tmp_path / "mlruns")
    record.locks.mkdir(parents=True)
    study = open_study(record, Sweep.model_validate({"name": "one"}))
    trial = study.optuna_study.ask()
    with pytest.raises(TypeError):
        set_attributes(study.storage, trial, {"name": "000", "values": object()})
    assert study_again(record).optuna_study.get_trials()[0].user_attrs == {}
    set_attributes(study.storage, trial, {"fingerprint": "f"})
    assert study_again(record).optuna_study.get_trials()[0].user_attrs == {"fingerprint": "f"}
    study.release()
