"""Workers and coordinators killed at drawn moments: what was acknowledged is kept, once."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.killer import Killer
from tests.faults.sweeps import Place, Warm, acknowledged, found_in, outcomes, sweep_of, undisturbed
from tests.harness.places.workplace import running_children, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.row(1)
def test_killed_workers_lose_and_double_nothing(
    full: bool, seed: int, rng: random.Random, tmp_path: Path, common: Path, place_of: Place, warm: Warm,
    measured: Callable[..., None],
) -> None:  # fmt: skip
    sweep, wanted = (sweep_of(8, 30), 200) if full else (sweep_of(2, 6), 3)
    expected = undisturbed(common, place_of, warm, sweep)
    kills = lost = doubled = running = epochs = sweeps = 0
    sound = True
    while kills < wanted:
        place = place_of(tmp_path / str(sweeps), sweep)
        running_sweep = warm.sweep(place, workers=2)
        killer = Killer(place, running_sweep, rng)
        killer.kill(wanted - kills)
        assert running_sweep.wait(1200) == 0, running_sweep.said
        found = found_in(place)
        kills, sweeps, epochs = kills + killer.kills, sweeps + 1, epochs + found.epochs
        lost, doubled, running = lost + found.lost, doubled + found.doubled, running + found.running
        sound &= found.finished and outcomes(place) == expected
        shutil.rmtree(place.folder)
    measured(
        f"{kills} kills in {sweeps} sweeps of {len(expected)} trials, {epochs} epochs acknowledged: {lost} lost, "
        f"{doubled} doubled, {running} left running; every configuration ended as undisturbed: "
        f"{'yes' if sound else 'no'} (seed {seed})",
        holds=kills >= wanted and sound and not lost + doubled + running,
    )


@pytest.mark.row(3)
def test_a_killed_coordinator_loses_and_repeats_nothing(
    full: bool, seed: int, rng: random.Random, tmp_path: Path, common: Path, place_of: Place, own_server: Place,
    warm: Warm, measured: Callable[..., None],
) -> None:  # fmt: skip
    sweep, wanted, longest_s = (
        (sweep_of(14, 30, "{type: tpe, startup_trials: 3}"), 20, 3.0) if full else (sweep_of(3, 6), 2, 0.7)
    )
    expected = undisturbed(common, place_of, warm, sweep)
    place = (own_server if full else place_of)(tmp_path / "killed", sweep)
    kills = backward = 0
    seen: set[tuple[int, int]] = set()
    while kills < wanted:
        launch = warm.sweep(place)
        known = len(acknowledged(place))
        wait_for(lambda: launch.code is not None or len(acknowledged(place)) > known, 400)  # noqa: B023
        if not launch.lives(rng.uniform(0, longest_s)):
            assert launch.code == 0, launch.said
            break
        launch.kill()
        assert launch.wait() == -9
        kills += 1
        now = set(acknowledged(place))
        backward += not seen < now
        seen = now
    assert warm.sweep(place).wait(1200) == 0
    wait_for(lambda: running_children(place) == [], 30)
    found = found_in(place)
    same = outcomes(place) == expected
    measured(
        f"{kills} kills of the coordinator, {found.epochs} epochs acknowledged: {found.lost} lost, {found.doubled} "
        f"doubled, {found.running} left running{found.left and f' ({found.left})'}, {backward} "
        "times no progress; the trials of an undisturbed run, bit for bit: "
        f"{'yes' if same else 'no'} (seed {seed})",
        holds=kills >= wanted
        and same
        and found.finished
        and not found.lost + found.doubled + found.running + backward,
    )
