"""What a confirmation will cost before it begins, and what is refused or gone on with."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from data.preparation.prepare import prepare
from harness.cli.main import cli
from harness.config.cost import estimate_trainings, training_s
from harness.config.trial.trial_config import TrialConfig
from harness.selection.choose_finalists import choose_finalists
from harness.study.confirmation.conclusion import start_confirmation
from harness.study.confirmation.definition import ConfirmedConfig, ReplicateResult, definition_of, save_result
from harness.study.storage.record import Record
from tests.harness.places.untrained_study import MFCC, WAVE, finished_study, outcome


def test_a_confirmation_without_room_is_refused_before_anything_is_set_out(
    record: Record, demo_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = finished_study(record, [(MFCC, outcome(0.6))], baseline=MFCC)
    prepared = prepare(study.sweep.data, data_root=None, cache=demo_cache)
    digests = {split: part.manifest.digest for split, part in prepared.splits.items()}
    study.optuna_study.set_user_attr("manifests", {study.sweep.data.digest(): digests})
    monkeypatch.setattr("harness.core.disk_space.MIN_FREE_BYTES", 10**18)
    place = ("--record", str(record.root), "--cache", str(demo_cache), "--workers", "1")
    done = CliRunner().invoke(cli, ["confirm", "told", *place])
    assert done.exit_code == 1
    assert "and this needs about" in done.stderr
    assert definition_of(study) is None


def test_without_options_an_unfinished_confirmation_is_gone_on_with_as_it_is(
    record: Record, demo_cache: Path
) -> None:
    study = finished_study(record, [(MFCC, outcome(0.6)), (WAVE, outcome(0.7))], baseline=MFCC)
    prepared = prepare(study.sweep.data, data_root=None, cache=demo_cache)
    digests = {split: part.manifest.digest for split, part in prepared.splits.items()}
    study.optuna_study.set_user_attr("manifests", {study.sweep.data.digest(): digests})

    def priced(*words: str) -> tuple[int, int, int]:
        place = ("--record", str(record.root), "--cache", str(demo_cache), "--workers", "1")
        done = CliRunner().invoke(cli, ["confirm", "told", "--dry-run", "--json", *words, *place])
        assert done.exit_code == 0, done.output
        document = json.loads(done.stdout)
        return len(document["finalists"]), document["seeds"], document["done"]

    assert priced() == (2, 5, 0)
    planned = start_confirmation(study, choose_finalists(study, record, "1", 1, None)[0][:1], 3)
    save_result(study, planned.arms[0].fingerprint, 1, ReplicateResult(outcome(0.7)))
    assert priced() == (1, 3, 1)
    assert priced("--seeds", "4") == (2, 4, 1)
    assert priced("--run", "0") == (1, 5, 0)
    for seed in (2, 3):
        save_result(study, planned.arms[0].fingerprint, seed, ReplicateResult(outcome(0.7)))
    assert priced() == (2, 5, 3)


def test_the_price_goes_by_the_measured_pace_and_adds_up() -> None:
    config = TrialConfig()
    windows = {config.data.digest(): (1000, 200)}
    slow, fast = training_s(config, "cpu", windows, 10.0), training_s(config, "cpu", windows, 1000.0)
    assert slow > 10 * fast
    one = estimate_trainings([(config, 10.0)], 2, "cpu", windows)
    four = estimate_trainings([(config, 10.0)] * 4, 2, "cpu", windows)
    assert (one.trials, four.trials) == (1, 4)
    assert four.seconds - one.seconds == pytest.approx(slow)
    assert four.disk_bytes == pytest.approx(4 * one.disk_bytes)
    assert estimate_trainings([], 2, "cpu", windows).seconds == 0
    assert ConfirmedConfig("n", config, {}).label == "baseline"
