"""Where a record may be restored to, and what the commands say: nothing that is no record's is ever moved."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.cli.exits import EXIT_REFUSED
from harness.maintenance.snapshot.dvc_pointer import POINTER, Pointer
from harness.maintenance.snapshot.dvc_project import DvcError, DvcProject, set_up
from harness.maintenance.snapshot.restore import restore
from harness.maintenance.snapshot.restore_target import RestoreRefusedError, move_aside, restore_target
from harness.maintenance.snapshot.snapshot import take_snapshot
from harness.study.storage.record import Record, RecordError
from tests.faults.test_old_and_readonly import read_only
from tests.faults.tmpfs import disk, elsewhere
from tests.harness.places.small_record import contents, small_record
from tests.harness.places.workplace import run_in_process


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose snapshot is nowhere: what is refused is refused before that shows."""
    folder = tmp_path / "above" / "project"
    folder.mkdir(parents=True)
    set_up(folder)
    Pointer("0" * 32 + ".dir").write(folder)
    (folder / "models.py").write_text("mine")
    return folder


@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_records_is_never_moved(
    project: Path, force: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    above = project.parent
    for folder in ("notarec", "home/user", "inner"):
        (above / folder).mkdir(parents=True)
    (above / "notarec" / "my.txt").write_text("mine")
    (above / "link").symlink_to(above / "notarec")
    monkeypatch.setenv("HOME", str(above / "home" / "user"))
    before = contents(above)
    for place, said in {
        project: "has a folder of its own", above: "has a folder of its own", Path("/"): "has a folder of its own",
        above / "home": "has a folder of its own", above / "home" / "user": "has a folder of its own",
        above / "notarec": r"holds 'my\.txt', which no record has", above / "link": r"holds 'my\.txt'",
    }.items():  # fmt: skip
        with pytest.raises(RestoreRefusedError, match=f"{said}.*name a new or an empty folder"):
            restore(Record(place), project, force=force)
    with pytest.raises(RestoreRefusedError, match="has a folder of its own"):
        restore_target(Record(project), [project / "deeper"])
    assert contents(above) == before
    for place in (above / "inner", project / "mlruns"):
        with pytest.raises(DvcError, match="cache does not hold"):  # these are allowed
            restore(Record(place), project, force=force)


def test_all_that_a_record_may_hold_is_a_records(tmp_path: Path) -> None:
    record = small_record(tmp_path / "mlruns")
    (record.root / "secret.txt").unlink()
    (record.root / ".creating-x").mkdir()
    for name in ("mlflow.db-wal", "mlflow.db-shm", ".VERSION.123"):
        (record.root / name).touch()
    assert restore_target(record, [tmp_path / "project"]) == record.root


def test_a_place_that_cannot_be_made_is_named_with_the_reason(project: Path) -> None:
    file = project / "models.py"
    for place in (file / "deep" / "mlruns", file, project / ("x" * 300)):
        with pytest.raises(RestoreRefusedError, match=r"no record can be put at .*: name a new"):
            restore(Record(place), project)
    told = run_in_process(project, project, "restore", "--json", "--record", "models.py/x", code=EXIT_REFUSED)
    assert "models.py/x (Not a directory)" in told


def test_a_mount_is_refused_before_anything_is_fetched(project: Path) -> None:
    with (
        disk(project / "mlruns"),
        pytest.raises(RestoreRefusedError, match=r"is a mount.*--record .*/mlruns/record$"),
    ):
        restore(Record(project / "mlruns"), project)


@pytest.mark.parametrize("empty", [True, False])
def test_a_folder_of_the_same_disk_that_is_mounted_is_refused_too(tmp_path: Path, empty: bool) -> None:
    with disk(tmp_path / "disk"):
        place = tmp_path / "disk" / "mlruns"
        place.mkdir()
        (place / "VERSION").write_text("1\n")
        with elsewhere(place, tmp_path / "disk" / "other"):
            if empty:
                (place / "VERSION").unlink()
            with pytest.raises(RestoreRefusedError, match="is a mount"):
                move_aside(place)
            assert place.is_dir()


def test_a_record_that_may_only_be_read_is_refused_and_nothing_is_set_up(tmp_path: Path) -> None:
    record = small_record(tmp_path / "mlruns")
    with read_only(record.root), pytest.raises(RecordError, match=r"may not be written.*`snapshot`"):
        take_snapshot(record, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mlruns"]


def test_the_copy_that_dvc_stores_follows_the_projects_settings_on_sharing(tmp_path: Path) -> None:
    project = DvcProject(tmp_path)
    project.settings = {"cache.shared": "group", "cache.dir": "/elsewhere", "remote.x.url": "s3://x"}
    (tmp_path / ".dvc").mkdir()
    with project.throwaway() as aside:
        text = (aside / ".dvc" / "config").read_text("utf-8")
    assert "shared = group" in text
    assert "remote" not in text


@contextmanager
def synced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of what is synced to the disk meanwhile."""
    names: list[str] = []
    own = os.fsync

    def fsync(handle: int) -> None:
        names.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        own(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield names


def test_what_to_do_next_is_told_for_where_it_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In git and outside; and what is told can be typed."""
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / ".gitignore").write_text("*.pyc")
    small_record(tmp_path / "mlruns")
    with synced(monkeypatch) as names:
        told = run_in_process(tmp_path, tmp_path, "snapshot").splitlines()
    assert tmp_path.name in names
    assert any(name.startswith(f".{POINTER}.") for name in names)
    (keep,) = (line.removeprefix("keep it:  ") for line in told if line.startswith("keep it:"))
    assert keep == "git add .dvc .dvcignore .gitignore mlruns.dvc"
    assert "share it: dvc remote add -d NAME ADDRESS; dvc remote modify NAME verify true; dvc push" in told
    subprocess.run(keep.split(), cwd=tmp_path, check=True)
    left = subprocess.run(
        [*git, "status", "--porcelain", "-uall"], check=True, capture_output=True, text=True
    )
    assert [line for line in left.stdout.splitlines() if not line.startswith("A ")] == []
    assert (tmp_path / ".gitignore").read_text().splitlines() == ["*.pyc", "/mlruns/", "/mlruns.before-*/"]
    with synced(monkeypatch) as names:
        told = run_in_process(tmp_path, tmp_path, "restore", "--record", "my record").splitlines()
    assert told[-1] == "compare:  harness ui --record 'my record'"
    assert {"mlflow.db", "model.onnx", "my record", tmp_path.name} <= set(names)
    (tmp_path / ".git").rename(tmp_path / "git")
    assert not [
        line for line in run_in_process(tmp_path, tmp_path, "snapshot").splitlines() if "git add" in line
    ]
