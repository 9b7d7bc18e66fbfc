"""The record's server: who may speak to it, when it ends, and whose runs are whose on it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from harness.config.sweep import Sweep
from harness.core.provenance import provenance
from harness.execution.launch import open_tracking
from harness.study.storage.record import Record
from harness.study.study import open_study
from harness.tracking.experiment import Tracking
from harness.tracking.server.server import TrackingServer
from tests.harness.places.tracked_trials import ended, spooled

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

OWNER = (
    "import json, sys, time; from pathlib import Path\n"
    "from harness.study.storage.record import Record; from harness.tracking.server.server import TrackingServer\n"
    "server = TrackingServer(Record(Path(sys.argv[1]))); server.start(); server.uri\n"
    "print(json.dumps({'port': server.port, 'pid': server._process.pid}), flush=True); time.sleep(200)\n"
)


@pytest.fixture(scope="module")
def owner(tracked: Record) -> Iterator["subprocess.Popen[str]"]:
    """A second server on the same record, owned by a process that will be killed."""
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tracked.root)], stdout=subprocess.PIPE, text=True, env=environment
    )
    yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_foreign_names_are_turned_away(tracking_server: TrackingServer) -> None:
    request = urllib.request.Request(
        f"{tracking_server.uri}/api/2.0/mlflow/experiments/search?max_results=1",
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


def test_the_server_listens_on_loopback_only(tracking_server: TrackingServer) -> None:
    assert tracking_server.uri
    for process in listeners(tracking_server.port):
        assert {one.laddr.ip for one in _listening(process) if one.laddr.port == tracking_server.port} == {
            "127.0.0.1"
        }


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
    tracking_server: TrackingServer, client: MlflowClient, tracked: Record
) -> None:
    study = open_study(tracked, Sweep.model_validate({"name": "left"}))
    tracking = Tracking(client, study.name, identity=study.identity)
    kinds = ("launch", "ensemble", "trial")
    left = {kind: tracking.run(f"{kind}/dead", kind, {"harness.kind": kind}) for kind in kinds}
    launched = time.time_ns()
    for _ in range(2):  # the second time is after a lost connection: its own launch goes on
        own = open_tracking(tracking_server.uri, study, provenance("cpu"), [], launched).parent
        status = {kind: client.get_run(run).info.status for kind, run in left.items()}
        assert status == {"launch": "KILLED", "ensemble": "KILLED", "trial": "SCHEDULED"}
        assert client.get_run(own).info.status == "RUNNING"
    assert client.get_run(left["ensemble"]).data.tags["harness.state"] == "abandoned"
    study.release()
