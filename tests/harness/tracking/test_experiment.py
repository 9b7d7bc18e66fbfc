"""A trial of the spool is stored in MLflow once and whole, however often and by whomever it is stored."""

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from harness.study.storage.record import Record
from harness.tracking.experiment import Tracking
from tests.harness.places.tracked_trials import ended, everything, spooled

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


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
    client: MlflowClient, tracked: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teams = Tracking(client, "uploaded")
    assert teams.store_trial(ended(spooled(tmp_path / "teams"), "FINISHED", "complete"), new=True)
    own = Tracking(client, "placed")
    own.served = tracked.artifacts
    spool = ended(spooled(tmp_path / "own"), "FINISHED", "complete")
    with monkeypatch.context() as patch:
        made = counting(client, patch, *CALLS)
        assert own.store_trial(spool, new=True)
    assert made == ["create_run", "log_batch", "log_batch", "log_inputs", "set_terminated"]
    found = everything(client, own)
    assert own.store_trial(spool)  # once more
    again = Tracking(client, "placed")
    again.served = tracked.artifacts
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
    client: MlflowClient, tracked: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = Tracking(client, "answer-lost")
    tracking.served = tracked.artifacts
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
