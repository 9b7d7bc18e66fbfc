"""The first use of a record: by many at once, and killed while it is made."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event

from harness.study.storage.record import Record
from harness.tracking.server.app import sync_commits
from tests.faults.sweeps import Running, Warm
from tests.faults.warm import OPEN
from tests.harness.places.workplace import SWEEP, Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

POINTS = ("record.folder", "record.locked", "record.made", "record.version", "record.renamed")
PROCESSES = 8


def is_whole(record: Record) -> bool:
    """Whether the database is sound, in WAL mode, synced at each commit, and nothing is left of its making."""
    record.require()
    with closing(sqlite3.connect(record.database)) as database:
        said = [
            database.execute(f"pragma {name}").fetchone()[0]
            for name in ("integrity_check", "journal_mode", "synchronous")
        ]
        versions = database.execute("select count(*) from alembic_version").fetchone()[0]
    litter = [*record.root.glob(".creating-*"), *record.root.glob(".VERSION*")]
    return said == ["ok", "wal", 2] and versions == 1 and not litter


def test_the_server_syncs_each_commit_whatever_sqlite_does_by_itself(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'any.db'}")
    event.listen(
        engine, "connect", lambda connection, _: connection.execute("pragma synchronous = off").close()
    )
    event.listen(engine, "connect", sync_commits)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("pragma synchronous").scalar() == 2
    engine.dispose()


@pytest.fixture
def opened(tmp_path: Path, demo_cache: Path, warm: Warm) -> Callable[..., tuple[Record, Running]]:
    """`opened("a")` starts a process that opens the record `a`; the record, and the process."""

    def start(name: str, **extra: str) -> tuple[Record, Running]:
        (tmp_path / name).mkdir(exist_ok=True)
        place = Workspace(tmp_path / name, demo_cache, SWEEP)
        return place.record, warm.start(place, OPEN, str(place.record.root), **extra)

    return start


@pytest.mark.row(4)
def test_processes_that_meet_an_empty_record_all_succeed(
    full: bool, opened: Callable[..., tuple[Record, Running]], measured: Callable[..., None]
) -> None:
    rounds = 20 if full else 1
    succeeded = whole = 0
    for number in range(rounds):
        both = [opened(str(number)) for _ in range(PROCESSES)]
        succeeded += sum(process.wait() == 0 for _, process in both)
        whole += is_whole(both[0][0])
    measured(
        f"{succeeded} of {rounds * PROCESSES} succeed, {whole} of {rounds} records whole",
        holds=succeeded == rounds * PROCESSES and whole == rounds,
    )


@pytest.mark.row(5)
def test_a_record_whose_making_was_killed_is_made_by_the_next_start(
    full: bool, seed: int, rng: random.Random, opened: Callable[..., tuple[Record, Running]],
    measured: Callable[..., None],
) -> None:  # fmt: skip
    moments, points = (50, POINTS * 3) if full else (0, tuple(rng.sample(POINTS, 1)))
    whole = killed = 0
    takes_s = 4.0
    for number in range(moments):
        record, process = opened(f"moment-{number}")
        killed += process.lives(rng.uniform(0, takes_s))
        process.kill()
        process.wait()
        there, began = record.exists, time.monotonic()
        whole += opened(f"moment-{number}")[1].wait() == 0 and is_whole(record)
        takes_s = takes_s if there else time.monotonic() - began
    for number, point in enumerate(points):
        record, process = opened(f"point-{number}", HARNESS_FAILPOINT=f"{point}:1:kill")
        killed += process.wait() == -9
        whole += opened(f"point-{number}")[1].wait() == 0 and is_whole(record)
    tries = moments + len(points)
    measured(
        f"{whole} of {tries} records whole after the next start; {killed} of {tries} creations killed, "
        f"{len(points)} of them at a named point (seed {seed})",
        holds=whole == tries and killed >= len(points) + moments // 2,
    )
