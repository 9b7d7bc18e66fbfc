"""Whatever CONTRIBUTING.md says takes one file does: each example is short, and keeps the laws of what ships."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXAMPLES = sorted(HERE.glob("*_example.py"))
LONGEST = 60
# Tests that walk a registry find an addition in it.
LAWS = {
    "linear_bands": (
        "front_end_example",
        "tests/models/front_ends",
        "tests/models/export/test_export.py",
    ),
    "dialogue": ("task_example", "tests/data/tasks", "tests/data/test_config.py"),
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_addition_is_one_short_file_that_contributing_shows(example: Path) -> None:
    assert len(example.read_text("utf-8").splitlines()) <= LONGEST
    assert f"tests/additions/{example.name}" in (ROOT / "CONTRIBUTING.md").read_text("utf-8")


@pytest.mark.parametrize("name", LAWS)
def test_the_laws_of_what_ships_are_walked_for_an_addition(name: str) -> None:
    module, *laws = LAWS[name]
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", module, "-p", "no:xdist", "-p", "no:cacheprovider", "-k", name,
            "-o", "addopts=--import-mode=importlib --strict-markers", *laws,
        ],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)])},
        text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    passed = int(done.stdout.rsplit(" passed", 1)[0].split()[-1])
    assert passed >= 10
