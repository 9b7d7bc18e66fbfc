"""A sweep of one trial whose tracking server is taken away meanwhile, and how long its epochs took then."""

from __future__ import annotations

import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from harness.study.storage.record import Record
from harness.tracking.experiment import connect
from tests.harness.places.workplace import Workspace, epochs_spooled, wait_for

ONE_TRIAL = """\
name: tiny
data: {{corpus: demo, subset: clean, task: pseudo, variant: seen, train_windows: {windows}, val_windows: 96, test_windows: 96}}
parameters: {{feature: mfcc, learning_rate: 0.003, width: {width}, epochs: {epochs}}}
sampler: random
pruner: none
budget: {{trials: 1}}
"""
# An epoch during an outage may take this many times as long as one outside of it: the machine may be busy.
SLOWER = 4.0


def epochs_of(full: bool) -> int:
    """How many epochs the trial has."""
    return 240 if full else 60  # in the short form they must outlast 3.5 s of outages and what lies between


def one_trial(folder: Path, cache: Path, new_record: Callable[[Path], Record], full: bool) -> Workspace:
    """An empty record and a sweep file of one trial; `full`: of epochs that take a second or two."""
    new_record(folder / "mlruns")
    sizes = {"windows": 1440, "width": 0.25} if full else {"windows": 240, "width": 0.125}
    return Workspace(folder, cache, ONE_TRIAL.format(**sizes, epochs=epochs_of(full)))


def wait_for_epochs(place: Workspace, count: int) -> None:
    """Until so many more epochs are in the spool."""
    goal = epochs_spooled(place) + count
    wait_for(lambda: epochs_spooled(place) >= goal, 200)


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Do this in a thread beside the block; what goes wrong there fails the test."""
    wrong: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert wrong == []


class Outages:
    """When the server could not be reached, and how long the epochs of a trial took meanwhile."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []

    @contextmanager
    def one(self, seconds: float = 0.0) -> Iterator[None]:
        """An outage that begins with the block and lasts so long beyond its end."""
        began = time.time()
        yield
        time.sleep(seconds)
        self.spans.append((began, time.time()))

    def epoch_s(self, times_ms: list[int]) -> tuple[float, float]:
        """Median length of an epoch in s, outside of the outages and in them."""
        outside, during = [], []
        for before, after in pairwise(times_ms):
            met = any(start < after / 1000 and before / 1000 < end for start, end in self.spans)
            (during if met else outside).append((after - before) / 1000)
        assert during, "no epoch met an outage"
        return statistics.median(outside or during), statistics.median(during)


def trial_of(uri: str) -> tuple[str, list[int], list[int]]:
    """Status of the one trial's run, its epochs, and when they ended (ms)."""
    client = connect(uri)
    [experiment] = [one.experiment_id for one in client.search_experiments() if one.name == "tiny"]
    [run] = client.search_runs([experiment], "tags.`harness.kind` = 'trial'")
    points = client.get_metric_history(run.info.run_id, "val/loss")
    return run.info.status, [one.step for one in points], [one.timestamp for one in points]


def told_since(shown: str) -> list[str]:
    """The times of day since when MLflow took nothing, as the sweep said."""
    return re.findall(r"takes nothing since (\d\d:\d\d:\d\d)", shown)
