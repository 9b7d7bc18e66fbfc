"""A new executor takes one file: a sweep trains by it what it trains in processes of its own, bit for bit."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.execution.executors.build import EXECUTORS, ExecutorError, executor_class
from harness.execution.executors.local import LocalExecutor
from harness.study.storage.record import Record
from tests.harness.places.workplace import Workspace

HERE = Path(__file__).parent
SWEEP = """\
name: tiny
data: {corpus: demo, train_windows: 120, val_windows: 96, test_windows: 96}
parameters: {feature: [mfcc, log_mel], width: 0.0625, epochs: 2}
sampler: grid
pruner: none
budget: {trials: 2}
"""


def test_the_example_is_short() -> None:
    assert len((HERE / "executor_example.py").read_text().splitlines()) <= 60


def test_a_name_that_is_none_is_answered_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert executor_class() is LocalExecutor
    monkeypatch.setenv("HARNESS_EXECUTOR", "locl")
    with pytest.raises(
        ExecutorError, match=r"HARNESS_EXECUTOR: no such executor: 'locl'; did you mean local\?"
    ):
        executor_class()
    assert set(EXECUTORS) == {"local"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_sweep_by_another_executor_gives_the_same_numbers(
    tmp_path: Path, demo_cache: Path, new_record: Callable[[Path], Record]
) -> None:
    own = {"HARNESS_PLUGINS": "executor_example", "HARNESS_EXECUTOR": "thread"}
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    scores = []
    for name, extra in (("thread", own), ("local", {})):
        folder = tmp_path / name
        folder.mkdir()
        new_record(folder / "mlruns")
        place = Workspace(folder, demo_cache, SWEEP, PYTHONPATH=path, **extra)
        result = place.json("sweep", "tiny.yaml")
        assert [trial["state"] for trial in result["trials"]] == ["complete", "complete"]
        scores.append([(trial["score"], trial["interval"]) for trial in result["trials"]])
    assert scores[0] == scores[1]
