"""Promotion through the command line: guards, the frozen test, the champion, the bundle, the registry."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.study.study import load_study
from harness.tracking.experiment import Tracking, connect
from harness.tracking.server.server import TrackingServer
from tests.harness.places.workplace import Workspace, copied, trial_runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def promoted(swept: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A copy of the sweep in which one thing after the other was asked of `promote`, and a client of its record."""
    place = copied(swept, tmp_path_factory.mktemp("promoted"))
    (place.folder / "strict.yaml").write_text("name: strict\nintegrity: {max_train_loss: 1.0e-4}\n")
    place.untouched = changed_by_promotion(place)
    place.dry = place.json("promote", "tiny", "--dry-run")
    with TrackingServer(place.record) as server:  # one for all that follows
        place.uri, place.client = server.uri, connect(server.uri)
        place.before = changed_by_promotion(place)
        place.strict = place.inside("promote", "tiny", "--policy", "strict.yaml", code=3)
        place.unconfirmed = place.inside("promote", "tiny", "--policy", "production", code=3)
        place.after = changed_by_promotion(place)
        place.promotion = place.json("promote", "tiny.yaml", MLFLOW_TRACKING_URI=place.uri)
        place.again = place.inside("promote", "tiny")
        yield place


def changed_by_promotion(place: Workspace) -> tuple[list[Path], int, int]:
    """All that lies beside a record, bundles and leftovers, its openings of the test and its registered versions."""
    with sqlite3.connect(f"file:{place.record.database}?mode=ro", uri=True) as database:
        (versions,) = database.execute("select count(*) from model_versions").fetchone()
    ledger = place.record.root / "test_openings.jsonl"
    openings = len(ledger.read_text().splitlines()) if ledger.exists() else 0
    beside = {path for path in place.folder.rglob("*") if not path.is_relative_to(place.record.root)}
    return sorted(path.relative_to(place.folder) for path in beside), openings, versions


def test_a_dry_run_and_a_refusal_show_every_guard_and_change_nothing(promoted: Workspace) -> None:
    assert promoted.untouched == promoted.before == promoted.after
    assert promoted.after[1:] == (0, 0)
    assert promoted.dry["refused"] is False
    assert {"name", "level", "ok", "measured", "bound", "advice"} == set(promoted.dry["guards"][0])
    failed = [
        guard for guard in promoted.strict["guards"] if not guard["ok"] and guard["level"] == "integrity"
    ]
    assert [(guard["name"], guard["bound"]) for guard in failed] == [("train cross-entropy", "<= 0.0001")]
    assert promoted.strict["exit_code"] == 3
    assert "train cross-entropy" in promoted.strict["error"]
    assert "train longer" in promoted.strict["error"]
    assert "nothing was changed" in promoted.strict["error"]
    assert "harness confirm" in promoted.unconfirmed["error"]


def test_why_tells_what_was_decided(promoted: Workspace) -> None:
    number = str(promoted.promotion["trial"]["number"])
    decisions = promoted.inside("why", "tiny", number)["decisions"]
    assert [one["verdict"] for one in decisions] == ["refused", "refused", "promoted", "promoted"]
    assert decisions[0]["guards"][0]["name"] == "train cross-entropy"
    assert decisions[2]["version"] == promoted.promotion["version"] == "1"


def test_the_promoted_model_repeats_its_golden_outputs_without_torch(promoted: Workspace) -> None:
    bundle = promoted.folder / promoted.promotion["bundle"]
    program = (
        "import numpy, onnxruntime, sys\n"
        "session = onnxruntime.InferenceSession('model.onnx', providers=['CPUExecutionProvider'])\n"
        "logits = session.run(['logits'], {'waveform': numpy.load('golden/waveform.npy')})[0]\n"
        "assert abs(logits - numpy.load('golden/logits.npy')).max() < 1e-4\n"
        "assert not {'torch', 'mlflow', 'harness', 'models'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-I", "-c", program], cwd=bundle, check=True)
    assert promoted.inside("verify", str(bundle))["ok"]


def test_the_bundle_is_complete_and_honest(promoted: Workspace) -> None:
    bundle = promoted.folder / "promoted" / "tiny"
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=bundle, check=True)
    evidence = json.loads((bundle / "evidence.json").read_text())
    assert evidence["stamp"].startswith("unconfirmed")
    assert evidence["test"]["clusters"] == len(evidence["test_by_cluster"]) == 96
    assert evidence["test_openings"] == 2
    assert evidence["trial"]["number"] == promoted.result["best"]["number"]
    variants = {one["name"]: one for one in evidence["variants"]}
    assert variants["fp32"]["accuracy"]["value"] == evidence["test"]["value"]
    for name in (
        "fp16",
        "int8",
    ):  # small networks on 96 windows: one that loses too much says so and is not there
        one = variants[name]
        assert (bundle / one["file"]).exists() == one["included"] == (not one["reason"])
        assert one["max_logit_difference"] > 0
    card = (bundle / "card.md").read_text()
    assert "K = 96" in card
    assert "unconfirmed" in card.lower()


def test_the_registry_names_the_champion(promoted: Workspace) -> None:
    version = promoted.client.get_model_version_by_alias("pseudo-seen", "champion")
    assert version.tags["confirmed"] == "unconfirmed"
    assert version.version == promoted.again["version"] == "2"
    run = promoted.client.get_run(version.run_id)
    assert run.data.metrics["test/balanced_accuracy"] == promoted.promotion["test"]["value"]


def test_the_same_model_again_renews_its_evidence(promoted: Workspace) -> None:
    assert promoted.promotion["against"] is None
    assert promoted.again["against"]["verdict"] == "the same model"
    assert promoted.again["against"]["difference"]["value"] == 0
    assert promoted.again["alias"] == "champion"
    assert promoted.again["test"] == promoted.promotion["test"]
    aliases = promoted.client.get_registered_model("pseudo-seen").aliases
    assert aliases == {"champion": "2"}  # it would be no way back: `previous` is another model or nobody


@pytest.fixture(scope="module")
def averaged(promoted: Workspace) -> Workspace:
    """The same record with an ensemble of two front ends, promoted."""
    place = promoted
    trials = place.result["trials"]
    place.pair = [
        next(t for t in trials if t["state"] == "complete" and t["parameters"]["feature"] == feature)
        for feature in ("mfcc", "log_mel")
    ]
    runs = {run.data.tags["harness.trial"]: run.info.run_id for run in trial_runs(place.client)}
    place.member_runs = {one["number"]: runs[str(one["number"])] for one in place.pair}
    tracking = Tracking(place.client, "tiny", identity=load_study(place.record, "tiny").identity)
    place.killed = tracking.run("killed while it was stored", "ensemble", {"harness.kind": "ensemble"})
    first, second = place.pair
    words = (place.member_runs[first["number"]], second["name"], "--study", "tiny", "--name", "pair")
    place.ensemble = place.inside("ensemble", *words)["ensemble"]
    place.paired = place.inside("promote", "tiny", "--run", "pair")
    return place


def test_an_ensemble_is_a_run_of_its_own_like_a_trials(averaged: Workspace, tmp_path: Path) -> None:
    from models.export.specification import Specification

    found = averaged.ensemble
    numbers = sorted(one["number"] for one in averaged.pair)
    assert found["members"] == numbers
    status = averaged.inside("status", "tiny")
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


def test_an_ensemble_is_promoted_like_any_other(averaged: Workspace) -> None:
    document = averaged.paired
    assert document["trial"] == averaged.ensemble
    assert document["registered_name"] == "pseudo-seen"
    assert document["version"] == "3"
    assert document["test_openings"] == 3
    guards = {guard["name"]: guard for guard in document["guards"]}
    assert guards["ONNX against torch"]["ok"]
    assert "96 windows" in guards["ONNX against torch"]["measured"]  # all there are
    assert [g["name"] for g in document["guards"]].count("plateau at the class share") == 2  # one a member
    bundle = averaged.folder / document["bundle"]
    evidence = json.loads((bundle / "evidence.json").read_text())
    assert evidence["run_id"] == averaged.ensemble["run_id"]
    assert len(evidence["specification"]["members"]) == 2
    card = (bundle / "card.md").read_text()
    assert "ensemble pair" in card
    assert "chosen by their scores on these very validation windows" in card
    assert {path.name for path in bundle.iterdir()} >= {"model.onnx", "card.md", "evidence.json", "golden"}


def test_who_does_not_beat_the_champion_is_kept_as_challenger(averaged: Workspace) -> None:
    against = averaged.paired["against"]
    assert against["wins"] is (against["difference"]["low"] > 0)  # two networks are never cheaper than one
    aliases = averaged.client.get_registered_model("pseudo-seen").aliases
    assert averaged.paired["alias"] == ("champion" if against["wins"] else "challenger")
    assert aliases == (
        {"champion": "3", "previous": "2"} if against["wins"] else {"champion": "2", "challenger": "3"}
    )
    version = averaged.client.get_model_version("pseudo-seen", "3")
    assert version.tags["harness.ensemble"] == "pair"
