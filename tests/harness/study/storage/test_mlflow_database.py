"""A record's database, begun before the record is made."""

import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core.environment import quiet_environment
from harness.study.storage import mlflow_database
from harness.study.storage.mlflow_database import EmptyDatabase, EmptyDatabaseError
from harness.study.storage.record import Record


def tables(database: Path) -> set[str]:
    connection = sqlite3.connect(database)
    try:
        return {name for (name,) in connection.execute("SELECT type || ' ' || name FROM sqlite_master")}
    finally:
        connection.close()


@pytest.fixture
def aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.slow
def test_what_was_begun_is_what_a_record_makes_itself(
    tmp_path: Path, aside: Path, new_record: Callable[[Path], Record]
) -> None:
    record = Record(tmp_path / "mlruns")
    with record.beginning() as begun:
        assert begun is not None
        assert not record.root.exists()
        record.open(begun)
    assert tables(record.database) == tables(new_record(tmp_path / "other").database)
    assert list(aside.iterdir()) == []
    with record.beginning() as again:
        assert again is None


@pytest.mark.slow
def test_what_could_not_be_begun_is_made_in_the_record(
    tmp_path: Path, aside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record(tmp_path / "mlruns")
    with monkeypatch.context() as patch:
        patch.setattr(mlflow_database, "PROGRAM", "raise SystemExit('no room')")
        broken = EmptyDatabase(quiet_environment())
    with broken, pytest.raises(EmptyDatabaseError, match="no room"):
        broken.copy_to(tmp_path / "copy")
    with monkeypatch.context() as patch:
        patch.setattr(mlflow_database, "PROGRAM", "raise SystemExit('no room')")
        begun = EmptyDatabase(quiet_environment())
    with begun:
        assert record.open(begun).exists


def test_nothing_is_left_of_what_nobody_took(tmp_path: Path, aside: Path) -> None:
    record = Record(tmp_path / "mlruns")
    with record.beginning():
        assert len(list(aside.iterdir())) == 1
    assert list(aside.iterdir()) == []
    assert not record.root.exists()


def test_without_room_for_temporary_folders_nothing_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with Record(tmp_path / "mlruns").beginning() as begun:
        assert begun is None
