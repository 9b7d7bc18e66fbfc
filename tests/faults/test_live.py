"""While a sweep lives nobody else touches its study; and a clock that was set back changes nothing of its order."""

import contextlib
import json
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from harness.maintenance.doctor import machine_checks
from harness.study.storage.mlflow_schema import read_only_connection
from harness.study.storage.record import Record
from tests.faults.conftest import FULL
from tests.harness.places.workplace import (
    Workspace,
    before_others,
    epochs_spooled,
    running_children,
    trial_is_stored,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

EPOCHS = 24
ONE_LONG = f"""\
name: tiny
data: {{corpus: demo, train_windows: 120, val_windows: 96, test_windows: 96}}
parameters: {{feature: mfcc, width: 0.0625, epochs: {EPOCHS}}}
sampler: random
pruner: none
budget: {{trials: 1}}
"""
DAY_S = 86_400
POINTER = f"outs:\n- md5: {'0' * 32}.dir\n  size: 1\n  nfiles: 1\n  hash: md5\n  path: mlruns\n"


@dataclass
class Lived:
    """A sweep that others disturbed: how often, who was let in, what they changed; stopped, to go on with."""

    place: Workspace
    intruders: int = 0
    let_in: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    left: list[list[str]] = field(default_factory=list)
    trials: list[dict] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    named: bool = True


@pytest.fixture(scope="module")
def lived(
    tmp_path_factory: pytest.TempPathFactory, demo_cache: Path, new_record: Callable[[Path], Record]
) -> Lived:
    """Two coordinators, doctor and restore beside a living sweep whose worker stands still, so that every change shows."""
    folder = tmp_path_factory.mktemp("live")
    new_record(folder / "mlruns")
    lived = Lived(Workspace(folder, demo_cache, ONE_LONG))
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("")
    (folder / "mlruns.dvc").write_text(POINTER)
    # A worker that stands still longer than this hangs.
    sweep = lived.place.start("sweep", "tiny.yaml", "--workers", "1", HARNESS_HANG_S="3600")
    try:
        wait_for(lambda: epochs_spooled(lived.place) >= 3, 300)
        (worker,) = [
            one
            for one in psutil.Process(sweep.pid).children()
            if "harness.execution.executors.worker" in one.cmdline()
        ]
        with standing_still(worker, lived.place):
            disturb(lived, sweep.pid)
        before = epochs_spooled(lived.place)
        wait_for(lambda: epochs_spooled(lived.place) > before, 120)  # it goes on
        sweep.send_signal(signal.SIGHUP)
        said = sweep.communicate(timeout=120)
        assert sweep.returncode == 128 + signal.SIGHUP, said
        lived.left = running_children(lived.place)
    finally:
        if sweep.poll() is None:
            os.killpg(sweep.pid, signal.SIGKILL)
            sweep.communicate()
    lived.trials = lived.place.inside("status", "tiny")["trials"]
    lived.epochs = [event["epoch"] for event in spooled(lived.place)]
    return lived


@contextlib.contextmanager
def standing_still(worker: psutil.Process, place: Workspace):
    """The worker is stopped, and what it had said is in the record."""
    worker.suspend()
    try:
        wait_for(lambda: trial_is_stored(place), 300)
        still = 0
        before = state(place)
        while still < 3:
            time.sleep(0.5)
            after = state(place)
            still, before = still + 1 if after == before else 0, after
        yield
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.resume()


def state(place: Workspace) -> dict[str, str | bytes]:
    """What the record holds of its study: journal and spool byte for byte, the database row by row, the owner."""
    record = place.record
    files = [
        record.journal,
        record.root / "VERSION",
        *sorted(record.spool.rglob("*")),
        *record.locks.glob("*.pid"),
    ]
    with read_only_connection(record.database) as database:
        rows = "\n".join(database.iterdump())
    return {**{str(path): path.read_bytes() for path in files if path.is_file()}, "mlflow.db": rows}


def disturb(lived: Lived, owner: int) -> None:
    """Everything that could take a study away from its sweep, once (full: ten times)."""
    place, before = lived.place, state(lived.place)
    with pytest.MonkeyPatch.context() as patch:
        if not FULL:  # the machine has tests of its own, and its children cost seconds
            patch.setattr(machine_checks, "run_probe", lambda *words: (True, "not asked"))
        for _ in range(10 if FULL else 1):
            told = str(intrude(lived, 2, "sweep", "tiny.yaml"))
            intrude(lived, 3, "restore")
            intrude(lived, 3, "restore", "--force")
            found = intrude(lived, 0, "doctor", "--fix")
            lived.let_in += [f"doctor did: {line}" for line in found.get("fixed", [])]
            said = [one["message"] for one in found.get("findings", []) if one["subject"] == "locks"]
            lived.named &= all(f"process {owner}" in text for text in (told, *said)) and bool(said)
    after = state(place)
    lived.changed = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]


def intrude(lived: Lived, code: int, *words: str) -> dict:
    """Run a command that must end with this exit code; what it printed."""
    lived.intruders += 1
    try:
        return lived.place.inside(*words, code=code)
    except AssertionError as error:
        lived.let_in.append(str(error))
        return {}


def spooled(place: Workspace) -> list[dict]:
    lines = [
        line
        for file in place.record.spool.glob("tiny/*/events.jsonl")
        for line in file.read_text().splitlines()
    ]
    return [json.loads(line) for line in lines]


@pytest.mark.row(18)
def test_others_are_refused_and_the_living_sweep_is_untouched(
    lived: Lived, measured: Callable[..., None]
) -> None:
    assert lived.named, "who runs the study is said"
    assert lived.left == []
    assert [trial["state"] for trial in lived.trials] == ["interrupted"]
    measured(
        f"{lived.intruders} times a second sweep, doctor --fix, restore or restore --force beside a living sweep: "
        f"{len(lived.let_in)} let in, {len(lived.changed)} changes of journal, spool or database, "
        f"{len(lived.epochs) - len(set(lived.epochs))} epochs doubled",
        holds=lived.let_in == [] and lived.changed == [] and lived.epochs == list(range(len(lived.epochs))),
    )


@pytest.mark.row(26)
def test_a_clock_that_was_set_back_keeps_order_and_exactly_once(
    lived: Lived, tmp_path: Path, measured: Callable[..., None], rng: random.Random, seed: int, full: bool
) -> None:
    """The trial goes on a day earlier than it began (full: and some days later, and earlier again)."""
    steps = [DAY_S, -rng.randrange(DAY_S), rng.randrange(DAY_S, 9 * DAY_S)] if full else [DAY_S]
    place = lived.place
    for step in steps:
        earlier = {"PYTHONPATH": before_others(stepped_clock(tmp_path, step))}
        process = place.start("sweep", "tiny.yaml", "--workers", "1", **earlier)
        if step is not steps[-1]:
            goal = epochs_spooled(place) + 3
            wait_for(
                lambda goal=goal, process=process: (
                    epochs_spooled(place) >= goal or process.poll() is not None
                ),
                300,
            )
            process.kill()
        said = process.communicate(timeout=400)
    assert process.returncode == 0, said
    (trial,) = place.inside("status", "tiny")["trials"]
    assert (trial["state"], trial["epochs"]) == ("complete", EPOCHS)
    with contextlib.closing(sqlite3.connect(place.record.database)) as database:
        points = database.execute(
            "select metrics.step, metrics.timestamp from metrics join tags using (run_uuid) "
            "where tags.key = 'harness.kind' and tags.value = 'trial' and metrics.key = 'smoothed' order by metrics.step"
        ).fetchall()
        last = database.execute("select step from latest_metrics where key = 'smoothed'").fetchall()
        running = database.execute(
            "select count(*) from runs where status not in ('FINISHED', 'KILLED')"
        ).fetchone()[0]
    times = [time_ms for _, time_ms in points]
    assert min(times) < times[0] - DAY_S * 900, "the clock of the later launches was not stepped"
    lost, doubled = (
        EPOCHS - len({step for step, _ in points}),
        len(points) - len({step for step, _ in points}),
    )
    measured(
        f"the wall clock of a launch and all it starts set back {' h, '.join(f'{step / 3600:.0f}' for step in steps)} h, "
        f"one launch each (seed {seed}): {lost} epochs lost, {doubled} doubled, "
        f"last value of step {last[0][0]}, {running} runs RUNNING",
        holds=lost == doubled == running == 0 and last == [(EPOCHS - 1,)],
    )


def stepped_clock(folder: Path, seconds: int) -> Path:
    """A folder for PYTHONPATH in whose processes it is so much earlier."""
    place = folder / f"earlier-{seconds}"
    place.mkdir()
    (place / "sitecustomize.py").write_text(
        "import time\n"
        "_time, _time_ns = time.time, time.time_ns\n"
        f"time.time = lambda: _time() - {seconds}\n"
        f"time.time_ns = lambda: _time_ns() - {seconds} * 10**9\n"
    )
    return place
