"""The whole way, through the command line, real processes, a real MLflow server and real files."""

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from harness.study.storage.record import Record
from harness.tracking.experiment import connect
from harness.tracking.server.server import TrackingServer
from tests.harness.places.workplace import SWEEP, Workspace, trial_runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def client(swept: Workspace):
    with TrackingServer(swept.record) as server:
        yield connect(server.uri)


def test_the_budget_is_total_and_every_trial_is_there(swept: Workspace) -> None:
    assert swept.result["spent"] == swept.result["new_trials"] == 3
    states = [trial["state"] for trial in swept.result["trials"]]
    assert states.count("complete") == 3
    assert set(states) <= {"complete", "duplicate"}
    best = max(t["score"] for t in swept.result["trials"] if t["state"] == "complete")
    assert swept.result["best"]["score"] == best
    assert swept.result["best"]["interval"]["clusters"] > 10


def test_mlflow_holds_one_run_a_trial_with_every_epoch_once(swept: Workspace, client) -> None:
    runs = trial_runs(client)
    assert len(runs) == 3
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.info.end_time >= run.info.start_time
        points = client.get_metric_history(run.info.run_id, "val/balanced_accuracy")
        assert [point.step for point in points] == [0, 1, 2, 3, 4]
        assert run.data.params["feature"] in ("mfcc", "log_mel")
        assert run.data.params["training.epochs"] == "5"
        metrics = run.data.metrics
        assert metrics["labels/train/share_1"] == metrics["labels/val/share_1"] == 0.5
        assert {"best/score", "best/epoch", "best/low", "best/high", "labels/predicted/share_1"} <= set(
            metrics
        )
        for name in (
            "loss",
            "accuracy",
            "balanced_accuracy",
            "auc",
            "recall_0",
            "recall_1",
            "predicted_positive",
        ):
            assert {f"train/{name}", f"val/{name}"} <= set(metrics)
        assert {"gap", "learning_rate", "windows_per_s"} <= set(metrics)


def test_runs_name_their_data_code_and_parent(swept: Workspace, client) -> None:
    for run in trial_runs(client):
        contexts = {one.tags[0].value: one.dataset for one in run.inputs.dataset_inputs}
        assert set(contexts) == {"train", "val", "test"}
        assert run.data.params["digest.val"].startswith(contexts["val"].digest)
        tags = run.data.tags
        assert tags["version.torch"].startswith("2.11")
        assert tags["harness.device"] == "cpu"
        parent = client.get_run(tags["mlflow.parentRunId"])
        assert parent.data.tags["harness.kind"] == "launch"
        assert parent.info.status == "FINISHED"


def test_the_artifacts_compare_side_by_side(swept: Workspace, client) -> None:
    for run in trial_runs(client):
        names = {
            file.path for folder in ("model", "labels", "figures", "images")
            for file in client.list_artifacts(run.info.run_id, folder)
        }  # fmt: skip
        assert {
            "model/model.onnx",
            "labels/histograms.json",
            "figures/roc.png",
            "figures/confusion.png",
        } <= names
        assert any(name.startswith("images/labels") for name in names)


def test_a_trials_onnx_takes_raw_waveform_and_carries_its_contract(
    swept: Workspace, client, tmp_path: Path
) -> None:
    import onnxruntime

    from models.export.specification import Specification

    run = trial_runs(client)[0]
    path = client.download_artifacts(run.info.run_id, "model/model.onnx", str(tmp_path))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits = session.run(None, {"waveform": np.zeros((3, 48_000), np.float32)})[0]
    assert logits.shape == (3, 2)
    specification = Specification.from_onnx(Path(path))
    assert specification.fingerprint == run.data.tags["harness.fingerprint"]
    assert specification.manifest_digests["val"] == run.data.params["digest.val"]


def test_nothing_is_left_in_the_spool(swept: Workspace) -> None:
    assert list(swept.record.spooled("tiny")) == []


def test_status_agrees_with_the_sweep(swept: Workspace) -> None:
    document = swept.json("status", "tiny")
    assert document["best"] == swept.result["best"]
    assert [t["fingerprint"] for t in document["trials"]] == [
        t["fingerprint"] for t in swept.result["trials"]
    ]
    assert swept.json("status")["studies"][0]["complete"] == 3
    assert "tiny" in swept.run("status")


def test_an_unchanged_sweep_says_that_its_budget_is_spent(swept: Workspace) -> None:
    shown = swept.run("sweep", "tiny.yaml")
    assert "the budget of 3 trials is spent" in shown
    assert "--trials 6" in shown


def test_a_moved_record_opens_with_every_artifact(swept: Workspace, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "record"
    shutil.copytree(swept.folder / "mlruns", moved)
    with TrackingServer(Record(moved)) as server:
        client = connect(server.uri)
        run = trial_runs(client)[0]
        path = client.download_artifacts(run.info.run_id, "model/model.onnx", str(tmp_path))
        assert Path(path).stat().st_size > 10_000
    with sqlite3.connect(moved / "mlflow.db") as database:
        paths = database.execute("select artifact_uri from runs").fetchall()
    assert paths
    assert all(uri.startswith("mlflow-artifacts:/") for (uri,) in paths)


def test_an_edited_sweep_starts_a_second_study_and_a_raised_budget_does_not(
    swept: Workspace, tmp_path: Path, demo_cache: Path
) -> None:
    shutil.copytree(swept.folder / "mlruns", tmp_path / "mlruns")
    place = Workspace(tmp_path, demo_cache, SWEEP)
    more = place.json("sweep", "tiny.yaml", "--trials", "4")
    assert (more["study"], more["resumed"], more["spent"], more["new_trials"]) == ("tiny", True, 4, 1)
    place.write(SWEEP.replace("epochs: 5", "epochs: 2").replace("trials: 3", "trials: 1"))
    shown = place.run("sweep", "tiny.yaml")
    assert "tiny exists with another definition: this one is tiny-2" in shown


def test_labels_from_hash_never_reach_a_trial(tmp_path: Path, demo_cache: Path) -> None:
    place = Workspace(tmp_path, demo_cache, SWEEP.replace("variant: seen", "variant: seen, labels: hash"))
    plugins = {"HARNESS_PLUGINS": "historic_bugs", "PYTHONPATH": str(Path(__file__).parents[2] / "data")}
    shown = place.run("sweep", "tiny.yaml", code=3, **plugins)
    assert "70/30" in shown
    assert not (tmp_path / "mlruns").exists()
