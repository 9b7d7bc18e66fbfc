"""Killed at every named point, the reconciler's included; what is reconciled twice is not changed by the second time."""

from __future__ import annotations

import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults.sweeps import (
    Place,
    Running,
    Warm,
    acknowledged,
    dump,
    found_in,
    outcomes,
    sweep_of,
    undisturbed,
)
from tests.harness.places.workplace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

SWEEP = sweep_of(3, 6)
# In the process that asks, tells and logs.
COORDINATOR = (
    "study.created", "study.described", "coordinator.asked", "coordinator.started", "coordinator.attempt",
    "coordinator.dispatched", "coordinator.reported", "coordinator.outcome", "coordinator.told", "coordinator.verdict",
    "tracking.run_created", "tracking.described", "tracking.epochs_stored", "tracking.artifacts_stored",
    "tracking.tagged", "tracking.ended", "spool.removing", "writer.stored", "writer.complete", "writer.removed",
    "launch.closing",
)  # fmt: skip
# In a finite space, which is walked: what comes next is put into the study before it is asked for.
WALKED = sweep_of(3, 6, "grid").replace("{float: [1e-3, 1e-2], log: true}", "[0.003, 0.005, 0.01]")
QUEUED = "coordinator.queued"
OTHER_ROWS = ("record.", "promote.", "promotion.", "swap.", "rollback.", "confirmation ")
WORKER = ("worker.begins", "worker.spooled", "worker.acknowledged", "worker.outputs", "worker.outcome")
# Where the reconciler dies, and where the sweep died before it, so that it comes there.
RECONCILER = {
    "reconciler.repaired": "coordinator.told",
    "reconciler.given_up": "coordinator.asked",
    "reconciler.paused": "tracking.epochs_stored",
    "reconciler.ended": "tracking.epochs_stored",
    "reconciler.stored": "coordinator.verdict",
    "tracking.tagged": "coordinator.verdict",
    "spool.removing": "coordinator.verdict",
}


@dataclass
class Wrecks:
    """A study that is killed again and again at named points, and what was seen."""

    warm: Warm
    place: Workspace
    kills: Counter[str] = field(default_factory=Counter)
    reconciled: int = 0
    unchanged: int = 0

    def kill_at(self, point: str) -> None:
        """Start the sweep, which dies at this point the first time that it comes there; or ends before."""
        code = self._sweep(point).wait()
        self.kills[point] += code == -9
        assert code in (0, -9), (point, code)

    def kill_workers_at(self, point: str, times: int) -> None:
        """Let workers die at this point, once after each new epoch, while the sweep goes on to its end."""
        marker = self.place.folder / f"{point}.once"
        sweep, known = self._sweep(point, HARNESS_FAILPOINT_ONCE=str(marker)), -1
        for _ in range(times):
            while sweep.lives(0.05) and not (marker.exists() and len(acknowledged(self.place)) > known):
                pass
            if marker.exists() and sweep.code is None:
                known = len(acknowledged(self.place))
                self.kills[point] += 1
                if self.kills[point] < times:
                    marker.unlink()
        assert sweep.wait() == 0, sweep.said

    def reconcile(self, killed_at: str | None = None) -> None:
        """Reconcile until nothing is left to do, dying at a point first; once more changes nothing."""
        if killed_at is not None:
            code = self.warm.start(
                self.place, "reconcile", str(self.place.record.root), "tiny", HARNESS_FAILPOINT=f"{killed_at}:1:kill"
            ).wait()  # fmt: skip
            self.kills[killed_at] += code == -9
        self.warm.reconcile(self.place)
        before = dump(self.place)
        assert self.warm.reconcile(self.place) == []
        self.reconciled += 1
        self.unchanged += dump(self.place) == before

    def _sweep(self, point: str, **extra: str) -> Running:
        return self.warm.sweep(self.place, HARNESS_FAILPOINT=f"{point}:1:kill", **extra)


def test_every_point_of_the_sources_is_killed_at(root: Path) -> None:
    sources = [path.read_text("utf-8") for path in sorted((root / "harness").rglob("*.py"))]
    named = {name for text in sources for name in re.findall(r'\bfailpoint\("([^"]+)"\)', text)}
    here = {name for name in named if not name.startswith(OTHER_ROWS)}
    assert here == {*COORDINATOR, QUEUED, *WORKER, *RECONCILER}


@pytest.mark.row(2)
def test_killed_at_named_points(
    full: bool, seed: int, rng: random.Random, tmp_path: Path, common: Path, place_of: Place, warm: Warm,
    measured: Callable[..., None],
) -> None:  # fmt: skip
    times = 3 if full else 1
    plans: list[list[tuple[str, ...]]] = [
        *([(point,)] * times for point in (*COORDINATOR, QUEUED)),
        *([(point, at)] * times for at, point in RECONCILER.items()),
        *([("", point)] for point in WORKER),
    ]
    if not full:  # a sweep, a reconciler and a worker, in one study
        at, point = rng.choice(list(RECONCILER.items()))
        plans = [[(point, at), ("", rng.choice(WORKER))]]
    kills: Counter[str] = Counter()
    reconciled = unchanged = wrong = 0
    for number, plan in enumerate(plans):
        sweep = WALKED if plan[0][0] == QUEUED else SWEEP
        expected = undisturbed(common, place_of, warm, sweep)
        wrecks = Wrecks(warm, place_of(tmp_path / str(number), sweep))
        for point, *rest in plan:
            if point == "":
                wrecks.kill_workers_at(rest[0], times)
            else:
                wrecks.kill_at(point)
                if not point.startswith("study."):  # before that there is no study
                    wrecks.reconcile(*rest)
        assert warm.sweep(wrecks.place).wait() == 0
        wrecks.reconcile()
        found = found_in(wrecks.place)
        sound = found.finished and not found.lost + found.doubled + found.running
        wrong += not (sound and outcomes(wrecks.place) == expected)
        kills += wrecks.kills
        reconciled, unchanged = reconciled + wrecks.reconciled, unchanged + wrecks.unchanged
        shutil.rmtree(wrecks.place.folder)
    missed = sorted({point for plan in plans for step in plan for point in step if point} - set(+kills))
    measured(
        f"{sum(kills.values())} kills at {len(+kills)} points, {wrong} of {len(plans)} studies not as undisturbed; "
        f"reconciling twice changed nothing {unchanged} of {reconciled} times (seed {seed})",
        holds=not wrong and unchanged == reconciled and not missed,
    )


@pytest.mark.row(3)
def test_a_launch_killed_at_its_very_end_is_shown_as_ended_by_the_next_which_has_nothing_to_do(
    tmp_path: Path, place_of: Place, own_server: Place, warm: Warm, measured: Callable[..., None]
) -> None:
    left, finished = [], True
    for name, made in (("team", place_of), ("own", own_server)):
        wrecks = Wrecks(warm, made(tmp_path / name, sweep_of(1, 1)))
        wrecks.kill_at("launch.closing")
        assert wrecks.kills.total() == found_in(wrecks.place).running == 1
        assert warm.sweep(wrecks.place).wait() == 0
        found = found_in(wrecks.place)
        left.append(found.running)
        finished &= found.finished
    measured(
        f"killed when all was stored, the next launch having nothing to do: {sum(left)} left running of {len(left)}",
        holds=finished and not any(left),
    )
