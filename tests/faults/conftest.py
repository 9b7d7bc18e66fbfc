"""What the rows of the matrix share: their size, their seed, and where their figures go.

HARNESS_FAULTS=full     the full sizes, and the figures are written down (`make faults`); else short forms
HARNESS_FAULT_SEED=17   repeat a run by its seed
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.data.conftest import make_corpus  # noqa: F401  # a fixture
from tests.faults.matrix import KEPT_SEEDS, keep_seed, write_results
from tests.faults.sweeps import own_server, place_of, warm  # noqa: F401  # fixtures
from tests.harness.conftest import sealed, swept, told  # noqa: F401  # fixtures

FULL = os.environ.get("HARNESS_FAULTS") == "full"
SEED = int(os.environ["HARNESS_FAULT_SEED"])
_COMMON = pytest.StashKey[Path]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that draws runs with this run's seed, and with every seed that ever failed it."""
    if "seed" in metafunc.fixturenames:
        kept = json.loads(KEPT_SEEDS.read_text("utf-8")) if KEPT_SEEDS.exists() else {}
        seeds = dict.fromkeys([*kept.get(metafunc.function.__name__, []), SEED])
        metafunc.parametrize("seed", seeds, ids=[f"seed{seed}" for seed in seeds])


@pytest.fixture
def full() -> bool:
    """Whether the full sizes are run."""
    return FULL


@pytest.fixture
def rng(seed: int) -> random.Random:
    """Where a test draws its moments from."""
    return random.Random(seed)


@pytest.fixture
def measured(request: pytest.FixtureRequest, common: Path) -> Callable[..., None]:
    """`measured("200 kills: 0 lost", holds=lost == 0)` notes the figure of the test's row, then asserts it."""
    marker = request.node.get_closest_marker("row")
    assert marker is not None, "a test of the matrix carries @pytest.mark.row(number)"

    def note(figure: str, *, holds: bool) -> None:
        _note(common, marker.args[0], request.node.nodeid, figure, holds=holds)
        assert holds, figure

    return note


def _note(common: Path, row: int, test: str, figure: str, *, holds: bool) -> None:
    part = {"id": row, "test": test, "figure": figure, "holds": holds}
    with FileLock(common / "faults.lock"), (common / "faults.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(part) + "\n")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[pytest.TestReport]:
    """A row whose test failed does not hold, whether it came to its figure or not."""
    report = yield
    marker = item.get_closest_marker("row")
    common = item.config.stash.get(_COMMON, None)
    if marker is not None and report.failed and common is not None:
        _note(common, marker.args[0], item.nodeid, f"{item.name} failed", holds=False)
        drawn = getattr(item, "callspec", None)
        if FULL and drawn is not None and "seed" in drawn.params:
            with FileLock(common / "faults.lock"):
                keep_seed(item.nodeid.partition("[")[0].rpartition("::")[2], drawn.params["seed"])
    return report


@pytest.fixture(scope="session", autouse=True)
def written_down(common: Path, pytestconfig: pytest.Config) -> Iterator[None]:
    """After the full sizes: the figures into faults.json and README.md (every process that ran some, the last wins)."""
    pytestconfig.stash[_COMMON] = common
    yield
    figures = common / "faults.jsonl"
    if FULL and figures.exists():
        with FileLock(common / "faults.lock"):
            write_results([json.loads(line) for line in figures.read_text("utf-8").splitlines()])
