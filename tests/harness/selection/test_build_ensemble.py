"""Which trials go together: found by number, name or run id, refused with what differs.

The whole way of an ensemble, through the command line, is in test_end_to_end.py, beside the sweep it needs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from optuna.trial import TrialState

from data.config import DataConfig
from data.preparation.prepare import prepare
from harness.cli.main import cli
from harness.config.sweep import Sweep
from harness.config.trial.trial_config import TrialConfig
from harness.promotion.bundle.card import card_of
from harness.promotion.evidence import _identity, subject_tags
from harness.selection.build_ensemble import LoadedMembers, _free_name, _header
from harness.selection.candidate import Candidate
from harness.selection.ensemble_members import (
    EnsembleError,
    find_members,
    refuse_different,
    require_alike,
    study_of_members,
)
from harness.study.choose_trial import resolve_subject
from harness.study.ensembles import EnsembleSummary, ensemble_named, ensembles_of, save_ensemble
from harness.study.storage.record import Record
from harness.study.study import Study, StudyError, open_study
from harness.tracking.run_header import external_tags, trial_header

DIGESTS = {"clean": {"train": "1" * 64, "val": "2" * 64, "test": "3" * 64}}
DIGESTS["other"] = {**DIGESTS["clean"], "val": "abcdef012345" + "0" * 52}
KEPT = {"model/weights.pt": "0" * 64, "model/model.onnx": "1" * 64}


def study_with(record: Record, name: str = "tiny", *trials: dict[str, Any]) -> Study:
    """A study with one trial a description: subset, state, what it kept."""
    study = open_study(
        record, Sweep.model_validate({"name": name, "parameters": {"feature": ["mfcc", "log_mel"]}})
    )
    study.release()
    for number, one in enumerate(trials):
        config = TrialConfig.model_validate(
            {"data": {"corpus": "demo", "subset": one.get("subset", "clean")}}
        )
        trial = study.optuna_study.ask()
        trial.set_user_attr("name", f"{number:03d} mfcc of {name}")
        trial.set_user_attr("config", config.model_dump(mode="json"))
        trial.set_user_attr("fingerprint", f"{number:064d}")
        trial.set_user_attr("outcome", {"sha256": one.get("sha256", KEPT), "epochs": 5, "score": 0.8})
        pruned = one.get("state") == "pruned"
        study.optuna_study.tell(
            trial, None if pruned else 0.8, TrialState.PRUNED if pruned else TrialState.COMPLETE
        )
        study.check_manifests({config.data.digest(): DIGESTS[config.data.subset]})
    return study


def nobody() -> Any:
    raise AssertionError("MLflow was asked")


def numbers(study: Study, *words: str) -> list[int]:
    return [member.number for member in find_members(study, words, nobody)]


def test_members_are_found_by_number_and_name_in_any_order(record: Record) -> None:
    study = study_with(record, "tiny", {}, {}, {})
    assert numbers(study, "2", "0") == numbers(study, "0", "002 mfcc of tiny") == [0, 2]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["0", "7"], "no trial 7; it has 0 to 2"),
        (["0", "0"], "trial 0 is named twice"),
        (["0", "000 mfcc of tiny"], "trial 0 is named twice"),
        (["0"], "two members or more"),
        (["0", "1"], "trial 1 is pruned"),
        (["0", "2"], "trial 2 of tiny kept no model"),
        (["0", "001 mfc of tiny"], "did you mean '001 mfcc of tiny'"),
        (["0", "nonsense"], "harness status tiny"),
    ],
)
def test_what_cannot_be_a_member_is_named(record: Record, words: list[str], says: str) -> None:
    study = study_with(record, "tiny", {}, {"state": "pruned"}, {"sha256": {}})
    with pytest.raises(EnsembleError, match=says):
        find_members(study, words, nobody)


def test_members_judged_on_other_windows_are_refused_with_both_digests(record: Record) -> None:
    study = study_with(record, "tiny", {}, {"subset": "other"}, {})
    trials = study.trials()
    require_alike(study, [trials[0], trials[2]])
    with pytest.raises(
        EnsembleError, match=r"validation windows.*trial 0 has digest 2{12}, trial 1 has digest abcdef012345"
    ):
        require_alike(study, trials)


def test_two_values_that_differ_are_both_shown() -> None:
    refuse_different("signature", [("trial 0", "a"), ("trial 1", "a")])
    with pytest.raises(EnsembleError, match="signature: trial 0 has a, trial 2 has b"):
        refuse_different("signature", [("trial 0", "a"), ("trial 1", "a"), ("trial 2", "b")])


def test_the_study_is_the_named_the_only_or_the_one_of_the_names(record: Record) -> None:
    study_with(record, "tiny", {}, {})
    assert study_of_members(record, ["0", "1"], None).name == "tiny"
    study_with(record, "other", {}, {})
    assert study_of_members(record, ["0", "1"], "other").name == "other"
    assert study_of_members(record, ["000 mfcc of other", "1"], None).name == "other"
    with pytest.raises(EnsembleError, match=r"0 1: trials of which study\? Say --study, one of tiny, other"):
        study_of_members(record, ["0", "1"], None)
    with pytest.raises(StudyError, match="no study is called"):
        study_of_members(record, ["0", "1"], "tyni")


def summary(study: Study, name: str, run_id: str, score: float = 0.9) -> EnsembleSummary:
    outcome = {"score": score, "interval": {"low": 0.8, "high": 0.95, "clusters": 20}}
    return EnsembleSummary(name, run_id, tuple(study.trials()[:2]), ("a", "b"), "f" * 64, outcome)


def test_an_ensemble_is_remembered_beside_the_trials_and_costs_no_budget(record: Record) -> None:
    study = study_with(record, "tiny", {}, {})
    assert ensembles_of(study) == []
    save_ensemble(study, summary(study, "0+1", "r" * 32))
    save_ensemble(study, summary(study, "best", "s" * 32))
    save_ensemble(study, summary(study, "0+1", "r" * 32, 0.91))  # again, into its own place
    assert {one.name: one.score for one in ensembles_of(study)} == {"best": 0.9, "0+1": 0.91}
    assert study.spent() == len(study.trials()) == 2
    for word, name in (("best", "best"), ("r" * 32, "0+1")):
        found = ensemble_named(study, word)
        assert found is not None
        assert found.name == name
    assert ensemble_named(study, "nothing") is None
    (found, _) = ensembles_of(study)
    assert (found.label, found.epochs) == ("ensemble best", 5)
    assert found.as_json()["members"] == [0, 1]
    assert set(study.trials()[0].as_json()) <= set(found.as_json())  # it is read as a trial is


def test_what_is_promoted_goes_by_number_or_name_and_what_is_not_there_is_told_with_what_is(
    record: Record,
) -> None:
    study = study_with(record, "tiny", {}, {})
    save_ensemble(study, summary(study, "0+1", "r" * 32))
    for word, label in (
        (None, "trial 0"),
        ("1", "trial 1"),
        ("0+1", "ensemble 0+1"),
        ("r" * 32, "ensemble 0+1"),
    ):
        found = resolve_subject(study, word)
        assert found is not None
        assert found.label == label
    assert resolve_subject(study, "0" * 32) is None  # the run of a trial, perhaps: MLflow knows
    for word in ("0+9", "001 mfcc of tiny", "R" * 32):
        done = CliRunner().invoke(cli, ["promote", "tiny", "--run", word, "--record", str(record.root)])
        assert done.exit_code == 2
        says = f"study tiny has no trial or ensemble {word!r}; it has trials 0 to 1 and the ensembles 0+1"
        assert says in done.output


SPEAKER = {"kind": "xvector", "path": "e.onnx", "sha256": "abcdef012345" + "0" * 52}


def test_weights_of_others_are_told_of_a_trial_and_of_an_ensemble_of_it(
    record: Record, demo_cache: Path, tmp_path: Path
) -> None:
    ours, theirs = TrialConfig(), TrialConfig.model_validate({"feature": SPEAKER})
    tag = {"harness.external_data": "xvector abcdef012345"}
    assert external_tags([ours]) == external_tags([]) == {}
    assert external_tags([theirs]) == external_tags([ours, theirs, theirs]) == tag
    study = study_with(record, "tiny", {}, {})
    first, second = study.trials()
    second = replace(second, config=theirs.model_dump(mode="json"))
    outcome = {
        "score": 0.8, "epochs": 5, "lag1": 0.0, "at_best": {"val/balanced_accuracy": 0.8},
        "interval": {"n_eff": 50.0},
    }  # fmt: skip
    config = DataConfig(train_windows=40, val_windows=40, test_windows=40)
    prepared = (prepare(config, data_root=None, cache=demo_cache),)
    averaged = LoadedMembers(study, "0+1", (first, second), ("a", "b"), prepared, ())
    assert _header(averaged, "f" * 64, {})["tags"].items() >= tag.items()
    assert trial_header(1, "001", theirs, prepared[0], 0, {})["tags"].items() >= tag.items()
    ensemble = EnsembleSummary("0+1", "r" * 32, (first, second), ("a", "b"), "f" * 64, outcome)
    for subject, held in ((ensemble, True), (replace(second, outcome=outcome), True), (first, False)):
        subject = subject if held else replace(first, outcome=outcome)
        assert (tag.items() <= subject_tags(subject).items()) is held
        evidence = _identity(Candidate(study, subject, "r" * 32, tmp_path, prepared, ()), None, None)
        limits = card_of(evidence).partition("## Limits")[2]
        assert ("- holds external weights: xvector abcdef012345\n" in limits) is held
        assert evidence["external_weights"] == ["xvector abcdef012345"] * held


def test_a_name_belongs_to_its_members_and_is_no_number(record: Record) -> None:
    study = study_with(record, "tiny", {}, {}, {})
    save_ensemble(study, summary(study, "pair", "r" * 32))
    trials = study.trials()
    assert _free_name(study, None, trials) == "0+1+2"
    assert _free_name(study, "pair", trials[:2]) == "pair"  # the same again
    with pytest.raises(
        EnsembleError, match=r"has an ensemble 'pair' of trials \[0, 1\]: give another --name"
    ):
        _free_name(study, "pair", trials[1:])
    for wrong in ("7", "a b", "it's", "r" * 32):
        with pytest.raises(EnsembleError, match="is no name for an ensemble"):
            _free_name(study, wrong, trials)
