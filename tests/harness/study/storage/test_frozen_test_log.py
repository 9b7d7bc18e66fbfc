"""The ledger of test openings counts every opening and survives a torn line, a full disk and a crowd."""

import json
import multiprocessing
import os
import resource
import signal
from pathlib import Path

import pytest

from harness.study.storage.frozen_test_log import LEDGER, record_test_opening


def test_openings_count_by_study_and_by_all_on_the_same_windows(tmp_path: Path) -> None:
    assert record_test_opening(tmp_path, "a", 0, "m").by_study == 1
    assert record_test_opening(tmp_path, "a", 3, "m").by_study == 2
    assert record_test_opening(tmp_path, "b", 0, "other").by_all == 1
    third = record_test_opening(tmp_path, "a-2", 0, "m")
    assert (third.by_study, third.by_all) == (1, 3)


def test_a_torn_line_costs_itself_only(tmp_path: Path) -> None:
    record_test_opening(tmp_path, "a", 0, "m")
    with (tmp_path / LEDGER).open("a") as file:
        file.write('{"study": "a", "tri')
    assert record_test_opening(tmp_path, "a", 1, "m").by_study == 2
    assert record_test_opening(tmp_path, "a", 2, "m").by_study == 3


def test_a_line_says_who_opened_what_under_which_policy(tmp_path: Path) -> None:
    record_test_opening(
        tmp_path, "a", 3, "m", subject="trial 3", policy="production", promotion="2025-01-31T12:00:00+00:00"
    )
    [line] = (tmp_path / LEDGER).read_text().splitlines()
    row = json.loads(line)
    assert row.pop("time") > "2025"
    assert row == {
        "study": "a", "trial": 3, "subject": "trial 3", "policy": "production", "manifest": "m",
        "promotion": "2025-01-31T12:00:00+00:00",
    }  # fmt: skip


def _child(record: Path, openings: int, room: int | None) -> None:
    if room is not None:  # the kernel writes as much as there is room for, then refuses, as a full disk does
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = (record / LEDGER).stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, size + room))
    try:
        for number in range(openings):
            record_test_opening(record, "child", number, "m")
    except OSError as error:
        os._exit(3 if error.filename == str(record / LEDGER) else 4)
    os._exit(0)


def _started(*arguments: object) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=_child, args=arguments)
    process.start()
    return process


@pytest.mark.slow
def test_a_crowd_and_a_full_disk(tmp_path: Path) -> None:
    record_test_opening(tmp_path, "a", 0, "m")
    crowd = [_started(tmp_path, 25, None) for _ in range(2)]
    for process in crowd:
        process.join()
    assert [process.exitcode for process in crowd] == [0, 0]
    whole = (tmp_path / LEDGER).read_bytes()
    assert len([json.loads(line) for line in whole.splitlines()]) == 51
    full = _started(tmp_path, 1, 10)
    full.join()
    assert full.exitcode == 3  # and the file is named
    assert (tmp_path / LEDGER).read_bytes() == whole
    assert record_test_opening(tmp_path, "child", 0, "m").by_study == 51
