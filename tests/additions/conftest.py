"""Each example is a plug-in in both ways: named in HARNESS_PLUGINS, and by an entry point of a distribution."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
Plugged = Callable[[str], dict[str, str]]


@pytest.fixture(params=["HARNESS_PLUGINS", "entry_point"])
def plugged(request: pytest.FixtureRequest, tmp_path: Path) -> Plugged:
    """`plugged(module)` gives the environment of a process that has this module as a plug-in."""

    def environment(module: str) -> dict[str, str]:
        if request.param == "HARNESS_PLUGINS":
            return {"HARNESS_PLUGINS": module, "PYTHONPATH": path_of(HERE)}
        return {"PYTHONPATH": path_of(HERE, distribution(tmp_path / "site", module))}

    return environment


def path_of(*folders: Path) -> str:
    return os.pathsep.join(filter(None, [*map(str, folders), os.environ.get("PYTHONPATH")]))


def distribution(site: Path, module: str) -> Path:
    """An installed distribution, as far as Python's own look-up goes: two files of metadata."""
    folder = site / "an_addition-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: an-addition\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[diarization_harness.plugins]\nexample = {module}\n")
    return site
