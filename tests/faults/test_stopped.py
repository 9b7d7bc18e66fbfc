"""Row 15: a worker, and then the coordinator, stopped by SIGSTOP and woken: nothing is tried twice, nothing dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from harness.execution.executors.local import HANG
from harness.study.study import load_study
from tests.faults.sweeps import Place, Warm, found_in, stored_epochs, sweep_of
from tests.harness.places.workplace import epochs_spooled, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

TRIALS = 2


def stop_for(pids: list[int], seconds: float) -> None:
    """Stop processes, and wake them one by one."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    for pid in pids:
        with suppress(ProcessLookupError):  # taken for hung, and killed
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.5)


@pytest.mark.row(15)
def test_a_stopped_worker_and_a_stopped_coordinator_go_on(
    full: bool, tmp_path: Path, own_server: Place, place_of: Place, warm: Warm, measured: Callable[..., None]
) -> None:
    seconds, epochs = (30.0, 60) if full else (4.0, 24)
    place = (own_server if full else place_of)(tmp_path / "stopped", sweep_of(TRIALS, epochs))
    # Patience shorter than the stop of both: the coordinator must not take its own sleep for the worker's.
    launch = warm.sweep(place, **{HANG: str(2 * seconds)})
    try:
        wait_for(lambda: epochs_spooled(place) >= 2, 200)
        before = [worker.pid for worker in launch.workers()]
        stop_for(before, seconds)
        wait_for(lambda: epochs_spooled(place) >= 5, 200)
        stop_for([launch.pid], seconds)
        stop_for([launch.pid, *before], 3 * seconds)
        same = [worker.pid for worker in launch.workers()] == before
        code = launch.wait(300)
    finally:
        launch.kill()
    trials = load_study(place.record, "tiny").optuna_study.get_trials(deepcopy=False)
    retried = sum("retries" in trial.user_attrs for trial in trials)
    found, stored = found_in(place), stored_epochs(place)
    missing = TRIALS * epochs - len({(trial, epoch) for trial, epoch, _ in stored})
    crashed = int(code != 0) + sum(trial.state.name != "COMPLETE" for trial in trials)
    measured(
        f"a worker stopped {seconds:.0f} s, the coordinator {seconds:.0f} s, both {3 * seconds:.0f} s: {retried} trials "
        f"tried twice, {found.doubled} epochs doubled, {missing} missing, {crashed} crashes{launch.said if crashed else ''}",
        holds=same
        and len(before) == 1
        and found.finished
        and not retried + found.doubled + missing + crashed,
    )
