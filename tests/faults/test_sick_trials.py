"""Row 20: trainings that take all memory, hang, die or leave children behind fail with a reason; the sweep goes on."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from harness.config.search_space import SearchSpace
from harness.study.ask import halved_batch_size
from tests.faults.small_study import alive, bare_record, children, ill, run, spooled_epochs, sweep
from tests.harness.places.workplace import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

# A step takes milliseconds; the machine that runs this may be busy.
HANG_S = 20.0

# The illness; how the trial that has it ends; what its reason says.
SHORT = {
    "half_fits": ("failed", "out_of_memory: "),
    "forks_and_dies:once": ("complete", ""),
    "exits:once": ("complete", ""),
    "forks": ("complete", ""),
}
FULL = {
    **SHORT,
    "hangs:once": ("complete", ""),
    "never_fits": ("failed", "out_of_memory: "),
    "numpy": ("failed", "out_of_memory: "),
    "python": ("failed", "out_of_memory: "),
    "hangs": ("failed", "hang: no step for 20 s"),
    "spins": ("failed", "hang: no step for 20 s"),
    "forks_and_dies": ("failed", "infrastructure, 3 times: "),
    "exits": ("failed", "infrastructure, 3 times: "),
    "segfaults": ("failed", "infrastructure, 3 times: "),
    "killed": ("failed", "infrastructure, 3 times: "),
    "cuda": ("failed", "infrastructure, 3 times: CUDA error: "),
    "cuda:once": ("complete", ""),
    "raises": ("failed", "configuration: a mistake of the plugin"),
}


@pytest.mark.row(20)
def test_sick_trials_fail_with_their_reason_and_the_sweep_goes_on(
    full: bool, demo_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    measured: Callable[..., None],
) -> None:  # fmt: skip
    illnesses = FULL if full else SHORT
    record, notes = bare_record(tmp_path), tmp_path / "notes"
    ill(monkeypatch, notes, *illnesses)
    too_large = sum(reason.startswith("out_of_memory") for _, reason in illnesses.values())
    count = len(illnesses) + 1  # the last one is well
    study, _ = run(record, demo_cache, sweep(count, budget={"trials": count + too_large}), hang_s=HANG_S)

    trials = study.trials()
    first = {trial.values["dropout"]: trial for trial in trials if "batch_size" not in trial.values}
    smaller = {trial.values["dropout"]: trial for trial in trials if "batch_size" in trial.values}
    told = dict(zip(illnesses, sorted(first.items()), strict=False))
    wrong = [
        f"{illness}: {trial.state}, {trial.reason}"
        for illness, (_, trial) in told.items()
        if trial.state != illnesses[illness][0] or not trial.reason.startswith(illnesses[illness][1])
    ]
    for illness, (dropout, trial) in told.items():
        if illnesses[illness][1].startswith("out_of_memory"):
            again = smaller.pop(dropout)
            ended = "complete" if illness == "half_fits" else "failed"
            right = again.state == ended and again.config["training"]["batch_size"] == 16
            if not (right and "batch_size 16" in trial.reason and f"as trial {trial.number}" in again.reason):
                wrong.append(f"{illness}, smaller: {again.state}, {again.reason}")
    epochs = [spooled_epochs(record, trial) for trial in trials if trial.state == "complete"]
    doubled = sum(one != [0, 1, 2] for one in epochs)
    forked = children(notes)
    wait_for(lambda: not alive(forked), 20)
    measured(
        f"{len(illnesses) - len(wrong)} of {len(illnesses)} failed or came through as promised{wrong or ''}, "
        f"{len(smaller)} tried smaller without need, {doubled} with epochs lost or doubled, "
        f"{len(alive(forked))} of {len(forked)} forked children left",
        holds=not wrong and not smaller and not doubled and len(forked) >= 4 and not alive(forked)
        and first[max(first)].state == "complete" and len(first) == count,
    )  # fmt: skip


@pytest.mark.row(20)
def test_nothing_outlives_a_killed_coordinator(
    full: bool,
    demo_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    measured: Callable[..., None],
) -> None:
    if not full:
        pytest.skip("`make faults` runs it")
    notes = tmp_path / "notes"
    ill(monkeypatch, notes, "forks")
    program = (
        "import sys; from pathlib import Path; from tests.faults.small_study import bare_record, run, sweep\n"
        "run(bare_record(Path(sys.argv[1])), Path(sys.argv[2]), sweep(1, epochs=500))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(demo_cache)])
    wait_for(lambda: len(children(notes)) == 2, 200)
    workers = [child.pid for child in psutil.Process(process.pid).children()]
    process.kill()
    process.wait()
    left = [*workers, *children(notes)]
    deadline = time.monotonic() + 20
    while alive(left) and time.monotonic() < deadline:
        time.sleep(0.1)
    measured(
        f"coordinator killed: {len(alive(left))} of {len(left)} workers and their children left",
        holds=not alive(left) and len(left) == 3,
    )


def test_a_batch_is_halved_within_the_space_and_never_below_two() -> None:
    fixed, searched = SearchSpace(sweep(2)), SearchSpace(sweep(2, parameters={"batch_size": [4, 12, 32]}))
    ranged = SearchSpace(sweep(2, parameters={"batch_size": {"int": [8, 32], "step": 8}}))
    for space, size, windows, half in (
        (fixed, 32, 120, 16), (fixed, 32, 20, 10), (fixed, 3, 120, None), (fixed, 2, 120, None),
        (searched, 32, 120, 12), (searched, 12, 120, 4), (searched, 4, 120, None),
        (ranged, 24, 120, 8), (ranged, 32, 120, 16), (ranged, 8, 120, None),
    ):  # fmt: skip
        config = fixed.config({"batch_size": size})
        assert halved_batch_size(space, config, windows) == half
