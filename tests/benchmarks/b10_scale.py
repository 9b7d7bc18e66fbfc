"""B10: what a study of 10,000 trials costs: ask and tell, reopening, status, report, promote's choice, memory.

Every trial goes through the real coordinator, Optuna journal and spool; a synthetic executor answers at once. The
study grows by the random sampler; at each size the next trials are asked of TPE, and those are measured. MLflow is
left out of the 10,000 (its share of a trial does not depend on their number, and is B2's and B9's).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil

from harness.config.sweep import Sweep
from harness.execution.data_gate import DataInspection
from harness.study.storage.record import Record
from harness.study.study import Study, open_study
from tests.benchmarks.records import empty_record
from tests.benchmarks.result import Result, judged
from tests.benchmarks.rounds import Estimate, median_estimate
from tests.benchmarks.scale import Scale
from tests.benchmarks.synthetic import coordinate, prepared_for, sweep_of

# In a process of its own: what a command of a person's meets. Seconds, after the imports.
OPENED = """\
import json, resource, sys, time
from pathlib import Path
import optuna, harness.config.sweep, harness.study.storage.journal_reader
from harness.study.choose_trial import choose_trial
from harness.study.storage.record import Record
from harness.study.study import load_study
began = time.perf_counter(); study = load_study(Record(Path(sys.argv[1])), "scale")
opened = time.perf_counter(); choose_trial(study, None)
chosen = time.perf_counter(); peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
trials = len(study.optuna_study.get_trials(deepcopy=False))
print(json.dumps({"open_s": opened - began, "choose_s": chosen - opened, "peak_mb": peak, "trials": trials}))
"""


@dataclass(frozen=True)
class Point:
    """Costs at a size. ask_ms, tell_ms: medians of the probes; rss_mb: of the coordinator; the rest in seconds."""

    trials: int
    ask_tell: Estimate
    ask_ms: float
    tell_ms: float
    trial_ms: float
    rss_mb: float
    open_s: Estimate
    choose_s: float
    reader_mb: float

    def as_json(self) -> dict[str, Any]:
        """Plain values for results.json."""
        return {
            "trials": self.trials, "ask_tell_ms": self.ask_tell.value, "ask_ms": self.ask_ms, "tell_ms": self.tell_ms,
            "trial_ms": self.trial_ms, "rss_mb": self.rss_mb, "reopen_s": self.open_s.value,
            "choose_s": self.choose_s, "reader_peak_mb": self.reader_mb,
        }  # fmt: skip


def run(scale: Scale, place: Path) -> list[Result]:
    """Grow one study, and measure it at every size."""
    sizes, probes = scale.of(([1_000, 2_000, 5_000, 10_000], 40), ([40, 80], 5))
    record = empty_record(place / "mlruns")
    inspections = prepared_for(sweep_of(sizes[-1]), place)
    study = open_study(record, sweep_of(sizes[-1]))
    points = []
    try:
        study.check_manifests({one.prepared.config.digest(): one.digests for one in inspections})
        study.describe([one.described() for one in inspections], {}, [])
        for size in sizes:
            _grow(study, record, inspections, place, size - probes)
            points.append(_point(study, record, inspections, place, size))
    finally:
        study.release()
    status, report = _command(place, "status", "scale"), _command(place, "report", "scale")
    return _results(points, status, report, scale)


def _with(sweep: Sweep, trials: int, sampler: str) -> Sweep:
    budget, kind = sweep.budget.model_copy(update={"trials": trials}), {"type": sampler}
    return sweep.model_copy(update={"budget": budget, "sampler": sweep.sampler.model_copy(update=kind)})


def _grow(study: Study, record: Record, inspections: list[DataInspection], place: Path, size: int) -> None:
    """Not measured, so nothing waits for the disk: that would be most of it."""
    study.sweep = _with(study.sweep, size, "random")
    with mock.patch.object(os, "fsync", return_value=None):
        coordinate(study, record, inspections, place / "cache")[0].run()


def _point(study: Study, record: Record, inspections: list[DataInspection], place: Path, size: int) -> Point:
    study.sweep = _with(study.sweep, size, "tpe")
    coordinator, trials = coordinate(study, record, inspections, place / "cache")
    asks, tells = _timed(trials.asker, "next"), _timed(trials, "_tell")
    before = time.perf_counter()
    coordinator.run()
    trial_s = (time.perf_counter() - before) / len(tells)
    found = [1e3 * (ask + tell) for ask, tell in zip(asks, tells, strict=False)]  # the last ask has no answer
    opened = [_opened(place) for _ in range(3 if size >= 1_000 else 1)]
    if any(one["trials"] != size for one in opened):
        raise RuntimeError(f"reopened with {opened[0]['trials']} trials, not {size}")
    return Point(
        size, median_estimate(found), 1e3 * float(np.median(asks)), 1e3 * float(np.median(tells)), 1e3 * trial_s,
        psutil.Process().memory_info().rss / 1e6, median_estimate([one["open_s"] for one in opened]),
        float(np.median([one["choose_s"] for one in opened])), max(one["peak_mb"] for one in opened),
    )  # fmt: skip


def _timed(owner: Any, name: str) -> list[float]:
    """Seconds of every later call of a method of this object."""
    call, seconds = getattr(owner, name), []

    def timed(*arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return call(*arguments)
        finally:
            seconds.append(time.perf_counter() - began)

    setattr(owner, name, timed)
    return seconds


def _opened(place: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", OPENED, str(place / "mlruns")]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(said)
    return found


def _command(place: Path, *words: str) -> tuple[float, str]:
    """Seconds of a command of ours, its start included, and why it failed."""
    began = time.perf_counter()
    command = [sys.executable, "-P", "-m", "harness.cli.main", *words, "--record", str(place / "mlruns")]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    return time.perf_counter() - began, done.stderr.strip()[-300:] if done.returncode else ""


def _results(
    points: list[Point], status: tuple[float, str], report: tuple[float, str], scale: Scale
) -> list[Result]:
    first, last = points[0], points[-1]
    curve = "; ".join(
        f"{one.trials}: ask+tell {one.ask_tell.value:.0f} ms (the whole trial with its 5 epochs and attributes "
        f"{one.trial_ms:.0f}), reopen {one.open_s.value:.2f} s, {one.rss_mb:.0f} MB"
        for one in points
    )
    told = [
        f"{name} {seconds:.1f} s" + (f" (failed: {why})" if why else "")
        for name, (seconds, why) in {"status": status, "report": report}.items()
    ]
    kb = 1e3 * (last.rss_mb - first.rss_mb) / (last.trials - first.trials)
    notes = (
        curve, f"at {last.trials} trials: {', '.join(told)}, promote's choice {1e3 * last.choose_s:.0f} ms",
        "the harness's TPE, which is shown at most 1,000 of the trials; one worker; the study grew by random trials, "
        "nothing of which was synced to the disk; MLflow is left out (a trial's share of it: B2, B9)", *scale.notes,
    )  # fmt: skip
    details = {
        "curve": [one.as_json() for one in points], "status_s": status[0], "report_s": report[0],
        "failed": [why for _, why in (status, report) if why],
    }  # fmt: skip
    count = f"{last.trials:,} trials"
    return [
        judged("B10", f"ask + tell at {count}, TPE", last.ask_tell, unit="ms", target="<= 120", notes=notes,
               details=details),
        judged("B10 reopen", f"reopening a study of {count}", last.open_s, unit="s", target="<= 0.3",
               notes=("reading and splitting the lines, orjson, applying them: about 1 : 3 : 4", *scale.notes)),
        judged("B10 memory", "memory of the coordinator, a trial more", kb, unit="kB",
               notes=("not flat: Optuna keeps every trial in memory", *scale.notes)),
    ]  # fmt: skip
