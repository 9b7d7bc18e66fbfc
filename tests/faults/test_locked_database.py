"""MLflow's database and the study's journal locked by another process, and the record's own server killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from harness.study.storage.record import Record
from harness.tracking.server.server import TrackingServer
from tests.faults.outages import (
    SLOWER,
    Outages,
    epochs_of,
    meanwhile,
    one_trial,
    told_since,
    trial_of,
    wait_for_epochs,
)
from tests.harness.places.workplace import Workspace, run_in_process, trial_is_stored, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

HOLD_DATABASE = (
    "import sqlite3, sys\n"
    "database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)\n"
    "database.execute('BEGIN EXCLUSIVE')\n"
    "print('held', flush=True); sys.stdin.read(); database.execute('ROLLBACK')\n"
)
HOLD_JOURNAL = (
    "import sys; from filelock import FileLock\n"
    "with FileLock(sys.argv[1]):\n"
    "    print('held', flush=True); sys.stdin.read()\n"
)


@contextmanager
def held(program: str, path: Path) -> Iterator[None]:
    """In this block another process holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.stdin.close()


def mlflow_of(record: Record) -> psutil.Process | None:
    """The process that serves this record."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            serves = (
                "harness.tracking.server.app" in words and "harness.tracking.server.supervisor" not in words
            )
            if serves and Path(process.cwd()) == record.root:
                return process
    return None


@dataclass
class Swept:
    """What became of the sweep: what it printed, the trial's run, and its epochs in s, else and meanwhile."""

    place: Workspace
    shown: str
    status: str
    steps: list[int]
    locked_s: tuple[float, float]
    killed_s: tuple[float, float]


LOCKS = {True: (8.0, 25.0, 60.0), False: (4.0,)}
KILLS = {True: 3, False: 1}


@pytest.fixture(scope="module")
def disturbed(
    tmp_path_factory: pytest.TempPathFactory, demo_cache: Path, new_record: Callable[[Path], Record]
) -> Swept:
    """One sweep on its own server: killed, then its database locked, then the study's journal."""
    from tests.faults.conftest import FULL

    folder = tmp_path_factory.mktemp("locked")
    place = one_trial(folder, demo_cache, new_record, FULL)
    locked, killed = Outages(), Outages()

    def break_it() -> None:
        for _ in range(KILLS[FULL]):
            wait_for(lambda: trial_is_stored(place), 200)
            wait_for_epochs(place, 2)
            process = mlflow_of(place.record)
            assert process is not None
            with killed.one(1.0):
                process.kill()
            wait_for_epochs(place, 2)
        for seconds in LOCKS[FULL]:
            with held(HOLD_DATABASE, place.record.database), locked.one(seconds):
                pass
        with held(HOLD_JOURNAL, place.record.locks / "journal.lock"), Outages().one(10.0 if FULL else 1.0):
            pass

    with meanwhile(break_it):
        shown = run_in_process(folder, demo_cache, "sweep", "tiny.yaml", "--workers", "1")
    with TrackingServer(place.record) as own:
        status, steps, times = trial_of(own.uri)
    return Swept(place, shown, status, steps, locked.epoch_s(times), killed.epoch_s(times))


@pytest.mark.row(11)
def test_the_records_own_server_is_started_again(
    disturbed: Swept, full: bool, measured: Callable[..., None]
) -> None:
    total = epochs_of(full)
    else_s, meanwhile_s = disturbed.killed_s
    assert told_since(disturbed.shown)
    assert "MLflow answers again, after" in disturbed.shown
    measured(
        f"the record's own server killed, {KILLS[full]} times: {total - len(set(disturbed.steps))} of {total} epochs "
        f"lost, an epoch takes {meanwhile_s:.2f} s meanwhile, {else_s:.2f} s else",
        holds=disturbed.steps == list(range(total))
        and disturbed.status == "FINISHED"
        and meanwhile_s < SLOWER * else_s,
    )


@pytest.mark.row(14)
def test_a_locked_database_fails_no_trial(
    disturbed: Swept, full: bool, measured: Callable[..., None]
) -> None:
    status = json.loads(
        run_in_process(disturbed.place.folder, Path(disturbed.place.environment["HARNESS_CACHE"]), "status", "tiny", "--json")
    )  # fmt: skip
    failed = [trial for trial in status["trials"] if trial["state"] != "complete"]
    waiting = list(disturbed.place.record.spooled("tiny"))
    else_s, meanwhile_s = disturbed.locked_s
    measured(
        f"MLflow's database locked {', '.join(f'{one:.0f}' for one in LOCKS[full])} s, then the study's journal: "
        f"{len(failed)} failed trials, {len(waiting)} not stored, an epoch takes {meanwhile_s:.2f} s meanwhile, "
        f"{else_s:.2f} s else",
        holds=not failed
        and not waiting
        and len(status["trials"]) == 1
        and disturbed.steps == list(range(epochs_of(full)))
        and meanwhile_s < SLOWER * else_s,
    )
