import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from PIL import Image

from harness.launch import open_tracking
from harness.provenance import provenance
from harness.record import Record
from harness.server import TrackingServer
from harness.spool import TrialSpool
from harness.study import open_study
from harness.sweep import Sweep
from harness.tracking import Tracking, connect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

EPOCHS = 3


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, new_record: Callable[[Path], Record]) -> Record:
    return new_record(tmp_path_factory.mktemp("tracking") / "mlruns")


OWNER = (
    "import json, sys, time; from pathlib import Path\n"
    "from harness.record import Record; from harness.server import TrackingServer\n"
    "server = TrackingServer(Record(Path(sys.argv[1]))); server.start(); server.uri\n"
    "print(json.dumps({'port': server.port, 'pid': server._process.pid}), flush=True); time.sleep(200)\n"
)


@pytest.fixture(scope="module")
def owner(record: Record) -> Iterator["subprocess.Popen[str]"]:
    """A second server on the same record, owned by a process that will be killed."""
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(record.root)], stdout=subprocess.PIPE, text=True, env=environment
    )
    yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture(scope="module")
def server(record: Record, owner: object) -> Iterator[TrackingServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with TrackingServer(record) as server:
            yield server


@pytest.fixture(scope="module")
def client(server: TrackingServer) -> MlflowClient:
    return connect(server.uri)


def spooled(folder: Path, number: int = 0, epochs: int = EPOCHS) -> TrialSpool:
    spool = TrialSpool(folder / f"{number:05d}")
    spool.write("trial", {
        "number": number,
        "run_name": f"{number:03d} mfcc",
        "time_ms": 1_700_000_000_000,
        "tags": {"harness.kind": "trial", "harness.trial": str(number), "harness.state": "running"},
        "params": {"feature": "mfcc", "seed": 7, "data.parts": "{}", **{f"p{k}": k for k in range(120)}},
        "datasets": [
            {"name": "demo-clean", "digest": split * 64, "source": "demo/pseudo/seen", "profile": '{"windows": 4}', "context": split}
            for split in ("train", "val")
        ],
    })  # fmt: skip
    for epoch in range(epochs):
        spool.append_epoch(epoch, {"val/loss": 1 / (epoch + 1), "score": epoch / 10})
    return spool


def ended(spool: TrialSpool, status: str, state: str) -> TrialSpool:
    spool.artifacts.mkdir(parents=True)
    (spool.artifacts / "model.onnx").write_bytes(b"\0\1\2" * 1000)
    (spool.artifacts / "labels").mkdir()
    (spool.artifacts / "labels" / "labels.json").write_text('{"share_1": 0.5}')
    spool.images.mkdir()
    for key in ("labels", "roc"):
        Image.new("RGB", (40, 30), "white").save(spool.images / f"{key}.png")
    spool.write("verdict", {
        "status": status, "time_ms": 1_700_000_100_000, "metrics": {"best/score": 0.2, "labels/train/share_1": 0.5},
        "tags": {"harness.state": state, "harness.reason": "r"},
    })  # fmt: skip
    return spool


def everything(client: MlflowClient, tracking: Tracking) -> list[dict[str, Any]]:
    """The whole of an experiment, without what may differ between two ways to the same record."""
    rows = []
    for run in client.search_runs([tracking.experiment_id]):

        def files(path: str | None = None, run_id: str = run.info.run_id) -> list[str]:
            found: list[str] = []
            for one in client.list_artifacts(run_id, path):
                found += files(one.path, run_id) if one.is_dir else [one.path]
            return sorted(found)

        rows.append({
            "name": run.info.run_name, "status": run.info.status, "params": run.data.params,
            "tags": {key: value for key, value in run.data.tags.items() if key.startswith(("harness", "mlflow.parent"))},
            "metrics": {key: [(m.step, m.value, m.timestamp) for m in client.get_metric_history(run.info.run_id, key)] for key in run.data.metrics},
            "inputs": sorted((i.dataset.name, i.dataset.digest, i.tags[0].value) for i in run.inputs.dataset_inputs),
            "artifacts": files(),
        })  # fmt: skip
    return rows


def test_a_trial_is_stored_once_however_often_it_is_stored(client: MlflowClient, tmp_path: Path) -> None:
    tracking = Tracking(client, "idempotent", "why")
    spool = spooled(tmp_path, epochs=2)
    assert tracking.store_trial(spool) is False
    assert client.search_runs([tracking.experiment_id])[0].info.status == "RUNNING"
    spool.append_epoch(2, {"val/loss": 1 / 3, "score": 0.2})
    assert tracking.store_trial(spool) is False
    assert Tracking(client, "idempotent").store_trial(spool) is False  # another coordinator
    ended(spool, "FINISHED", "complete")
    assert tracking.store_trial(spool) is True
    once = everything(client, tracking)
    assert tracking.store_trial(spool) is True
    assert Tracking(client, "idempotent").store_trial(spool) is True
    assert everything(client, tracking) == once
    (row,) = once
    assert row["status"] == "FINISHED"
    assert row["params"] == {key: str(value) for key, value in spool.read("trial")["params"].items()}  # type: ignore[index]
    assert [step for step, _, _ in row["metrics"]["val/loss"]] == [0, 1, 2]
    assert [value for _, value, _ in row["metrics"]["score"]] == [0.0, 0.1, 0.2]
    assert [stamp for _, _, stamp in row["metrics"]["score"]] == [
        event["time_ms"] for event in spool.epochs()
    ]
    assert row["metrics"]["best/score"] == [(0, 0.2, 1_700_000_100_000)]
    assert row["tags"]["harness.state"] == "complete"
    assert len(row["inputs"]) == 2
    assert {"model.onnx", "labels/labels.json"} <= set(row["artifacts"])


def test_epochs_that_come_with_the_verdict_while_others_are_stored_are_not_lost(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = Tracking(client, "overtaken")
    spool = spooled(tmp_path, epochs=2)
    log_batch = client.log_batch

    def slow(*words: Any, **more: Any) -> None:
        log_batch(*words, **more)
        if not (spool.folder / "verdict.json").exists():  # the training ended meanwhile
            spool.append_epoch(2, {"val/loss": 1 / 3, "score": 0.2})
            ended(spool, "FINISHED", "complete")

    monkeypatch.setattr(client, "log_batch", slow)
    complete = tracking.store_trial(spool)
    while not complete:  # a verdict that came too late for this time is taken the next
        complete = tracking.store_trial(spool)
    (row,) = everything(client, tracking)
    assert [step for step, _, _ in row["metrics"]["score"]] == [0, 1, 2]


def counting(client: MlflowClient, monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """Which of these calls are made, in their order."""
    made: list[str] = []

    def watch(name: str) -> None:
        call = getattr(client, name)
        monkeypatch.setattr(client, name, lambda *words, **more: (made.append(name), call(*words, **more))[1])

    for name in names:
        watch(name)
    return made


CALLS = (
    "create_run", "search_runs", "get_run", "log_batch", "log_inputs", "log_artifacts", "set_tag", "set_terminated",
)  # fmt: skip


def test_a_new_trial_of_the_records_own_server_takes_few_requests_and_leaves_the_same(
    client: MlflowClient, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teams = Tracking(client, "uploaded")
    assert teams.store_trial(ended(spooled(tmp_path / "teams"), "FINISHED", "complete"), new=True)
    own = Tracking(client, "placed")
    own.served = record.artifacts
    spool = ended(spooled(tmp_path / "own"), "FINISHED", "complete")
    with monkeypatch.context() as patch:
        made = counting(client, patch, *CALLS)
        assert own.store_trial(spool, new=True)
    assert made == ["create_run", "log_batch", "log_batch", "log_inputs", "set_terminated"]
    found = everything(client, own)
    assert own.store_trial(spool)  # once more
    again = Tracking(client, "placed")
    again.served = record.artifacts
    assert again.store_trial(spool)
    assert everything(client, own) == found
    [expected], [row] = everything(client, teams), found
    for one in (expected, row):
        del one["tags"]["harness.key"]
        one["metrics"] = {name: [point[:2] for point in points] for name, points in one["metrics"].items()}
    assert row == expected
    [run] = client.search_runs([own.experiment_id])
    assert run.data.tags["mlflow.loggedImages"] == "true"
    for name in ("model.onnx", "labels/labels.json"):
        got = client.download_artifacts(run.info.run_id, name, str(tmp_path))
        assert Path(got).read_bytes() == (spool.artifacts / name).read_bytes()


def test_a_new_trial_whose_answer_was_lost_is_looked_for(
    client: MlflowClient, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = Tracking(client, "answer-lost")
    tracking.served = record.artifacts
    create, calls = client.create_run, []

    def losing(*words: Any, **more: Any) -> Any:
        made = create(*words, **more)
        calls.append(made)
        if len(calls) == 1:
            raise MlflowException("the connection breaks off")
        return made

    monkeypatch.setattr(client, "create_run", losing)
    made = counting(client, monkeypatch, "search_runs", "get_run")
    assert tracking.store_trial(ended(spooled(tmp_path), "FINISHED", "complete"), new=True)
    assert made == ["search_runs", "get_run", "search_runs"]  # found; is it running; is there another one
    assert len(calls) == len(client.search_runs([tracking.experiment_id])) == 1


def test_databricks_is_not_looked_for_at_each_request(client: MlflowClient) -> None:
    from mlflow.tracking.request_header.registry import (
        _request_header_provider_registry,
        resolve_request_headers,
    )

    names = [type(one).__name__ for one in _request_header_provider_registry]
    assert "DefaultRequestHeaderProvider" in names
    assert "DatabricksRequestHeaderProvider" not in names
    assert "User-Agent" in resolve_request_headers()


def test_datasets_carry_their_digests_and_images_their_keys(client: MlflowClient, tmp_path: Path) -> None:
    tracking = Tracking(client, "contents")
    tracking.store_trial(ended(spooled(tmp_path), "FINISHED", "complete"))
    (run,) = client.search_runs([tracking.experiment_id])
    assert {
        (one.dataset.digest, one.tags[0].key, one.tags[0].value) for one in run.inputs.dataset_inputs
    } == {
        (("train" * 64)[:36], "mlflow.data.context", "train"),
        (("val" * 64)[:36], "mlflow.data.context", "val"),
    }
    images = [one.path for one in client.list_artifacts(run.info.run_id, "images")]
    for key in ("labels", "roc"):
        assert sum(path.startswith(f"images/{key}") and path.endswith(".png") for path in images) == 1
    local = client.download_artifacts(run.info.run_id, "model.onnx", str(tmp_path))
    assert Path(local).read_bytes() == b"\0\1\2" * 1000


@pytest.mark.parametrize(
    ("status", "state"), [("FINISHED", "complete"), ("KILLED", "pruned"), ("FAILED", "failed")]
)
def test_a_run_ends_with_its_true_status(
    client: MlflowClient, tmp_path: Path, status: str, state: str
) -> None:
    tracking = Tracking(client, f"status-{state}")
    assert tracking.store_trial(ended(spooled(tmp_path), status, state))
    (run,) = client.search_runs([tracking.experiment_id])
    assert (run.info.status, run.data.tags["harness.state"], run.data.tags["harness.reason"]) == (
        status,
        state,
        "r",
    )
    assert run.info.end_time == 1_700_000_100_000


def test_a_paused_run_is_not_shown_as_running(client: MlflowClient, tmp_path: Path) -> None:
    tracking = Tracking(client, "paused")
    spool = spooled(tmp_path)
    tracking.store_trial(spool)
    tracking.pause(0)
    (run,) = client.search_runs([tracking.experiment_id])
    assert (run.info.status, run.data.tags["harness.state"]) == ("SCHEDULED", "interrupted")
    again = Tracking(client, "paused")
    again.store_trial(spool)
    (run,) = client.search_runs([tracking.experiment_id])
    assert (run.info.status, run.data.tags["harness.state"]) == ("RUNNING", "running")


def test_trials_lie_under_their_launch(client: MlflowClient, tmp_path: Path) -> None:
    tracking = Tracking(client, "parents")
    tracking.parent = tracking.run("parents/launch/1", "launch", {"harness.kind": "launch"})
    tracking.store_trial(spooled(tmp_path))
    (trial,) = client.search_runs([tracking.experiment_id], "tags.`harness.kind` = 'trial'")
    assert trial.data.tags["mlflow.parentRunId"] == tracking.parent
    assert tracking.trial_of(trial.info.run_id) == "0"
    assert tracking.trial_of("nonsense' OR 1=1") is None


def test_foreign_names_are_turned_away(server: TrackingServer) -> None:
    request = urllib.request.Request(
        f"{server.uri}/api/2.0/mlflow/experiments/search?max_results=1",
        headers={"Host": "10.attacker.example"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError) as caught:
        opener.open(request, timeout=10)
    assert caught.value.code == 403
    caught.value.close()


def listeners(port: int) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter()
        if any(connection.laddr.port == port for connection in _listening(process))
    ]


def _listening(process: psutil.Process) -> list[Any]:
    try:
        return [one for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    except psutil.Error:
        return []


def test_the_server_listens_on_loopback_only(server: TrackingServer) -> None:
    assert server.uri
    for process in listeners(server.port):
        assert {one.laddr.ip for one in _listening(process) if one.laddr.port == server.port} == {"127.0.0.1"}


def test_the_server_ends_when_its_owner_is_killed(owner: "subprocess.Popen[str]") -> None:
    assert owner.stdout is not None
    told = json.loads(owner.stdout.readline())
    group = [process for process in psutil.process_iter() if _group(process) == told["pid"]]
    assert len(group) >= 2
    assert listeners(told["port"])
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    _, alive = psutil.wait_procs(group, timeout=15)
    assert alive == []
    assert listeners(told["port"]) == []


def _group(process: psutil.Process) -> int:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return -1


def test_two_records_on_one_server_keep_their_studies_apart(client: MlflowClient, tmp_path: Path) -> None:
    mine = Tracking(client, "shared", identity="a" * 32)
    theirs = Tracking(client, "shared", identity="b" * 32)
    assert mine.experiment_id != theirs.experiment_id
    assert mine.store_trial(ended(spooled(tmp_path / "mine"), "FINISHED", "complete"))
    assert theirs.store_trial(ended(spooled(tmp_path / "theirs", epochs=1), "FAILED", "failed"))
    assert [run.info.status for run in client.search_runs([mine.experiment_id])] == ["FINISHED"]
    assert [run.info.status for run in client.search_runs([theirs.experiment_id])] == ["FAILED"]
    assert Tracking(client, "shared", identity="b" * 32).experiment_id == theirs.experiment_id


def test_a_refused_dataset_is_logged_the_next_time(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = Tracking(client, "interrupted")
    spool = spooled(tmp_path, epochs=1)
    log_inputs, calls = client.log_inputs, []

    def failing_once(*args: Any, **kwargs: Any) -> None:
        calls.append(args)
        if len(calls) == 1:
            raise ConnectionError("gone")
        log_inputs(*args, **kwargs)

    monkeypatch.setattr(client, "log_inputs", failing_once)
    with pytest.raises(ConnectionError):
        tracking.store_trial(spool)
    tracking.store_trial(spool)
    [run] = client.search_runs([tracking.experiment_id])
    assert len(run.inputs.dataset_inputs) == 2


def test_orphaned_launches_are_ended_and_trials_left_alone(client: MlflowClient) -> None:
    tracking = Tracking(client, "orphans")
    launch = tracking.run("k1", "launch", {"harness.kind": "launch"})
    trial = tracking.run("k2", "000", {"harness.kind": "trial"})
    assert tracking.end_orphans("launch") == ["launch"]
    assert client.get_run(launch).info.status == "KILLED"
    assert client.get_run(trial).info.status == "RUNNING"
    assert tracking.pause_orphans("trial") == ["000"]
    assert client.get_run(trial).info.status == "SCHEDULED"
    assert tracking.end_orphans("launch") == tracking.pause_orphans("trial") == []


def test_a_sweep_ends_what_a_killed_launch_or_ensemble_of_its_study_left_running(
    server: TrackingServer, client: MlflowClient, record: Record
) -> None:
    study = open_study(record, Sweep.model_validate({"name": "left"}))
    tracking = Tracking(client, study.name, identity=study.identity)
    kinds = ("launch", "ensemble", "trial")
    left = {kind: tracking.run(f"{kind}/dead", kind, {"harness.kind": kind}) for kind in kinds}
    launched = time.time_ns()
    for _ in range(2):  # the second time is after a lost connection: its own launch goes on
        own = open_tracking(server.uri, study, provenance("cpu"), [], launched).parent
        status = {kind: client.get_run(run).info.status for kind, run in left.items()}
        assert status == {"launch": "KILLED", "ensemble": "KILLED", "trial": "SCHEDULED"}
        assert client.get_run(own).info.status == "RUNNING"
    assert client.get_run(left["ensemble"]).data.tags["harness.state"] == "abandoned"
    study.release()
