"""A training is tried again as long as its tries come further, and twice where they do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.execution.executors.protocol import TrialFailed, WorkerLost
from harness.execution.runs.retries import MAX_HANGS, MAX_RETRIES, Retries
from harness.study.storage.trial_spool import CHECKPOINT, TrialSpool

DEAD = WorkerLost(3, "its worker died")


@pytest.fixture
def retries(tmp_path: Path) -> Retries:
    return Retries(TrialSpool(tmp_path))


def write_checkpoint(retries: Retries, time_ns: int) -> None:
    path = retries.spool.folder / CHECKPOINT
    path.touch()
    os.utime(path, ns=(time_ns, time_ns))


@pytest.mark.parametrize(
    ("event", "limit", "told"),
    [
        (DEAD, MAX_RETRIES, "infrastructure, 3 times: its worker died"),
        (TrialFailed(3, "infrastructure", "EIO", ""), MAX_RETRIES, "infrastructure, 3 times: EIO"),
        (WorkerLost(3, "no sign of life", hung=True), MAX_HANGS, "no sign of life (2 times)"),
    ],
)
def test_without_coming_further_a_training_fails_after_its_tries(
    retries: Retries, event: WorkerLost | TrialFailed, limit: int, told: str
) -> None:
    write_checkpoint(retries, 5)  # of before the first death: no progress since
    assert [retries.another(event) for _ in range(limit)] == [None] * limit
    assert retries.another(event) == told


def test_an_epoch_or_a_checkpoint_inside_one_gives_all_tries_back(retries: Retries) -> None:
    for further in (retries.came_further, lambda: write_checkpoint(retries, 7)):
        for _ in range(MAX_RETRIES):
            assert retries.another(DEAD) is None
        further()
    for _ in range(MAX_RETRIES):
        assert retries.another(DEAD) is None
    assert retries.another(DEAD) == "infrastructure, 3 times: its worker died"
