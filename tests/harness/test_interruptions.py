"""Signals, kills and second launches: nothing is lost, nothing is doubled, nobody stays behind."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.record import Record
from harness.server import TrackingServer
from harness.tracking import connect
from tests.harness.workplace import (
    LONG,
    SWEEP,
    Workplace,
    epochs_spooled,
    outcomes,
    running_children,
    trial_is_stored,
    trial_runs,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def place(tmp_path: Path, demo_cache: Path, new_record: Callable[[Path], Record]) -> Workplace:
    """A workplace with an empty record; that a sweep makes its own is seen in `swept`."""
    new_record(tmp_path / "mlruns")
    return Workplace(tmp_path, demo_cache, LONG)


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, demo_cache: Path, new_record: Callable[[Path], Record]
) -> list[tuple]:
    folder = tmp_path_factory.mktemp("undisturbed")
    new_record(folder / "mlruns")
    place = Workplace(folder, demo_cache, LONG)
    place.run("sweep", "tiny.yaml", "--workers", "1", "--quiet")
    return outcomes(place)


def stop(place: Workplace, process: "subprocess.Popen[str]", number: signal.Signals) -> None:
    """Signal a sweep of which one trial has begun: it leaves nobody behind and says how to go on."""
    process.send_signal(number)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "To go on:" in stdout
    assert running_children(place) == []
    assert [t["state"] for t in place.json("status", "tiny")["trials"]] == ["interrupted"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly_and_the_same_command_goes_on(
    number: signal.Signals, place: Workplace, undisturbed: list[tuple]
) -> None:
    process = place.start("sweep", "tiny.yaml", "--workers", "1")
    # On a busy machine MLflow may come up late: at epoch 9 of 14 it is waited for no longer.
    wait_for(lambda: epochs_spooled(place) >= (3 if trial_is_stored(place) else 9))
    stored = trial_is_stored(place)
    stop(place, process, number)
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


def test_two_sweeps_of_one_study_cannot_run_at_once_and_a_hangup_stops_cleanly(place: Workplace) -> None:
    place.write(LONG.replace("epochs: 14", "epochs: 500"))  # it must outlast the second one
    first = place.start("sweep", "tiny.yaml", "--workers", "1")
    wait_for(lambda: epochs_spooled(place) >= 3)
    shown = place.run("sweep", "tiny.yaml", code=2)
    assert f"process {first.pid}" in shown
    stop(place, first, signal.SIGHUP)
