"""Row 16: a signal, whatever the sweep is doing: out in seconds, nothing shown as running, and the same command goes on."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.core.failpoints import ONCE, VARIABLE
from harness.study.study import StudyError, load_study
from tests.faults.sweeps import Place, Running, Warm, found_in, outcomes, statuses, stored_epochs, undisturbed
from tests.harness.places.workplace import SWEEP, Workspace, epochs_spooled, running_children, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

EPOCHS = 14
ONE = SWEEP.replace("epochs: 5", f"epochs: {EPOCHS}").replace("trials: 3", "trials: 1")
SIGNALS = {"INT": signal.SIGINT, "TERM": signal.SIGTERM, "HUP": signal.SIGHUP, "double INT": signal.SIGINT}
# Where the sweep is held, so that the signal finds it there; a training takes long enough by itself.
PHASES = {
    "train": "",
    "log": "tracking.artifacts_stored",
    "artifact": "worker.outputs",
    "idle": "study.described",
}
SHORT = (("INT", "train"), ("TERM", "log"), ("HUP", "artifact"), ("double INT", "idle"))
# What a first signal may take beside a step, in seconds; a busy machine, as in the short form, is given more.
PROMISED_S, BUSY_S = 5.0, 40.0


def running(place: Workspace) -> int:
    """Trials and runs that are shown as running."""
    try:
        trials = load_study(place.record, "tiny").optuna_study.get_trials(deepcopy=False)
    except StudyError:  # it was stopped before there was one
        return 0
    shown = [trial.state.name for trial in trials] + [status for _, status in statuses(place)]
    return shown.count("RUNNING")


def whole(place: Workspace) -> bool:
    """Whether the one trial has its one run, of every epoch once."""
    epochs = sorted(epoch for _, epoch, _ in stored_epochs(place))
    return found_in(place).finished and epochs == list(range(EPOCHS))


def stopped(warm: Warm, place: Workspace, name: str, phase: str) -> tuple[int, float, str]:
    """Start a sweep, signal it in this phase; its exit code, the seconds it took, what it said."""
    there = place.folder / "there"
    held = {VARIABLE: f"{PHASES[phase]}:1:sleep", ONCE: str(there)} if PHASES[phase] else {}
    launch = warm.start(place, "sweep", "tiny.yaml", "--workers", "1", **held)
    with ended(launch):
        come = there.exists if held else lambda: epochs_spooled(place) >= 2
        wait_for(lambda: come() or launch.code is not None, 200)
        assert launch.code is None, launch.said
        began = time.monotonic()
        os.kill(launch.pid, SIGNALS[name])
        if name.startswith("double"):
            time.sleep(0.3)
            with contextlib.suppress(ProcessLookupError):  # there was nothing to wait for
                os.kill(launch.pid, SIGNALS[name])
        code = launch.wait(100)
        return code, time.monotonic() - began, launch.said


@contextlib.contextmanager
def ended(launch: Running) -> Iterator[None]:
    """Whatever fails in the block, the process does not stay."""
    try:
        yield
    finally:
        if launch.code is None:
            launch.kill()


@pytest.mark.row(16)
def test_a_signal_stops_cleanly_wherever_the_sweep_is(
    full: bool, seed: int, tmp_path: Path, common: Path, own_server: Place, place_of: Place, warm: Warm,
    measured: Callable[..., None],
) -> None:  # fmt: skip
    cases = [(name, phase) for name in SIGNALS for phase in PHASES] if full else list(SHORT)
    resumed = cases if full else random.Random(seed).sample(cases, 1)
    limit = PROMISED_S if full else BUSY_S
    expected = undisturbed(common, own_server, warm, ONE) if full else []
    wrong, slowest = [], 0.0
    for number, (name, phase) in enumerate(cases):
        make = own_server if full or phase == "train" else place_of
        place = make(tmp_path / str(number), ONE)
        code, seconds, said = stopped(warm, place, name, phase)
        slowest = max(slowest, seconds)
        faults = {
            f"exit code {code}": code != 128 + SIGNALS[name],
            f"{seconds:.1f} s": seconds > limit,
            f"said {said}": "Traceback" in said
            or not (name.startswith("double") or "go on" in said or "goes on" in said),
        }
        deadline = time.monotonic() + 20
        while running_children(place) and time.monotonic() < deadline:
            time.sleep(0.1)
        faults["processes stay"] = bool(running_children(place))
        if name.startswith("double") and phase != "idle":  # it left at once: the reconciler cleans
            warm.reconcile(place)
        faults[f"{running(place)} running"] = running(place) > 0
        if (name, phase) in resumed:
            assert warm.sweep(place).wait() == 0
            faults["lost or doubled"] = not whole(place)
            if full:
                faults["another result"] = outcomes(place) != expected
        wrong += [f"{name} x {phase}: {fault}" for fault, there in faults.items() if there]
    spoilt = {text.split(":")[0] for text in wrong}
    measured(
        f"{len(cases) - len(spoilt)} of {len(cases)} stopped as promised, the slowest in {slowest:.1f} s, "
        f"{len(resumed)} gone on with (seed {seed}){wrong or ''}",
        holds=not wrong,
    )
