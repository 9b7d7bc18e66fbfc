"""Answers of MLflow that get lost after it did what it was asked: nothing stands there twice."""

from __future__ import annotations

import importlib
import random
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from harness.metrics.intervals import clustered_interval
from harness.promotion.bundle.files import bundle_digest
from harness.promotion.registry.model_registry import Registration, register
from harness.study.storage.record import Record
from harness.study.storage.trial_spool import TrialSpool
from harness.tracking.experiment import Tracking, connect
from harness.tracking.server.server import TrackingServer
from harness.tracking.writer import Writer
from tests.faults.proxy import Proxy, proxied
from tests.harness.places.registry_record import WARM, write_bundle
from tests.harness.places.tracked_trials import ended, everything, spooled
from tests.harness.places.workplace import SWEEP, run_in_process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# A trial's own, and what differs between two studies.
PRIVATE = ("harness.key", "mlflow.parentRunId")
# What a promotion makes once.
CREATING = ("/runs/create", "/model-versions/create", "/mlflow/logged-models")


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, new_record: Callable[[Path], Record]
) -> Iterator[TrackingServer]:
    record = new_record(tmp_path_factory.mktemp("lost") / "mlruns")
    with TrackingServer(record) as server:
        assert server.uri
        yield server


@pytest.fixture
def proxy(server: TrackingServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The way to the server of everything in this test that asks the environment for it."""
    with proxied(server.uri) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
        yield proxy


def kind(request: str) -> str:
    """A request without what differs from one trial or model to the next: "POST /runs/create"."""
    method, path = request.split()
    return f"{method} {re.sub('m-[0-9a-f]{32}', '*', path.split('/mlflow')[1].split('artifacts/')[0])}"


def drawn(requests: list[str], count: int, rng: random.Random) -> list[int]:
    """Numbers of requests whose answers are lost, one each time: every kind of request once, then any."""
    kinds: dict[str, list[int]] = {}
    for number, request in enumerate(requests):
        kinds.setdefault(kind(request), []).append(number)
    changes = [rng.choice(numbers) for kind, numbers in sorted(kinds.items()) if not kind.startswith("GET")]
    return [*changes, *(rng.randrange(len(requests)) for _ in range(max(0, count - len(changes))))]


def lose_one(proxy: Proxy, number: int) -> None:
    proxy.requests.clear()
    proxy.lost.clear()
    proxy.lose = lambda asked, request: asked == number


def stored(study: str, server: TrackingServer, template: Path, folder: Path) -> list[dict[str, Any]]:
    """Store a trial below a launch as a sweep does; all that MLflow then holds of the study, deleted runs too."""

    def open_tracking(uri: str) -> Tracking:
        tracking = Tracking(connect(uri), study, identity=study)
        tracking.parent = tracking.run(f"{study}/launch", "launch", {"harness.kind": "launch"})
        return tracking

    writer = Writer(TrackingServer(server.record), open_tracking)
    spool = TrialSpool(Path(shutil.copytree(template, folder)))
    writer.notify(spool)
    assert writer.finish(lambda text: None, hurried=False) == []
    writer.stop(1.0)
    assert not spool.folder.exists()
    client = connect(server.uri)
    assert [one.name for one in client.search_experiments() if one.name.startswith(study)] == [study]
    rows = everything(client, Tracking(client, study, identity=study))
    for row in rows:
        row["tags"] = {key: value for key, value in row["tags"].items() if key not in PRIVATE}
    return sorted(rows, key=lambda row: str(row["name"]))


@pytest.mark.row(12)
def test_a_lost_answer_makes_no_second_run(
    proxy: Proxy, server: TrackingServer, tmp_path: Path, full: bool, rng: random.Random, seed: int,
    measured: Callable[..., None],
) -> None:  # fmt: skip
    template = ended(spooled(tmp_path), "FINISHED", "complete").folder
    undisturbed = stored("undisturbed", server, template, tmp_path / "undisturbed")
    assert len(undisturbed) == 2
    lost, orphans, different = [], 0, 0
    for turn, number in enumerate(drawn(proxy.requests.copy(), 70 if full else 0, rng)):
        lose_one(proxy, number)
        rows = stored(f"lost-{turn}", server, template, tmp_path / str(turn))
        lost += proxy.lost
        orphans += len(rows) - len(undisturbed)
        different += rows != undisturbed
    kinds = len({kind(request) for request in lost})
    measured(
        f"{len(lost)} answers to a trial's requests lost ({kinds} kinds, seed {seed}): {orphans} orphans, "
        f"{different} records that differ from an undisturbed one",
        holds=len(lost) >= (70 if full else 5) and kinds >= 5 and orphans == different == 0,
    )


def registered(number: int, uri: str, folder: Path) -> str:
    """Register a bundle as the champion of a model of its own; the model's name."""
    bundle, name = write_bundle(folder / str(number), number), f"model-{number}"
    new = Registration(
        name, f"{number:032x}", "promoting", {"harness.trial": str(number)}, bundle, bundle_digest(bundle),
        clustered_interval([1, 1, 0, 1] * 10, [str(i // 4) for i in range(40)]), "d" * 64, 1_000_000, "unconfirmed", {},
    )  # fmt: skip
    assert register(Tracking(connect(uri), "promoting"), new, wins=True, seen_champion=None) == "1"
    return name


def beyond_one(client: MlflowClient, name: str) -> int:
    """How many versions, runs and logged models there are of this registered model beyond the one that it needs."""
    versions = client.search_model_versions(f"name = '{name}'")
    [experiment] = [one.experiment_id for one in client.search_experiments() if one.name == "promoting"]
    runs = [one.info for one in client.search_runs([experiment]) if one.info.run_name == f"promote {name}"]
    models = client.search_logged_models([experiment], f"source_run_id = '{versions[0].run_id}'")
    assert [run.status for run in runs] == ["FINISHED"]
    assert client.get_model_version_by_alias(name, "champion").version == "1"
    return len(versions) + len(runs) + len(models) - 3


@pytest.mark.row(12)
def test_a_lost_answer_makes_no_second_version(
    proxy: Proxy, server: TrackingServer, tmp_path: Path, full: bool, rng: random.Random, seed: int,
    measured: Callable[..., None],
) -> None:  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # MLflow warns of itself at its import
        for module in WARM:
            importlib.import_module(module)
    client, lost, orphans = connect(server.uri), [], 0
    registered(1, proxy.uri, tmp_path)  # makes the experiment too: two requests more than the others
    proxy.requests.clear()
    registered(2, proxy.uri, tmp_path)
    asked = proxy.requests.copy()
    numbers = drawn(asked, 30, rng)
    if not full:  # what would stand there twice
        numbers = [number for number in numbers if asked[number].endswith(CREATING)]
    for turn, number in enumerate(numbers, start=3):
        lose_one(proxy, number)
        orphans += beyond_one(client, registered(turn, proxy.uri, tmp_path))
        assert [kind(request) for request in proxy.lost] == [kind(asked[number])]
        lost += proxy.lost
    made = {end for end in CREATING if any(request.endswith(end) for request in lost)}
    measured(
        f"{len(lost)} answers to a promotion's requests lost (seed {seed}): {orphans} orphans",
        holds=len(lost) >= (30 if full else 3) and orphans == 0 and made == set(CREATING),
    )


@pytest.mark.row(12)
def test_a_sweep_on_a_line_that_loses_answers(
    proxy: Proxy, server: TrackingServer, tmp_path: Path, demo_cache: Path, full: bool, rng: random.Random, seed: int,
    measured: Callable[..., None],
) -> None:  # fmt: skip
    if not full:
        pytest.skip("part of `make faults`; its parts are tested above")
    proxy.lose = lambda number, request: rng.random() < 0.1
    (tmp_path / "tiny.yaml").write_text(SWEEP.replace("name: tiny", "name: lossy"))
    run_in_process(
        tmp_path, demo_cache, "sweep", "tiny.yaml", "--workers", "1", MLFLOW_TRACKING_URI=proxy.uri
    )
    client = connect(server.uri)
    [experiment] = [one.experiment_id for one in client.search_experiments() if one.name == "lossy"]
    runs = client.search_runs([experiment], "tags.`harness.kind` = 'trial'")
    steps = {
        tuple(m.step for m in client.get_metric_history(run.info.run_id, "val/loss")) == (0, 1, 2, 3, 4)
        for run in runs
    }
    measured(
        f"a sweep of 3 trials with {len(proxy.lost)} of {len(proxy.requests)} answers lost (seed {seed}): "
        f"{len(runs)} runs",
        holds=len(runs) == 3 and steps == {True} and {run.info.status for run in runs} == {"FINISHED"},
    )
