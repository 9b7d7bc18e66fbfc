"""What several tests of the harness begin with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from harness.study.storage.record import Record
from tests.harness.places.sealed_bundle import make_bundle
from tests.harness.places.workplace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from harness.study.study import Study
    from harness.tracking.server.server import TrackingServer
    from tests.harness.places.report_study import ReportRecord
    from tests.harness.places.resumable_training import Whole

FINISHED_SWEEP = """\
name: told
data: {corpus: demo, train_windows: 120, val_windows: 96, test_windows: 96}
parameters: {feature: [mfcc, log_mel], width: 0.0625, epochs: 2}
sampler: grid
pruner: none
budget: {trials: 2}
"""


@dataclass(frozen=True)
class FinishedSweep:
    """A finished sweep of two trials: a folder with told.yaml and its record, and what the command printed.

    All tests share it: copy the folder before a command is run in it.
    """

    folder: Path
    stdout: str


@pytest.fixture(scope="session")
def told(common: Path, demo_cache: Path) -> FinishedSweep:
    """Swept once a run; a sweep takes 25 s of CPU."""
    folder, printed = common / "told", common / "told.txt"
    with FileLock(common / "told.lock"):
        if not printed.exists():
            folder.mkdir()
            (folder / "told.yaml").write_text(FINISHED_SWEEP)
            done = subprocess.run(
                [sys.executable, "-P", "-m", "harness.cli.main", "sweep", "told.yaml"], cwd=folder, text=True, check=False,
                capture_output=True, timeout=200, env={**os.environ, "HARNESS_CACHE": str(demo_cache), "NO_COLOR": "1"},
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
            printed.write_text(done.stdout)
    return FinishedSweep(folder, printed.read_text())


@pytest.fixture(scope="session")
def swept(common: Path, demo_cache: Path) -> Workspace:
    """One finished sweep of three trials, made once a run; `copied` gives a test its own."""
    folder, printed = common / "swept", common / "swept.json"
    with FileLock(common / "swept.lock"):
        if not printed.exists():
            folder.mkdir()
            result = Workspace(folder, demo_cache).json("sweep", "tiny.yaml")
            printed.write_text(json.dumps(result))
    place = Workspace(folder, demo_cache)
    place.result = json.loads(printed.read_text())
    return place


@pytest.fixture(scope="session")
def sealed(common: Path) -> Path:
    """A small sealed bundle, made once a run: three networks are exported. Copy it before anything is altered."""
    folder = common / "sealed" / "small"
    with FileLock(common / "sealed.lock"):
        if not folder.exists():
            folder.parent.mkdir(exist_ok=True)
            make_bundle(folder.with_name("aside")).rename(folder)
    return folder


@pytest.fixture
def bundle(sealed: Path, tmp_path: Path) -> Path:
    """A sealed bundle of the test's own, to alter."""
    return Path(shutil.copytree(sealed, tmp_path / "small"))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command runs in an empty folder, without what the caller's shell sets."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("HARNESS_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def place(tmp_path: Path) -> ReportRecord:
    """A record without studies yet, for what reports read."""
    from tests.harness.places.report_study import ReportRecord

    return ReportRecord(tmp_path)


@pytest.fixture
def study(place: ReportRecord) -> Study:
    """A study of two front ends in it, as the coordinator leaves it."""
    return place.two_front_ends()


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory, new_record: Callable[[Path], Record]) -> Record:
    """The record of `tracking_server`."""
    return new_record(tmp_path_factory.mktemp("tracking") / "mlruns")


@pytest.fixture(scope="module")
def tracking_server(tracked: Record) -> Iterator[TrackingServer]:
    """One MLflow server for a file of tests; each test uses an experiment of its own."""
    from harness.tracking.server.server import TrackingServer

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with TrackingServer(tracked) as server:
            yield server


@pytest.fixture(scope="module")
def client(tracking_server: TrackingServer) -> MlflowClient:
    """A client of it."""
    from harness.tracking.experiment import connect

    return connect(tracking_server.uri)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The small training that nobody stopped."""
    from tests.harness.places.resumable_training import CPU, made_whole

    return made_whole(tmp_path_factory.mktemp("whole"), CPU)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """What Optuna's half needs, without the seconds that MLflow's database takes."""
    record = Record(tmp_path / "mlruns")
    for folder in (record.root, record.spool, record.locks):
        folder.mkdir()
    record.database.touch()
    return record
