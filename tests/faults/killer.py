"""Kills workers of a running sweep at drawn moments."""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.execution.runs.retries import MAX_RETRIES
from tests.faults.sweeps import Running, acknowledged
from tests.harness.places.workplace import Workspace


@dataclass
class Killer:
    """Kills workers of a running sweep at drawn moments, so that no training dies more often than it is tried again.

    A training that comes no further may be tried `MAX_RETRIES` times, and a sweep stops when four workers in a row die
    before they are ready: with such kills every sweep ends. Others are drawn.
    """

    place: Workspace
    running: Running
    rng: random.Random
    pause_s: float = 1.0
    kills: int = 0

    def kill(self, wanted: int) -> None:
        """Kill so many workers, or as many as the sweep lives for."""
        fruitless: Counter[tuple[int, int]] = Counter()
        starting, last = 0, 0.0  # kills of starting workers since one that was born after them began a trial
        while self.kills < wanted and self.running.code is None:
            time.sleep(self.rng.uniform(0, self.pause_s))
            epochs = set(acknowledged(self.place))
            victims = {worker: _trained_by(worker) for worker in self.running.workers()}
            if not victims:
                continue
            if any(trial is not None and _born(worker) > last for worker, trial in victims.items()):
                starting = 0
            victim, trial = self.rng.choice(list(victims.items()))
            reached = sum(number == trial for number, _ in epochs)
            if trial is None:
                allowed = starting < MAX_RETRIES and time.time() - _born(victim) < 1.0  # it imports still
            else:
                allowed = fruitless[trial, reached] < MAX_RETRIES
            if not allowed:
                continue
            with suppress(psutil.Error):
                victim.kill()
                self.kills += 1
                if trial is None:
                    starting, last = starting + 1, time.time()
                else:
                    fruitless[trial, reached] += 1


def _born(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        return float(process.create_time())
    return 0.0


def _trained_by(worker: psutil.Process) -> int | None:
    """Number of the trial whose lease a worker holds."""
    with suppress(psutil.Error):
        for file in worker.open_files():
            path = Path(file.path)
            if path.name == "lease.lock" and path.parent.name.isdecimal():
                return int(path.parent.name)
    return None
