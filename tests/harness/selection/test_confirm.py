"""`harness confirm` on a real study: priced, killed, gone on with, and in MLflow once each."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mlflow.entities import ViewType

from data.preparation.prepare import prepare
from harness.cli.main import cli
from harness.core.files import sha256_of, write_json
from harness.core.seeds import derived_seed
from harness.study.confirmation.conclusion import Confirmation, confirmation_of
from harness.study.storage.record import Record
from harness.study.study import Study, load_study
from harness.training.job import Job
from harness.training.trial import open_device, run_trial
from tests.harness.places.untrained_study import finished_study, outcome
from tests.harness.places.workplace import run_in_process

SWEEP = {
    # enough training that the seeds of the smaller one answer both classes: what answers one may not ship
    "parameters": {"feature": "mfcc", "width": [0.125, 0.15625], "epochs": 9, "learning_rate": 0.005},
    "baseline": {"width": 0.125},
}
VALUES = {"feature": "mfcc", "epochs": 9, "learning_rate": 0.005}
ASKED = ("--finalists", "2", "--seeds", "2", "--workers", "2")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")  # SQLAlchemy, of MLflow
def test_a_confirmation_that_is_killed_goes_on_and_every_run_is_there_once(
    tmp_path: Path, demo_cache: Path, new_record: Callable[[Path], Record]
) -> None:
    record = new_record(tmp_path / "mlruns")
    trials = [({**VALUES, "width": width}, outcome(score)) for width, score in ((0.125, 0.6), (0.15625, 0.7))]
    study = finished_study(record, trials, **SWEEP)
    prepared = prepare(study.sweep.data, data_root=None, cache=demo_cache)
    digests = {split: part.manifest.digest for split, part in prepared.splits.items()}
    study.optuna_study.set_user_attr("manifests", {study.sweep.data.digest(): digests})

    def run(*words: str) -> str:
        place = ("--record", str(record.root), "--cache", str(demo_cache))
        done = CliRunner().invoke(
            cli, [words[0], "told", *words[1:], *place[: 2 if words[0] == "status" else 4]]
        )
        assert done.exit_code == 0, done.output
        return done.stdout

    dry = json.loads(run("confirm", "--dry-run", *ASKED, "--json"))
    assert (dry["trainings"], dry["done"], len(dry["finalists"])) == (4, 0, 2)
    killed = subprocess.run(
        [sys.executable, "-P", "-m", "harness.cli.main", "confirm", "told", *ASKED, "--record", str(record.root)],
        text=True, capture_output=True, timeout=600, check=False, env={
            **os.environ, "HARNESS_CACHE": str(demo_cache), "HARNESS_FAILPOINT": "confirmation result kept:1:kill",
        },
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    priced = "confirmation: 2 finalists, the baseline among them x 2 fresh seeds = 4 trainings on 2 workers, about "
    assert priced in killed.stdout + killed.stderr
    assert "confirmation: 1 of 4 trainings done" in run("status")
    found = json.loads(run("confirm", *ASKED, "--json"))
    again = run("confirm", *ASKED)
    assert "= 4 trainings (4 done): nothing to train" in again
    assert found["conclusion"] in again
    assert list(record.spooled("told")) == []
    assert json.loads(run("status", "--json"))["confirmation"] == found
    study = load_study(record, "told")
    confirmed = confirmation_of(study)
    assert confirmed is not None
    assert confirmed.as_json() == found
    assert len(study.trials()) == 2
    check_runs(record, confirmed)
    check_numbers(study, confirmed, prepared.folder, demo_cache, tmp_path / "alone")
    check_promotion(tmp_path, demo_cache, found)


def check_promotion(folder: Path, cache: Path, found: dict[str, Any]) -> None:
    """What is promoted is the winner's median seed, and everything that is written says what it rests on."""
    (folder / "few.yaml").write_text("confirmation: {required: true, finalists: 2, seeds: 2}\n", "utf-8")
    told = json.loads(
        run_in_process(folder, cache, "promote", "told", "--confirm", "--policy", "few.yaml", "--json")
    )
    assert told["trial"] == found["shipped"]
    assert told["confirmation"] == found
    winner = found["winner"].removeprefix("the ")
    assert told["stamp"].startswith(f"confirmed: {winner}")
    assert "over 2 fresh seeds; the seed with the lower median validation score ships" in told["stamp"]
    guards = {guard["name"]: guard for guard in told["guards"]}
    assert guards["confirmed on fresh seeds"]["ok"]
    assert ("against the baseline" in guards) == (found["shipped"]["fingerprint"] != baseline_of(found))
    assert told["alias"] == "champion"  # there was none
    card = (folder / told["bundle"] / "card.md").read_text("utf-8")
    assert found["conclusion"] in card
    refused = json.loads(
        run_in_process(folder, cache, "promote", "told", "--policy", "production", "--json", code=3)
    )
    assert "2 seeds" in refused["error"]


def baseline_of(found: dict[str, Any]) -> str:
    (fingerprint,) = (one["fingerprint"] for one in found["finalists"] if one["baseline"])
    return str(fingerprint)


def check_runs(record: Record, confirmed: Confirmation) -> None:
    """One finished run each, with every epoch once, apart from the trials."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(f"sqlite:///{record.database}", "mlflow-artifacts:/")
    (experiment,) = store.search_experiments(filter_string="tags.`harness.study` = 'told'")
    runs = store.search_runs([experiment.experiment_id], "", ViewType.ALL)
    replicates = {one.key: one for finalist in confirmed.finalists for one in finalist.replicates}
    assert sorted(run.data.tags["harness.key"] for run in runs) == sorted(replicates)
    for run in runs:
        tags, replicate = run.data.tags, replicates[run.data.tags["harness.key"]]
        assert (run.info.status, tags["harness.state"]) == ("FINISHED", "complete")
        assert (tags["harness.kind"], tags["harness.trial"]) == ("confirmation", str(replicate.number))
        assert run.data.metrics["best/score"] == replicate.score
        assert run.data.params["seed"] == str(derived_seed("training", 0, replicate.replicate))
        points = store.get_metric_history(run.info.run_id, "val/balanced_accuracy")
        assert [point.step for point in points] == list(range(9))
        folder = record.artifacts / run.info.artifact_uri.removeprefix("mlflow-artifacts:/").lstrip("/")
        assert sha256_of(folder / "model/model.onnx") == replicate.outcome["sha256"]["model/model.onnx"]
    store.engine.dispose()


def check_numbers(study: Study, confirmed: Confirmation, prepared: Path, cache: Path, folder: Path) -> None:
    """Each score is bit for bit that of a training of its own which nobody disturbs."""
    shipped = confirmed.shipped
    write_json(folder / "trial.json", {"run_name": "alone"})
    job = Job(
        0, dict(shipped.config), str(prepared), str(folder), str(cache),
        derived_seed("training", study.sweep.seed, shipped.replicate), {"run_id": "x", "versions": {}},
    )  # fmt: skip
    alone = run_trial(job, open_device("cpu"), lambda epoch, metrics: False, lambda: False)
    same = ("score", "best_epoch", "val_accuracy", "curves", "interval")
    assert {name: alone[name] for name in same} == {name: shipped.outcome[name] for name in same}
    names = ("model/weights.pt", "predictions.npz")
    assert [alone["sha256"][name] for name in names] == [shipped.outcome["sha256"][name] for name in names]
