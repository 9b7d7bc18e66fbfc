"""What all tests share: things a machine may lack, the demo corpus made once, the order.

A test that needs more than the virtual environment carries a marker, `needs_corpora` or
`needs_browser`, or asks the fixture of that thing. Where it is missing the test is skipped with the
reason; with HARNESS_REQUIRE_ALL=1, as in .ci/run, it fails.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from harness.study.storage.record import Record

ROOT = Path(__file__).parents[1]
CORPORA = ROOT.parent / "shared" / "corpora"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# A developer's own record and corpora are none of the tests' business.
FOREIGN = ("HARNESS_RECORD", "HARNESS_DATA", "HARNESS_PLUGINS", "MLFLOW_TRACKING_URI")
# Of the fault matrix. The processes of a run inherit the seed of its controller: all collect the same tests.
FULL = os.environ.get("HARNESS_FAULTS") == "full"
os.environ.setdefault("HARNESS_FAULT_SEED", str(time.time_ns() % 1_000_000) if FULL else "1")


def find_corpora() -> Path | None:
    return CORPORA if (CORPORA / "LibriSpeech").is_dir() else None


def find_browser() -> Path | None:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    return Path(found) if found else None


NEEDS: dict[str, tuple[Callable[[], Path | None], str]] = {
    "corpora": (find_corpora, "the small real corpora are not in ../shared/corpora"),
    "browser": (find_browser, f"none of {', '.join(BROWSERS)} is installed"),
}


def everything_is_required() -> bool:
    return os.environ.get("HARNESS_REQUIRE_ALL", "") not in ("", "0")


def pytest_configure(config: pytest.Config) -> None:
    for name in FOREIGN:
        os.environ.pop(name, None)
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: what is quickly found wrong is quickly known."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for thing, (find, reason) in NEEDS.items():
        if item.get_closest_marker(f"needs_{thing}") is not None and find() is None:
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[pytest.TestReport]:
    """Under HARNESS_REQUIRE_ALL a test that carries a `needs_` marker may not be skipped, whoever skips it."""
    report = yield
    marked = any(mark.name.startswith("needs_") for mark in item.iter_markers())
    if report.skipped and marked and everything_is_required() and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"HARNESS_REQUIRE_ALL is set, and this would have been skipped: {reason}"
    return report


@pytest.fixture(scope="session")
def needs() -> Callable[[str], Path]:
    """`needs("corpora")` gives the place of a thing, or skips the test with the reason."""

    def find(thing: str) -> Path:
        look, reason = NEEDS[thing]
        place = look()
        if place is None:
            (pytest.fail if everything_is_required() else pytest.skip)(reason)
        return place

    return find


@pytest.fixture(scope="session")
def corpora(needs: Callable[[str], Path]) -> Path:
    """The folder of small real corpora."""
    return needs("corpora")


@pytest.fixture(scope="session")
def browser(needs: Callable[[str], Path]) -> Path:
    """A Chromium to look at pages with."""
    return needs("browser")


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "common"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def demo_cache(common: Path) -> Path:
    """A cache folder for the whole run: to generate the demo corpus takes 35 s of CPU."""
    own = os.environ.get("HARNESS_CACHE")
    return Path(own) if own else common / "cache"


@pytest.fixture(scope="session")
def new_record(common: Path) -> Callable[[Path], Record]:
    """`new_record(folder)` puts an empty record there. It is copied: to make one takes MLflow 5 s of CPU."""
    from harness.study.storage.record import Record

    made = Record(common / "mlruns").open()  # the first process makes it, the others wait
    return lambda folder: Record(Path(shutil.copytree(made.root, folder)))


@pytest.fixture(scope="session")
def learned_model(common: Path) -> Path:
    """The exported file of a network that learned to tell voices apart, trained once a run."""
    from models.front_ends.config import MfccDelta
    from tests.learned_network import export, learned

    path = common / "learned.onnx"
    with FileLock(common / "learned.lock"):
        if not path.exists():
            export(MfccDelta(), learned(MfccDelta()), path)
    return path


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT
