"""The writer beside a server that is slow, or away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from harness.study.storage.record import Record
from harness.study.storage.trial_spool import TrialSpool
from harness.tracking.writer import MAX_BACKLOG, Writer, unstored_message


class Door:
    """A server and its tracking, which store a trial when they are let, or are away."""

    uri, alive, team_uri = "here", True, None
    record = Record(Path("nowhere"))
    served: Path | None = None

    def __init__(self) -> None:
        self.open, self.away, self.asked = threading.Event(), False, threading.Semaphore(0)
        self.told_new: list[bool] = []

    def store_trial(self, spool: TrialSpool, *, new: bool = False) -> bool:
        self.told_new.append(new)
        self.asked.release()
        if self.away:
            raise ConnectionError("away")
        assert self.open.wait(60)
        return True


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def writer(door: Door) -> Iterator[Writer]:
    writer = Writer(cast(Any, door), lambda uri: cast(Any, door))
    yield writer
    door.open.set()
    writer.stop(10)


def spools(folder: Path, count: int) -> list[TrialSpool]:
    made = [TrialSpool(folder / f"{number:05d}") for number in range(count)]
    for spool in made:
        spool.write("trial", {"number": int(spool.folder.name)})
    return made


def test_a_slow_server_holds_new_trials_back_until_it_has_caught_up(
    writer: Writer, door: Door, tmp_path: Path
) -> None:
    ended = spools(tmp_path, MAX_BACKLOG + 2)
    for spool in ended[:-1]:
        writer.notify(spool)
    assert door.asked.acquire(timeout=60)  # one is being stored, the others wait
    assert not writer.is_backlogged
    assert writer.status_message() is None
    writer.notify(ended[-1])
    assert writer.is_backlogged
    assert [writer.status_message(), writer.status_message()] == [
        f"MLflow stores more slowly than trials end: the next begins when at most {MAX_BACKLOG} wait", None
    ]  # fmt: skip
    door.open.set()
    assert writer.drain(60) == []
    assert not writer.is_backlogged


def test_a_server_that_is_away_holds_nothing_back(writer: Writer, door: Door, tmp_path: Path) -> None:
    door.away = True
    for spool in spools(tmp_path, MAX_BACKLOG + 2):
        writer.notify(spool)
    for _ in range(2):  # the second try comes after the first was found to fail
        assert door.asked.acquire(timeout=60)
    assert not writer.is_backlogged


def test_the_last_deed_comes_after_what_is_being_stored_and_nothing_comes_after_it(
    writer: Writer, door: Door, tmp_path: Path
) -> None:
    done: list[str] = []
    for spool in spools(tmp_path, 3):
        writer.notify(spool)
    assert door.asked.acquire(timeout=60)  # one is being stored, two wait
    threading.Timer(0.2, lambda: (done.append("stored"), door.open.set())).start()
    writer.stop(60, lambda tracking: done.append("closed"))
    assert done == ["stored", "closed"]
    assert not door.asked.acquire(blocking=False)


def test_a_trial_is_new_to_mlflow_the_first_time_only(writer: Writer, door: Door, tmp_path: Path) -> None:
    door.away = True
    begun, resumed = spools(tmp_path, 2)
    writer.notify(begun, begun=True)
    for _ in range(2):
        assert door.asked.acquire(timeout=60)
    assert door.told_new[:2] == [True, False]  # what was asked for and not answered may be there
    door.away = False
    door.open.set()
    assert writer.drain(60) == []
    door.told_new.clear()
    writer.notify(resumed)
    assert writer.drain(60) == []
    assert door.told_new == [False]
    assert door.served == Record(Path("nowhere")).artifacts


def test_what_was_not_stored_is_counted_and_a_hurry_is_reason_enough() -> None:
    assert unstored_message(1, None, hurried=True) == (
        "1 run waits in the spool for MLflow and will be stored by the next launch"
    )
    assert unstored_message(2, None, hurried=False) == (
        "2 runs wait in the spool for MLflow (MLflow did not answer); the next launch stores them"
    )
    assert "1 run waits in the spool for MLflow (refused); the next launch stores it" in unstored_message(
        1, "refused", hurried=True
    )
