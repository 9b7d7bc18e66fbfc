"""B7: windows featurised / windows needed over a whole sweep, counted by the store itself (`harness.training.feature_cache`).

A real sweep, two workers, every front end x subset, stopped by a signal half-way and resumed. Needed are the windows
of each split that a trial asks for, once for each front end; raw waveforms are featurised in no store.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.preparation.prepared import load_prepared
from harness.config.trial.trial_config import TrialConfig
from harness.study.storage.record import Record
from harness.study.study import StudyError, load_study
from harness.training.feature_cache import SOURCE, build_log, feature_key
from tests.benchmarks.demo_windows import cache_with_speech
from tests.benchmarks.records import empty_record
from tests.benchmarks.result import Result, judged
from tests.benchmarks.scale import Scale

HALF_WAY_S = 300.0


def sweep_of(scale: Scale) -> dict[str, Any]:
    """Every combination once, and then the same windows again under other rates."""
    features = scale.of(["mfcc", "mfcc_delta", "log_mel"], ["mfcc"])
    subsets, rates = scale.of(["clean", "other"], ["clean"]), [0.002, 0.005]
    train, held_out = scale.of((240, 96), (64, 48))
    data = {
        "corpus": "demo", "task": "pseudo", "variant": "seen",
        "train_windows": train, "val_windows": held_out, "test_windows": held_out,
    }  # fmt: skip
    return {
        "name": "reuse",
        "data": {**data, "evaluate_on": subsets},
        "parameters": {"feature": features, "subset": subsets, "learning_rate": rates, "width": 0.125, "epochs": 2},
        "sampler": "grid",
        "pruner": "none",
        "budget": {"trials": len(features) * len(subsets) * len(rates)},
    }  # fmt: skip


def run(scale: Scale, place: Path) -> list[Result]:
    """Run the sweep in two launches, then compare what was made with what was needed."""
    sweep = sweep_of(scale)
    cache_with_speech(place, tuple(sweep["parameters"]["subset"]))
    (place / "reuse.yaml").write_text(json.dumps(sweep), encoding="utf-8")
    if scale.quick:
        empty_record(place / "mlruns")
    workers = scale.of(2, 1)
    stopped_at = _launch_and_stop(place, workers, sweep["budget"]["trials"] // 2)
    _wait(_launch(place, workers))
    needed, trials = needed_windows(place)
    if trials != sweep["budget"]["trials"]:
        raise RuntimeError(f"{trials} of {sweep['budget']['trials']} trials are complete: nothing is counted")
    lines = build_log(place / "cache")
    made = sum(line["windows"] for line in lines)
    unknown = {line["key"] for line in lines} ^ set(needed)
    if unknown:
        raise RuntimeError(f"the store and the trials do not name the same features: {sorted(unknown)}")
    notes = (
        f"{made} windows featurised in {len(lines)} buildings, {sum(needed.values())} needed, by {trials} trials of "
        f"{workers} workers; stopped after {stopped_at} trials and resumed",
        *scale.notes,
    )  # fmt: skip
    details = {"made": made, "needed": sum(needed.values()), "builders": len({line["pid"] for line in lines})}
    value = made / sum(needed.values())
    what = "windows featurised / windows needed, over a whole sweep"
    return [judged("B7", what, value, unit="x", target="== 1.00", notes=notes, details=details)]


def needed_windows(place: Path) -> tuple[Mapping[str, int], int]:
    """Windows of each stored array that complete trials trained or were judged on, by its key; how many trials."""
    prepared = {
        one.config.digest(): one
        for one in map(load_prepared, sorted((place / "cache" / "prepared").glob("[!.]*")))
    }
    needed: dict[str, int] = {}
    trials = [
        one for one in load_study(Record(place / "mlruns"), "reuse").trials() if one.state == "complete"
    ]
    for trial in trials:
        config = TrialConfig.model_validate(trial.config)
        splits = prepared[config.data.digest()].splits
        for part in (splits["train"], splits["val"]):
            key = feature_key(part.manifest, config.feature)
            needed[key] = len(part.manifest)
            if not (place / "cache" / "features" / key / SOURCE).is_file():
                raise RuntimeError(f"trial {trial.number} left no features {key}")
    return needed, len(trials)


def _launch(place: Path, workers: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "HARNESS_CACHE": str(place / "cache")}
    environment.pop("HARNESS_CACHE_SIZE", None)
    command = [
        sys.executable,
        "-P",
        "-m",
        "harness.cli.main",
        "sweep",
        "reuse.yaml",
        "--workers",
        str(workers),
        "--quiet",
    ]
    root = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    return subprocess.Popen(command, cwd=place, env=environment)


def _launch_and_stop(place: Path, workers: int, trials: int) -> int:
    """Stop a launch by the signal of Ctrl-C once so many trials are complete; how many then were."""
    running, deadline = _launch(place, workers), time.monotonic() + HALF_WAY_S
    while (done := _complete(place)) < trials and running.poll() is None:
        if time.monotonic() > deadline:
            running.kill()
            raise RuntimeError(f"{done} of {trials} trials after {HALF_WAY_S:.0f} s")
        time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    if running.wait(HALF_WAY_S) not in (0, 130):
        raise RuntimeError(f"the first launch ended with {running.returncode}")
    return done


def _complete(place: Path) -> int:
    record = Record(place / "mlruns")
    if not record.exists or not record.journal.is_file():
        return 0
    try:
        return sum(trial.state == "complete" for trial in load_study(record, "reuse").trials())
    except (StudyError, KeyError):
        return 0


def _wait(process: subprocess.Popen[bytes]) -> None:
    if process.wait(HALF_WAY_S) != 0:
        raise RuntimeError(f"the resumed launch ended with {process.returncode}")
