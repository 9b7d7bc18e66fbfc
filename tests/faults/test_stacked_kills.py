"""A coordinator killed in the midst of a stack: its trials end as those of a sweep without stacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.sweeps import Place, Warm, acknowledged, begun, found_in, stored_epochs
from tests.harness.places.workplace import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SWEEP = """\
name: tiny
data: {{corpus: demo, train_windows: 120, val_windows: 96, test_windows: 96}}
parameters: {{learning_rate: {{float: [3e-4, 3e-3], log: true}}, weight_decay: [0.0, 0.05], width: 0.0625, epochs: 3}}
sampler: random
pruner: none
budget: {{trials: 4}}
stack: {stack}
"""


def test_a_killed_stack_goes_on_and_every_epoch_is_stored_once(
    full: bool, tmp_path: Path, place_of: Place, warm: Warm
) -> None:
    place = place_of(tmp_path / "stacked", SWEEP.format(stack=4))
    launch = warm.sweep(place)
    wait_for(lambda: launch.code is not None or len(acknowledged(place)) > 4, 400)
    launch.kill()
    assert launch.wait() == -9
    before = acknowledged(place)
    launch = warm.sweep(place)
    assert launch.wait() == 0, launch.said
    found = found_in(place)
    assert (found.lost, found.doubled, found.running, found.epochs) == (0, 0, 0, 12)
    assert found.finished
    assert before.items() <= acknowledged(place).items()
    if not full:
        return
    plain = place_of(tmp_path / "plain", SWEEP.format(stack=1))
    assert warm.sweep(plain).wait() == 0
    for one, other in zip(begun(place), begun(plain), strict=True):
        assert one.values == other.values
        assert one.outcome["best_epoch"] == other.outcome["best_epoch"]
        assert one.score == pytest.approx(other.score, abs=2e-2)
    for (*at, value), (*wanted_at, wanted) in zip(stored_epochs(place), stored_epochs(plain), strict=True):
        assert (at, value) == (wanted_at, pytest.approx(wanted, abs=2e-2))
