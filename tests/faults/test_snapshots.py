"""Row 6: snapshots while a sweep writes, each restored elsewhere and looked at closely."""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from harness.core.files import sha256_of
from harness.study.storage.record import Record
from harness.study.storage.trial_spool import TrialSpool
from harness.study.study import load_study
from harness.tracking.experiment import connect
from harness.tracking.server.server import TrackingServer
from tests.harness.places.workplace import Workspace, run_in_process, wait_for

ENDLESS = """\
name: tiny
data: {corpus: demo, subset: clean, task: pseudo, variant: seen, train_windows: 240, val_windows: 96, test_windows: 96}
parameters: {feature: [mfcc, log_mel], learning_rate: {float: [0.001, 0.01], log: true}, width: 0.125, epochs: 3}
sampler: random
pruner: none
budget: {trials: 5000}
"""
FINISHED = (
    "select count(*) from runs join tags using (run_uuid) where key = 'harness.trial' and status = 'FINISHED'"
)
CURVE = "val/balanced_accuracy"


def rows(record: Record, query: str, *values: object) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{record.database}?mode=ro", uri=True)) as database:
        return database.execute(query, values).fetchall()


def finished(record: Record) -> int:
    return int(rows(record, FINISHED)[0][0]) if record.exists else 0


def wrong_objects(cache: Path) -> list[str]:
    """Objects whose md5 is not their name."""
    paths = [path for path in (cache / "files" / "md5").rglob("*") if path.is_file()]
    assert paths
    return [
        path.name for path in paths
        if hashlib.md5(path.read_bytes()).hexdigest() != (path.parent.name + path.name).removesuffix(".dir")
    ]  # fmt: skip


def opened(path: Path) -> bool:
    """Whether a file is what its name says, read to its end."""
    if path.suffix == ".json":
        json.loads(path.read_text("utf-8"))
    elif path.suffix in (".png", ".webp"):
        Image.open(io.BytesIO(path.read_bytes())).load()
    elif path.suffix == ".onnx":
        onnx.load(path)
    elif path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            assert all(arrays[name].size >= 0 for name in arrays)
    return path.stat().st_size > 0


def problems(record: Record) -> list[str]:
    """What is wrong with a record that was taken at some moment of a sweep."""
    found = [] if rows(record, "pragma integrity_check")[0][0] == "ok" else ["the database is broken"]
    trials = {trial.number: trial for trial in load_study(record, "tiny").trials()}
    runs = rows(
        record,
        "select run_uuid, status, cast(value as int) from runs join tags using (run_uuid) where key = 'harness.trial'",
    )
    if len({number for *_, number in runs}) != len(runs):
        found.append("a trial has two runs")
    kept = {number for *_, number in runs} | {int(path.name) for path in record.spool.glob("tiny/0*")}
    found += [
        f"trial {n} is told, and nothing of it is kept"
        for n, one in trials.items()
        if one.state == "complete" and n not in kept
    ]
    for run, status, number in runs:
        spool = TrialSpool(record.spool / "tiny" / f"{number:05d}")
        spooled = {event["epoch"] for event in spool.epochs()}
        stored = [
            step
            for (step,) in rows(record, "select step from metrics where run_uuid = ? and key = ?", run, CURVE)
        ]
        if len(set(stored)) != len(stored):
            found.append(f"run {number} has an epoch twice")
        if number not in trials:
            found.append(f"run {number} is of no trial")
            continue
        trial = trials[number]
        if trial.state == "complete" and {*stored, *spooled} != set(range(trial.epochs)):
            found.append(
                f"trial {number} is told, and of {trial.epochs} epochs there are {sorted({*stored, *spooled})}"
            )
        if status != "FINISHED":
            if not spool.folder.is_dir():
                found.append(f"run {number} is {status}, and nobody can go on with it")
            if not set(stored) <= spooled:
                found.append(f"run {number} would repeat epochs {sorted(set(stored) - spooled)}")
        else:
            found += wrong_artifacts(record, run)
    return found


def wrong_artifacts(record: Record, run: str) -> list[str]:
    """Artifacts of a finished run that are not what its tags say."""
    (uri,) = rows(record, "select artifact_uri from runs where run_uuid = ?", run)[0]
    folder = record.artifacts / uri.removeprefix("mlflow-artifacts:").lstrip("/")
    tags = rows(record, "select key, value from tags where run_uuid = ? and key like 'harness.sha256.%'", run)
    named = {key.removeprefix("harness.sha256."): value for key, value in tags}
    assert named, f"run {run} names no artifact"
    wrong = [
        name
        for name, sha256 in named.items()
        if not (folder / name).is_file() or sha256_of(folder / name) != sha256
    ]
    return [f"{name} of run {run}" for name in wrong] + [
        str(path) for path in folder.rglob("*") if path.is_file() and not opened(path)
    ]


@pytest.mark.row(6)
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_snapshots_under_load_are_whole_wherever_they_are_restored(
    tmp_path: Path, demo_cache: Path, full: bool, rng: random.Random, seed: int, measured: Callable[..., None]
) -> None:
    count, workers = (30, "2") if full else (2, "1")
    home = tmp_path / "home"
    home.mkdir()
    place = Workspace(home, demo_cache, ENDLESS)
    sweep = place.start("sweep", "tiny.yaml", "--workers", workers)
    taken, whole, during, found = [], 0, [], []
    try:
        wait_for(lambda: sweep.poll() is not None or finished(place.record) >= 1, 400)
        for number in range(count):
            time.sleep(rng.uniform(0, 1))
            before = finished(place.record)
            assert sweep.poll() is None, sweep.communicate()
            taken.append(
                json.loads(run_in_process(home, demo_cache, "snapshot", "-m", f"number {number}", "--json"))
            )
            elsewhere = tmp_path / f"elsewhere-{number}" / "record"
            restored = json.loads(
                run_in_process(home, demo_cache, "restore", "--record", str(elsewhere), "--json")
            )
            during.append(finished(place.record) - before)
            assert restored["digest"] == taken[-1]["digest"]
            wrong = problems(Record(elsewhere)) + wrong_objects(home / ".dvc" / "cache")
            whole += not wrong
            found += wrong
            if number < count - 1:
                shutil.rmtree(elsewhere.parent)
        assert sweep.poll() is None, sweep.communicate()
    finally:
        sweep.send_signal(signal.SIGINT)
        printed = sweep.communicate(timeout=120)
    assert sweep.returncode == 130, printed
    failed = rows(place.record, "select count(*) from runs where status = 'FAILED'")[0][0]
    downloaded = download_all(Record(elsewhere)) if full else 0
    resumed = go_on(elsewhere, demo_cache) if full else "not resumed in the short form"
    measured(
        f"{whole} of {count} snapshots whole, elsewhere too ({sum(during)} runs ended while they were taken, "
        f"{failed} failed{f', {downloaded} artifacts downloaded, {resumed}' if full else ''}; seed {seed})",
        holds=whole == count and failed == 0 and not found and (sum(during) > 0 or not full),
    )


def download_all(record: Record) -> int:
    """Fetch every artifact of every finished run from an MLflow server on the record, and open it; how many."""
    runs = [run for (run,) in rows(record, "select run_uuid from runs where status = 'FINISHED'")]
    fetched = 0
    with TrackingServer(record) as server:
        client = connect(server.uri)
        for number, run in enumerate(runs):
            target = record.root.parent / f"downloaded-{number}"
            target.mkdir()
            files = [
                path
                for path in Path(client.download_artifacts(run, "", str(target))).rglob("*")
                if path.is_file()
            ]
            assert all(opened(path) for path in files)
            fetched += len(files)
    return fetched


def go_on(root: Path, cache: Path) -> str:
    """Resume the sweep on a restored record until a trial more is told; every epoch must be there once."""
    place = Workspace(root.parent, cache, ENDLESS)
    before = len([trial for trial in load_study(Record(root), "tiny").trials() if trial.state == "complete"])
    sweep = place.start("sweep", "tiny.yaml", "--workers", "2", "--record", str(root))
    try:
        wait_for(lambda: sweep.poll() is not None or finished(Record(root)) > before + 2, 300)
    finally:
        sweep.send_signal(signal.SIGINT)
        printed: tuple[str, str] = sweep.communicate(timeout=120)
    assert sweep.returncode == 130, printed
    assert isinstance(sweep, subprocess.Popen)
    wrong = problems(Record(root))
    assert not wrong, wrong
    return "resumed from the last, no epoch lost or doubled"
