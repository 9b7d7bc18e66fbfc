"""The whole way, through the command line, real processes, a real MLflow server and real files."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from harness.record import Record
from harness.server import TrackingServer
from harness.study import load_study
from harness.tracking import Tracking, connect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HARNESS = [sys.executable, "-P", "-m", "harness.cli"]

SWEEP = """\
name: tiny
data: {corpus: demo, subset: clean, task: pseudo, variant: seen, train_windows: 240, val_windows: 96, test_windows: 96}
parameters:
  feature: [mfcc, log_mel]
  learning_rate: {choice: [0.003, 0.01]}
  width: 0.125
  epochs: 5
sampler: random
pruner: none
budget: {trials: 3}
"""


class Workplace:
    """A folder with a sweep file, a record, and the command line run in it."""

    def __init__(self, folder: Path, cache: Path, sweep: str = SWEEP) -> None:
        self.folder = folder
        self.environment = {**os.environ, "HARNESS_CACHE": str(cache), "NO_COLOR": "1"}
        self.environment.pop("MLFLOW_TRACKING_URI", None)
        self.write(sweep)
        # A user's own module may be called as one of ours.
        (folder / "models.py").write_text("raise RuntimeError('the wrong models')")

    def write(self, sweep: str) -> None:
        (self.folder / "tiny.yaml").write_text(sweep, encoding="utf-8")

    def start(self, *words: str, **extra: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*HARNESS, *words], cwd=self.folder, env={**self.environment, **extra}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def run(self, *words: str, code: int = 0, **extra: str) -> str:
        done = subprocess.run(
            [*HARNESS, *words], cwd=self.folder, env={**self.environment, **extra}, text=True,
            capture_output=True, timeout=400, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{words} -> {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if code in (0, 130) else done.stdout + done.stderr

    def json(self, *words: str, code: int = 0) -> dict:
        return json.loads(self.run(*words, "--json", code=code))

    @property
    def record(self) -> Record:
        return Record(self.folder / "mlruns")


@pytest.fixture
def place(tmp_path: Path, demo_cache: Path, new_record: Callable[[Path], Record]) -> Workplace:
    """A workplace with an empty record; that a sweep makes its own is seen in `swept`."""
    new_record(tmp_path / "mlruns")
    return Workplace(tmp_path, demo_cache, LONG)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, demo_cache: Path) -> Workplace:
    """One finished sweep, promoted; tests that read share it."""
    place = Workplace(tmp_path_factory.mktemp("swept"), demo_cache)
    place.result = place.json("sweep", "tiny.yaml")
    place.promotion = place.json("promote", "tiny")
    return place


@pytest.fixture(scope="module")
def client(swept: Workplace):
    with TrackingServer(swept.record) as server:
        yield connect(server.uri)


def trial_runs(client):
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id], "tags.`harness.kind` = 'trial'")
    return sorted(runs, key=lambda run: int(run.data.tags["harness.trial"]))


def test_the_budget_is_total_and_every_trial_is_there(swept: Workplace) -> None:
    assert swept.result["spent"] == swept.result["new_trials"] == 3
    states = [trial["state"] for trial in swept.result["trials"]]
    assert states.count("complete") == 3
    assert set(states) <= {"complete", "duplicate"}
    best = max(t["score"] for t in swept.result["trials"] if t["state"] == "complete")
    assert swept.result["best"]["score"] == best
    assert swept.result["best"]["interval"]["clusters"] > 10


def test_mlflow_holds_one_run_a_trial_with_every_epoch_once(swept: Workplace, client) -> None:
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


def test_runs_name_their_data_code_and_parent(swept: Workplace, client) -> None:
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


def test_the_artifacts_compare_side_by_side(swept: Workplace, client) -> None:
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
    swept: Workplace, client, tmp_path: Path
) -> None:
    import onnxruntime

    from models.specification import Specification

    run = trial_runs(client)[0]
    path = client.download_artifacts(run.info.run_id, "model/model.onnx", str(tmp_path))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits = session.run(None, {"waveform": np.zeros((3, 48_000), np.float32)})[0]
    assert logits.shape == (3, 2)
    specification = Specification.from_onnx(Path(path))
    assert specification.fingerprint == run.data.tags["harness.fingerprint"]
    assert specification.manifest_digests["val"] == run.data.params["digest.val"]


def test_nothing_is_left_in_the_spool(swept: Workplace) -> None:
    assert list(swept.record.spooled("tiny")) == []


def test_status_agrees_with_the_sweep(swept: Workplace) -> None:
    document = swept.json("status", "tiny")
    assert document["best"] == swept.result["best"]
    assert [t["fingerprint"] for t in document["trials"]] == [
        t["fingerprint"] for t in swept.result["trials"]
    ]
    assert swept.json("status")["studies"][0]["complete"] == 3
    assert "tiny" in swept.run("status")


def test_an_unchanged_sweep_says_that_its_budget_is_spent(swept: Workplace) -> None:
    shown = swept.run("sweep", "tiny.yaml")
    assert "the budget of 3 trials is spent" in shown
    assert "--trials 6" in shown


def test_the_promoted_model_repeats_its_golden_outputs_without_torch(swept: Workplace) -> None:
    bundle = swept.folder / swept.promotion["bundle"]
    program = (
        "import numpy, onnxruntime, sys\n"
        "session = onnxruntime.InferenceSession('model.onnx', providers=['CPUExecutionProvider'])\n"
        "logits = session.run(['logits'], {'waveform': numpy.load('golden/waveform.npy')})[0]\n"
        "assert abs(logits - numpy.load('golden/logits.npy')).max() < 1e-4\n"
        "assert not {'torch', 'mlflow', 'harness', 'models'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-I", "-c", program], cwd=bundle, check=True)


def test_the_bundle_is_complete_and_honest(swept: Workplace) -> None:
    bundle = swept.folder / "promoted" / "tiny"
    for line in (bundle / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert (
            digest
            == subprocess.run(["sha256sum", bundle / name], capture_output=True, text=True).stdout.split()[0]
        )
    evidence = json.loads((bundle / "evidence.json").read_text())
    assert evidence["stamp"].startswith("unconfirmed")
    assert evidence["test"]["clusters"] == 96
    assert evidence["test_openings"] == 1
    assert evidence["trial"]["number"] == swept.result["best"]["number"]
    card = (bundle / "card.md").read_text()
    assert "K = 96" in card
    assert "unconfirmed" in card


def test_the_registry_names_the_champion(swept: Workplace, client) -> None:
    version = client.get_model_version_by_alias("pseudo-seen", "champion")
    assert version.tags["confirmed"] == "unconfirmed"
    assert version.version == swept.promotion["version"]
    run = client.get_run(version.run_id)
    assert run.data.metrics["test/balanced_accuracy"] == swept.promotion["test"]["value"]


def test_a_moved_record_opens_with_every_artifact(swept: Workplace, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "record"
    shutil.copytree(swept.folder / "mlruns", moved)
    with TrackingServer(Record(moved)) as server:
        client = connect(server.uri)
        run = trial_runs(client)[0]
        path = client.download_artifacts(run.info.run_id, "model/model.onnx", str(tmp_path))
        assert Path(path).stat().st_size > 10_000
        champion = client.get_model_version_by_alias("pseudo-seen", "champion")
        assert champion.version == swept.promotion["version"]
    with sqlite3.connect(moved / "mlflow.db") as database:
        paths = database.execute("select artifact_uri from runs").fetchall()
    assert paths
    assert all(uri.startswith("mlflow-artifacts:/") for (uri,) in paths)


def test_a_model_that_never_learned_is_refused_and_changes_nothing(
    swept: Workplace, tmp_path: Path, demo_cache: Path
) -> None:
    shutil.copytree(swept.folder / "mlruns", tmp_path / "mlruns")
    place = Workplace(
        tmp_path, demo_cache, SWEEP.replace("[0.003, 0.01]", "[1.0e-9]").replace("epochs: 5", "epochs: 3")
    )
    place.run("sweep", "tiny.yaml", "--name", "lazy", "--trials", "1")
    document = place.json("promote", "lazy", code=3)
    assert "cross-entropy" in document["error"]
    assert "<= 0.6731" in document["error"]
    assert not (tmp_path / "promoted" / "lazy").exists()
    with TrackingServer(place.record) as server:
        assert connect(server.uri).get_model_version_by_alias("pseudo-seen", "champion").version == "1"


@pytest.fixture(scope="module")
def averaged(
    swept: Workplace, client, tmp_path_factory: pytest.TempPathFactory, demo_cache: Path
) -> Iterator[Workplace]:
    """A copy of the sweep's record with an ensemble of two front ends, promoted, and a client of it."""
    folder = tmp_path_factory.mktemp("averaged")
    shutil.copytree(swept.folder / "mlruns", folder / "mlruns")
    place = Workplace(folder, demo_cache)
    trials = swept.result["trials"]
    place.pair = [
        next(t for t in trials if t["state"] == "complete" and t["parameters"]["feature"] == feature)
        for feature in ("mfcc", "log_mel")
    ]
    runs = {run.data.tags["harness.trial"]: run.info.run_id for run in trial_runs(client)}
    place.member_runs = {one["number"]: runs[str(one["number"])] for one in place.pair}
    with TrackingServer(place.record) as server:
        place.client = connect(server.uri)
        tracking = Tracking(place.client, "tiny", identity=load_study(place.record, "tiny").identity)
        place.killed = tracking.run("killed while it was stored", "ensemble", {"harness.kind": "ensemble"})
        first, second = place.pair
        place.result = place.json(
            "ensemble",
            place.member_runs[first["number"]],
            second["name"],
            "--study",
            "tiny",
            "--name",
            "pair",
        )
        place.promotion = place.json("promote", "tiny", "--run", "pair")
        yield place


def test_an_ensemble_is_a_run_of_its_own_like_a_trials(averaged: Workplace, tmp_path: Path) -> None:
    from models.specification import Specification

    found = averaged.result["ensemble"]
    numbers = sorted(one["number"] for one in averaged.pair)
    assert found["members"] == [one["number"] for one in averaged.result["trials"]] == numbers
    status = averaged.json("status", "tiny")
    assert status["ensembles"] == [found]
    assert status["spent"] == 3  # it is no trial of the search
    client = averaged.client
    assert client.get_run(averaged.killed).info.status == "KILLED"
    run = client.get_run(found["run_id"])
    tags, metrics = run.data.tags, run.data.metrics
    assert (run.info.status, tags["harness.kind"]) == ("FINISHED", "ensemble")
    assert client.get_run(tags["mlflow.parentRunId"]).data.tags["harness.kind"] == "launch"
    assert set(tags["harness.member_runs"].split(", ")) == set(averaged.member_runs.values())
    assert "chosen by their scores on these very validation windows" in tags["harness.optimism"]
    assert "chosen by their scores on these very validation windows" in tags["mlflow.note.content"]
    assert metrics["best/score"] == metrics["val/balanced_accuracy"] == found["score"]
    assert {"best/low", "best/high", "train/loss", "gap", "labels/predicted/share_1"} <= set(metrics)
    assert len(run.inputs.dataset_inputs) == 3
    paths = {
        file.path for folder in ("", "model", "labels", "figures", "images")
        for file in client.list_artifacts(found["run_id"], folder)
    }  # fmt: skip
    assert {"predictions.npz", "model/model.onnx", "labels/histograms.json", "figures/roc.png"} <= paths
    stored = np.load(client.download_artifacts(found["run_id"], "predictions.npz", str(tmp_path)))
    votes = []
    for number, run_id in averaged.member_runs.items():
        folder = tmp_path / str(number)
        folder.mkdir()
        logits = np.load(client.download_artifacts(run_id, "predictions.npz", str(folder)))["val_logits"]
        votes.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(np.exp(stored["val_logits"]), np.mean(votes, axis=0), atol=1e-4)
    model = client.download_artifacts(found["run_id"], "model/model.onnx", str(tmp_path))
    specification = Specification.from_onnx(Path(model))
    assert {one.run_id for one in specification.members} == set(averaged.member_runs.values())
    assert {one.front_end["kind"] for one in specification.members} == {"mfcc", "log_mel"}


def test_an_ensemble_is_promoted_like_any_other(averaged: Workplace) -> None:
    document = averaged.promotion
    assert document["trial"] == averaged.result["ensemble"]
    assert document["registered_name"] == "pseudo-seen"
    assert document["version"] == "2"
    assert document["test_openings"] == 2  # the sweep's own promotion was the first
    guards = {guard["name"]: guard for guard in document["guards"]}
    assert guards["ONNX against torch"]["ok"]
    assert "96 windows" in guards["ONNX against torch"]["measured"]  # all there are
    assert [g["name"] for g in document["guards"]].count("plateau at the class share") == 2  # one a member
    bundle = averaged.folder / document["bundle"]
    evidence = json.loads((bundle / "evidence.json").read_text())
    assert evidence["run_id"] == averaged.result["ensemble"]["run_id"]
    assert len(evidence["specification"]["members"]) == 2
    card = (bundle / "card.md").read_text()
    assert "ensemble pair" in card
    assert "chosen by their scores on these very validation windows" in card
    assert {path.name for path in bundle.iterdir()} >= {"model.onnx", "card.md", "evidence.json", "golden"}
    version = averaged.client.get_model_version_by_alias("pseudo-seen", "champion")
    assert version.version == "2"
    assert version.tags["harness.ensemble"] == "pair"


def test_labels_from_hash_never_reach_a_trial(tmp_path: Path, demo_cache: Path) -> None:
    place = Workplace(tmp_path, demo_cache, SWEEP.replace("variant: seen", "variant: seen, labels: hash"))
    plugins = {"HARNESS_PLUGINS": "historic_bugs", "PYTHONPATH": str(Path(__file__).parent.parent / "data")}
    shown = place.run("sweep", "tiny.yaml", code=3, **plugins)
    assert "70/30" in shown
    assert not (tmp_path / "mlruns").exists()


def outcomes(place: Workplace, study: str = "tiny") -> list[tuple]:
    trials = place.json("status", study)["trials"]
    return [(t["fingerprint"], t["state"], t["score"], t["epochs"], t["best_epoch"]) for t in trials]


def wait_for(condition, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def epochs_spooled(place: Workplace) -> int:
    return sum(len(file.read_text().splitlines()) for file in place.record.spool.glob("tiny/*/events.jsonl"))


def trial_is_stored(place: Workplace) -> bool:
    """Whether MLflow has a run of a trial, read beside its server."""
    with contextlib.closing(sqlite3.connect(f"file:{place.record.database}?mode=ro", uri=True)) as database:
        found = database.execute("select 1 from tags where key = 'harness.trial' limit 1").fetchone()
    return found is not None


def running_children(place: Workplace) -> list[list[str]]:
    """Servers and workers: all run in the workplace or its record."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(place.folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.cmdline())
    return found


LONG = SWEEP.replace("epochs: 5", "epochs: 14").replace("trials: 3", "trials: 2")


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, demo_cache: Path, new_record: Callable[[Path], Record]
) -> list[tuple]:
    folder = tmp_path_factory.mktemp("undisturbed")
    new_record(folder / "mlruns")
    place = Workplace(folder, demo_cache, LONG)
    place.run("sweep", "tiny.yaml", "--workers", "1", "--quiet")
    return outcomes(place)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_cleanly_and_the_same_command_goes_on(
    number: signal.Signals, place: Workplace, undisturbed: list[tuple]
) -> None:
    process = place.start("sweep", "tiny.yaml", "--workers", "1")
    # On a busy machine MLflow may come up late: at epoch 9 of 14 it is waited for no longer.
    wait_for(lambda: epochs_spooled(place) >= (3 if trial_is_stored(place) else 9))
    stored = trial_is_stored(place)
    process.send_signal(number)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "To go on:" in stdout
    assert running_children(place) == []
    assert [t["state"] for t in place.json("status", "tiny")["trials"]] == ["interrupted"]
    if number == signal.SIGINT:
        if stored:  # whatever MLflow knew of it shows as waiting
            with TrackingServer(place.record) as server:
                assert [run.info.status for run in trial_runs(connect(server.uri))] == ["SCHEDULED"]
        place.run("sweep", "tiny.yaml", "--workers", "1", "--quiet")
        assert outcomes(place) == undisturbed


def test_a_killed_coordinator_loses_and_doubles_nothing(place: Workplace, undisturbed: list[tuple]) -> None:
    for epochs in (2, 4):
        process = place.start("sweep", "tiny.yaml", "--workers", "1")
        wait_for(lambda goal=epochs: epochs_spooled(place) >= goal)
        process.kill()
        process.communicate(timeout=60)
    place.run("sweep", "tiny.yaml", "--workers", "1", "--quiet")
    assert outcomes(place) == undisturbed
    with TrackingServer(place.record) as server:
        client = connect(server.uri)
        runs = trial_runs(client)
        assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
        assert all(len(run.inputs.dataset_inputs) == 3 for run in runs)
        launches = client.search_runs([runs[0].info.experiment_id], "tags.`harness.kind` = 'launch'")
        ends = [run.info.status for run in launches]
        # A launch that was killed before MLflow had come up has no run; none may stay running.
        assert ends.count("FINISHED") == 1
        assert set(ends) <= {"FINISHED", "KILLED"}
    wait_for(lambda: running_children(place) == [], 20)


def test_a_killed_worker_costs_a_retry_and_no_epoch(place: Workplace, undisturbed: list[tuple]) -> None:
    process = place.start("sweep", "tiny.yaml", "--workers", "1")
    wait_for(lambda: epochs_spooled(place) >= 3)
    worker = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "harness.executors.worker"], capture_output=True, text=True
    ).stdout.split()
    os.kill(int(worker[0]), signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    assert "going on from its checkpoint" in stdout
    assert outcomes(place) == undisturbed


def test_an_edited_sweep_starts_a_second_study_and_a_raised_budget_does_not(
    swept: Workplace, tmp_path: Path, demo_cache: Path
) -> None:
    shutil.copytree(swept.folder / "mlruns", tmp_path / "mlruns")
    place = Workplace(tmp_path, demo_cache, SWEEP)
    more = place.json("sweep", "tiny.yaml", "--trials", "4")
    assert (more["study"], more["resumed"], more["spent"], more["new_trials"]) == ("tiny", True, 4, 1)
    place.write(SWEEP.replace("epochs: 5", "epochs: 2").replace("trials: 3", "trials: 1"))
    shown = place.run("sweep", "tiny.yaml")
    assert "tiny exists with another definition: this one is tiny-2" in shown


def test_a_spent_space_ends_the_study(place: Workplace) -> None:
    place.write(SWEEP.replace("epochs: 5", "epochs: 1").replace("trials: 3", "trials: 20"))
    result = place.json("sweep", "tiny.yaml")
    complete = [t for t in result["trials"] if t["state"] == "complete"]
    assert result["exhausted"]
    assert len(complete) == len({t["fingerprint"] for t in complete}) == 4
    first = {t["number"]: t["score"] for t in complete}
    for trial in result["trials"]:
        if trial["state"] == "duplicate":
            assert "the same configuration as trial" in trial["reason"]
            assert trial["score"] in first.values()


def test_two_sweeps_of_one_study_cannot_run_at_once(place: Workplace) -> None:
    first = place.start("sweep", "tiny.yaml", "--workers", "1")
    wait_for(lambda: epochs_spooled(place) >= 1)
    shown = place.run("sweep", "tiny.yaml", code=2)
    assert f"process {first.pid}" in shown
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    assert first.returncode == 130
