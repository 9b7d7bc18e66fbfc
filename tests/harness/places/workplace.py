"""A folder with a sweep file and a record, and the command line run in it: by real processes, or in this one."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import warnings
from pathlib import Path
from unittest import mock

import psutil
import pytest
import torch
from click.testing import CliRunner

from harness.cli.main import cli
from harness.promotion.bundle import latency
from harness.study.storage.record import Record

HARNESS = [sys.executable, "-P", "-m", "harness.cli.main"]

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


def run_in_process(folder: Path, cache: Path, *words: str, code: int = 0, **extra: str) -> str:
    """What a command prints, run in this process, which leaves no trace in it: one of its own imports for 6 s of CPU.

    Latency is measured for a moment only. `extra` are variables of its environment.
    """
    threads = torch.get_num_threads()
    with (
        mock.patch.dict(os.environ, {"HARNESS_CACHE": str(cache), "NO_COLOR": "1", **extra}),
        contextlib.chdir(folder),
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")  # MLflow warns of itself at its import
        patch.setattr(latency, "MAX_SECONDS", 0.2)
        try:
            done = CliRunner().invoke(cli, words)
        finally:
            torch.set_num_threads(threads)
    shown = f"{words} -> {done.exit_code}\n{done.stdout}\n{done.stderr}"
    assert done.exit_code == code, shown
    assert done.exception is None or isinstance(done.exception, SystemExit), shown
    return done.stdout


def before_others(folder: Path) -> str:
    """A PYTHONPATH with this folder first; an empty entry would be the working folder, with its wrong `models.py`."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


class Workspace:
    """A folder with a sweep file, a record, and the command line run in it."""

    def __init__(self, folder: Path, cache: Path, sweep: str = SWEEP, **variables: str) -> None:
        self.folder, self.uri = folder, ""
        self.environment = {**os.environ, "HARNESS_CACHE": str(cache), "NO_COLOR": "1", **variables}
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

    def json(self, *words: str, code: int = 0, **extra: str) -> dict:
        return json.loads(self.run(*words, "--json", code=code, **extra))

    def inside(self, *words: str, code: int = 0) -> dict:
        """What `json` gives, without a process of its own, and on the MLflow server at `uri` where that is set."""
        extra = {"MLFLOW_TRACKING_URI": self.uri} if self.uri else {}
        cache = Path(self.environment["HARNESS_CACHE"])
        return json.loads(run_in_process(self.folder, cache, *words, "--json", code=code, **extra))

    @property
    def record(self) -> Record:
        return Record(self.folder / "mlruns")


def copied(place: Workspace, folder: Path) -> Workspace:
    """A workplace of one's own with the record, the bundles and what was printed of another."""
    shutil.copytree(place.folder, folder, dirs_exist_ok=True)
    copy = Workspace(folder, Path(place.environment["HARNESS_CACHE"]))
    copy.result = place.result
    return copy


def trial_runs(client):
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id], "tags.`harness.kind` = 'trial'")
    return sorted(runs, key=lambda run: int(run.data.tags["harness.trial"]))


def outcomes(place: Workspace, study: str = "tiny") -> list[tuple]:
    trials = place.json("status", study)["trials"]
    return [(t["fingerprint"], t["state"], t["score"], t["epochs"], t["best_epoch"]) for t in trials]


def wait_for(condition, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def epochs_spooled(place: Workspace) -> int:
    return sum(len(file.read_text().splitlines()) for file in place.record.spool.glob("tiny/*/events.jsonl"))


def trial_is_stored(place: Workspace) -> bool:
    """Whether MLflow has a run of a trial, read beside its server."""
    with contextlib.closing(sqlite3.connect(f"file:{place.record.database}?mode=ro", uri=True)) as database:
        found = database.execute("select 1 from tags where key = 'harness.trial' limit 1").fetchone()
    return found is not None


def running_children(place: Workspace) -> list[list[str]]:
    """Servers and workers: all run in the workplace or its record."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(place.folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.cmdline())
    return found
