"""Many workers, kills of workers and of the coordinator: the budget is spent exactly."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import small_study
from tests.faults.killer import Killer
from tests.faults.sweeps import Place, Warm, found_in, sweep_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


@pytest.mark.row(19)
def test_a_budget_is_spent_exactly(
    full: bool, seed: int, rng: random.Random, tmp_path: Path, place_of: Place, warm: Warm,
    measured: Callable[..., None],
) -> None:  # fmt: skip
    rounds, workers, trials, wanted = (20, 8, 12, 6) if full else (1, 4, 5, 2)
    exact = kills = coordinators = 0
    for number in range(rounds):
        place = place_of(tmp_path / str(number), sweep_of(trials, 4))
        sweep = warm.sweep(place, workers=workers)
        killer = Killer(place, sweep, rng)
        killer.kill(wanted)
        kills += killer.kills
        if full and sweep.lives(rng.uniform(0, 4)):
            sweep.kill()
            coordinators += sweep.wait() == -9
            sweep = warm.sweep(place, workers=workers)
        assert sweep.wait(1200) == 0, sweep.said
        found = found_in(place)
        exact += len(found.trials) == len(found.runs) == trials and found.finished and not found.running
        shutil.rmtree(place.folder)
    measured(
        f"exactly {trials} trials in {exact} of {rounds} sweeps of {workers} workers, {kills} workers and "
        f"{coordinators} coordinators killed (seed {seed})",
        holds=exact == rounds and kills > 0,
    )


def test_a_spent_space_ends_the_study(tmp_path: Path, demo_cache: Path) -> None:
    few = {"width": 0.0625, "epochs": 1, "learning_rate": {"choice": [0.003, 0.01]}}
    definition = small_study.sweep(20, sampler="random", parameters=few)
    study, _ = small_study.run(small_study.bare_record(tmp_path), demo_cache, definition, workers=2)
    trials = study.trials()
    complete = [trial for trial in trials if trial.state == "complete"]
    assert len(complete) == len({trial.fingerprint for trial in complete}) == 2
    scores = {trial.number: trial.score for trial in complete}
    for trial in trials:
        if trial.state == "duplicate":
            assert "the same configuration as trial" in trial.reason
            assert trial.score in scores.values()
