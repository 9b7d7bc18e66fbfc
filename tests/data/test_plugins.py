"""Plug-ins: which modules, in which order, and what a person reads when one cannot be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from data.plugins import GROUP


def load(folder: Path, **environment: str) -> str:
    """What `load_plugins` returns, or its error, in a process that finds the distributions in this folder."""
    code = (
        "from data.errors import DataError\nfrom data.plugins import load_plugins\n"
        "try: print(*load_plugins()); load_plugins()\nexcept DataError as error: print(error)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env={"PYTHONPATH": f"{root}:{folder}", **environment},
        text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")


def install(folder: Path, name: str, **entries: str) -> None:
    """A distribution, and a module that says its name for each of its entry points."""
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{GROUP}]", *(f"{entry} = {module}" for entry, module in entries.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for module in entries.values():
        (folder / f"{module}.py").write_text(f"print({module!r})\n")


def test_without_any_there_are_none(tmp_path: Path) -> None:
    assert load(tmp_path) == ""


def test_each_is_imported_once_entry_points_first_sorted_by_name(tmp_path: Path) -> None:
    install(tmp_path, "one", c="mod_1", a="mod_2")
    install(tmp_path, "two", b="mod_3")
    (tmp_path / "mod_0.py").write_text("print('mod_0')\n")
    printed = load(tmp_path, HARNESS_PLUGINS="mod_0, mod_3,").splitlines()
    assert printed == ["mod_2", "mod_3", "mod_1", "mod_0", "mod_2 mod_3 mod_1 mod_0"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No module named 'broken'"),
        ("import no_such_thing", "No module named 'no_such_thing'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_one_that_cannot_be_imported_is_told_with_who_names_it(
    tmp_path: Path, content: str | None, reason: str
) -> None:
    install(tmp_path, "sick", mine="broken")
    (tmp_path / "broken.py").unlink() if content is None else (tmp_path / "broken.py").write_text(content)
    told = f"names 'broken', which cannot be imported ({reason});"
    assert load(tmp_path) == f"entry point 'mine' of sick {told} mend sick or uninstall it"
    (tmp_path / "sick-1.0.dist-info" / "entry_points.txt").unlink()
    remedy = "correct the name or put its folder on PYTHONPATH"
    assert load(tmp_path, HARNESS_PLUGINS="broken") == f"HARNESS_PLUGINS {told} {remedy}"
