"""The record is its user's alone; the cache, bundles and reports are as the user's umask says."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data.store.content_store import build_once
from harness.core.files import private_files, to_share, user_umask
from models.files import write_atomic
from tests.harness.conftest import FinishedSweep


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("users", "shared"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_are_private_but_those_to_share(tmp_path: Path, users: int, shared: int) -> None:
    with umask(users), private_files():
        write_atomic(tmp_path / "kept", b"")
        with to_share(), private_files(), to_share():
            write_atomic(tmp_path / "shared", b"")
            assert user_umask() == users
        (tmp_path / "again").touch()
    with umask(users):
        assert user_umask() == users
    modes = [mode(tmp_path / name) for name in ("kept", "shared", "again")]
    assert modes == [0o600, shared, 0o600]


def test_a_command_ends_with_the_umask_it_began_with(tmp_path: Path) -> None:
    program = "import os; from harness.cli.main import cli; cli(['init'], standalone_mode=False); print(oct(os.umask(0)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, text=True, capture_output=True, check=True, umask=0o027
    )
    assert done.stdout.splitlines()[-1] == "0o27"
    assert mode(tmp_path / "sweep.yaml") == 0o640


@pytest.mark.slow
def test_nothing_of_a_record_is_anybody_elses(told: FinishedSweep) -> None:
    record = told.folder / "mlruns"
    paths = [record, *record.rglob("*")]
    assert len(paths) > 50
    assert [path for path in paths if mode(path) & 0o077] == []


def test_a_stored_folder_follows_the_umask(tmp_path: Path) -> None:
    with umask(0o022), private_files(), to_share():
        folder = build_once(tmp_path / "a", lambda aside: (aside / "x").touch())
    assert (mode(folder), mode(folder / "x")) == (0o755, 0o644)
