"""A long run: thousands of short trials under random kills; memory, handles, disk and latency must stay flat.

    python -m tests.faults.soak --minutes 120 --folder DIR

One sweep of very small trials runs in DIR. Every 15 to 45 s a worker is killed with SIGKILL, every 5 to 10 min the
coordinator, and the same command goes on; also where so many workers died before they were ready that the sweep gave
up. Every 20 s a line of figures goes to DIR/samples.jsonl; at the end a table of their medians by sixths of the time
is printed, and what was lost or doubled.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

SWEEP = """\
name: soak
data: {corpus: demo, train_windows: 240, val_windows: 96, test_windows: 96}
parameters:
  feature: mfcc
  learning_rate: {float: [1e-4, 3e-2], log: true}
  width: 0.125
  epochs: 6
sampler: random
pruner: median
budget: {trials: 20000}
"""
SAMPLE_S = 20.0
GAVE_UP = "error: workers do not start"


class Soak:
    """A sweep that is killed and gone on with until its time is over."""

    def __init__(self, folder: Path, workers: int, seed: int) -> None:
        self.folder, self.workers = folder, workers
        self.rng = random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.told = 0  # characters of out.log that were read
        self.began = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "soak.yaml").write_text(SWEEP, "utf-8")
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """The sweep, from where it stands."""
        command = ["harness.cli.main", "sweep", "soak.yaml", "--workers", str(self.workers), "--quiet"]
        with (self.folder / "out.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", *command], cwd=self.folder, stdout=log, stderr=log
            )

    def run(self, seconds: float) -> None:
        """Kill and sample until the time is over, then stop politely."""
        worker_dies, coordinator_dies = self.soon(15, 45), self.soon(300, 600)
        while (now := time.monotonic()) - self.began < seconds:
            if self.process.poll() is not None:
                self.go_on()
            self.sample()
            if now > worker_dies:
                self.kill_worker()
                worker_dies = self.soon(15, 45)
            if now > coordinator_dies:
                self.process.kill()
                self.process.wait()
                self.kills["coordinator"] += 1
                self.process = self.start()
                coordinator_dies = self.soon(300, 600)
            time.sleep(max(0.0, SAMPLE_S - (time.monotonic() - now)))
        self.process.terminate()
        self.process.wait(timeout=120)

    def go_on(self) -> None:
        """Start again after four workers in a row were killed before they were ready, which ends a sweep."""
        said = (self.folder / "out.log").read_text("utf-8")[self.told :]
        assert GAVE_UP in said, f"the sweep ended with {self.process.returncode}: see out.log"
        self.told += len(said)
        self.kills["gave up"] += 1
        self.process = self.start()

    def soon(self, low: float, high: float) -> float:
        """A drawn moment from now on."""
        return time.monotonic() + self.rng.uniform(low, high)

    def family(self) -> dict[str, list[psutil.Process]]:
        """The processes of the sweep by what they are."""
        found: dict[str, list[psutil.Process]] = {"coordinator": [], "worker": [], "server": []}
        with suppress(psutil.Error):
            coordinator = psutil.Process(self.process.pid)
            found["coordinator"].append(coordinator)
            for child in coordinator.children(recursive=True):
                with suppress(psutil.Error):
                    words = child.cmdline()
                    kind = "worker" if "harness.execution.executors.worker" in words else "server"
                    found[kind].append(child)
        return found

    def kill_worker(self) -> None:
        """Kill one of the workers."""
        if workers := self.family()["worker"]:
            with suppress(psutil.Error):
                self.rng.choice(workers).kill()
                self.kills["worker"] += 1

    def sample(self) -> None:
        """One line of figures: resident memory [MB], open files, disk [MB], spooled trials, trials told."""
        row: dict[str, Any] = {"t": time.monotonic() - self.began}
        for kind, processes in self.family().items():
            with suppress(psutil.Error):
                row[f"{kind}_mb"] = sum(one.memory_info().rss for one in processes) / 1e6
                row[f"{kind}_files"] = sum(one.num_fds() for one in processes)
                row[f"{kind}_cpu_s"] = sum(sum(one.cpu_times()[:2]) for one in processes)
        record = self.folder / "mlruns"
        row["disk_mb"] = disk_bytes(record) / 1e6
        row["spooled"] = sum(1 for _ in record.glob("spool/soak/*"))
        row["age_s"] = time.time() - psutil.Process(self.process.pid).create_time()
        with (self.folder / "samples.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def disk_bytes(folder: Path) -> int:
    """Bytes of the files in a folder that others write."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(root) / name).stat().st_size
    return total


def summary(folder: Path) -> str:
    """The curves as a table of medians, each column a sixth of the time; then what was lost or doubled."""
    from harness.study.storage.record import Record
    from harness.study.study import load_study
    from harness.tracking.experiment import connect
    from harness.tracking.server.server import TrackingServer

    record = Record(folder / "mlruns")
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text("utf-8").splitlines()]
    trials = load_study(record, "soak").optuna_study.get_trials(deepcopy=False)
    first = min(trial.datetime_start for trial in trials if trial.datetime_start)
    end = samples[-1]["t"]
    took: list[tuple[float, float]] = []
    for trial in trials:
        if trial.datetime_start and trial.datetime_complete:
            took.append(((trial.datetime_start - first).total_seconds(), trial.duration.total_seconds()))  # type: ignore[union-attr]
    lines = [f"{'':22}" + "".join(f"{sixth * end / 360:8.0f} min" for sixth in range(1, 7))]
    keys = [key for key in samples[-1] if key not in ("t", "age_s") and not key.endswith("_cpu_s")]
    for key in keys:
        rows = [(row["t"], row[key]) for row in samples if key in row and row["age_s"] > 60]
        lines.append(f"{key:22}" + "".join(f"{value:12.1f}" for value in by_sixth(rows, end)))
    lines.append(f"{'seconds a trial':22}" + "".join(f"{value:12.2f}" for value in by_sixth(took, end)))
    told = Counter(sixth_of(when + seconds, end) for when, seconds in took)
    for key in ("coordinator_cpu_s", "server_cpu_s"):  # unlike wall time, hardly the neighbours'
        spent = spent_by_sixth(samples, key, end)
        costs = [1000 * spent[sixth] / max(1, told[sixth]) for sixth in range(6)]
        lines.append(
            f"{key.removesuffix('_s') + ' ms a trial':22}" + "".join(f"{cost:12.0f}" for cost in costs)
        )
    states = Counter(trial.state.name for trial in trials)
    with TrackingServer(record) as server:
        client = connect(server.uri)
        experiment = client.get_experiment_by_name("soak")
        assert experiment is not None
        runs, token = [], None
        while token != "":
            page = client.search_runs(
                [experiment.experiment_id],
                "tags.`harness.kind` = 'trial'",
                max_results=1000,
                page_token=token,
            )
            runs += list(page)
            token = page.token or ""
    numbers = Counter(run.data.tags["harness.trial"] for run in runs)
    status = Counter(run.info.status for run in runs)
    lines.append(
        f"trials {dict(states)}; runs {dict(status)}; doubled {sum(n > 1 for n in numbers.values())}"
    )
    return "\n".join(lines)


def sixth_of(when: float, end: float) -> int:
    """In which sixth of the time a moment lies, 0 to 5."""
    return min(5, int(6 * when / end))


def spent_by_sixth(samples: list[dict[str, Any]], key: str, end: float) -> list[float]:
    """CPU seconds of a kind of process in each sixth; what was spent while one was replaced is not known."""
    spent = [0.0] * 6
    for before, after in pairwise(samples):
        if after["age_s"] > before["age_s"] and key in before and key in after:
            spent[sixth_of(after["t"], end)] += max(0.0, after[key] - before[key])
    return spent


def by_sixth(rows: list[tuple[float, float]], end: float) -> list[float]:
    """Median of the values in each sixth of the time."""
    parts: list[list[float]] = [[] for _ in range(6)]
    for when, value in rows:
        parts[sixth_of(when, end)].append(value)
    return [statistics.median(part) if part else float("nan") for part in parts]


def main() -> None:
    """Run, then print the table."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--minutes", type=float, default=120.0)
    words.add_argument("--folder", type=Path, required=True)
    words.add_argument("--workers", type=int, default=2)
    words.add_argument("--seed", type=int, default=1)
    given = words.parse_args()
    print(f"seed {given.seed}, {datetime.now().astimezone():%H:%M}", flush=True)
    soak = Soak(given.folder, given.workers, given.seed)
    try:
        soak.run(given.minutes * 60)
    finally:
        soak.process.kill()
    print(f"kills {dict(soak.kills)}")
    print(summary(given.folder))


if __name__ == "__main__":
    main()
