"""The house stays one that a stranger finds his way in: few entries in a folder, files that can be held in the head.

What may import what is held by the contracts of `make lint`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("harness", "models", "data")
MAX_ENTRIES = 12
MAX_LINES = 400
# One file a command, one file a task: these grow with what there is.
GROWING = {"harness/cli/commands", "data/tasks"}
HOUSE = {
    "cli", "promotion", "maintenance", "selection", "execution", "reporting", "training", "tracking", "study", "config",
    "metrics", "core",
}  # fmt: skip


def folders() -> Iterator[Path]:
    for package in PACKAGES:
        yield ROOT / package
        yield from (
            path for path in (ROOT / package).rglob("*") if path.is_dir() and path.name != "__pycache__"
        )


def entries(folder: Path) -> list[str]:
    return [
        path.name for path in folder.iterdir() if path.name not in ("__init__.py", "py.typed", "__pycache__")
    ]


def test_the_house_has_twelve_packages() -> None:
    assert set(entries(ROOT / "harness")) == HOUSE


@pytest.mark.parametrize("folder", sorted(folders()), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_folder_holds_few_entries(folder: Path) -> None:
    if folder.relative_to(ROOT).as_posix() not in GROWING:
        assert len(entries(folder)) <= MAX_ENTRIES


def test_every_file_can_be_held_in_the_head() -> None:
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines())
        for top in (*PACKAGES, "tests")
        for path in (ROOT / top).rglob("*.py")
    }
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}
