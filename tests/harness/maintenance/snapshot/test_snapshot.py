"""Snapshots and restorations of small records: what is kept, what is refused, what is never touched."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from filelock import FileLock

from harness.cli.exits import EXIT_INPUT, EXIT_REFUSED, exit_code_of
from harness.config.files.sweep_loader import load_sweep
from harness.core.files import private_files
from harness.maintenance.snapshot import record_copy
from harness.maintenance.snapshot.dvc_pointer import (
    POINTER,
    AlteredError,
    Pointer,
    PointerError,
    altered,
    md5_of,
    object_path,
    read_manifest,
    read_pointer,
)
from harness.maintenance.snapshot.dvc_project import DvcError, find_project, run_dvc, set_up
from harness.maintenance.snapshot.record_copy import copy_record
from harness.maintenance.snapshot.restore import restore
from harness.maintenance.snapshot.restore_target import RestoreRefusedError, require_nothing_lost
from harness.maintenance.snapshot.snapshot import Snapshot, check_snapshots, take_snapshot
from harness.study.storage.record import Record, RecordError
from harness.study.study import load_study, study_of
from tests.harness.places.small_record import contents, small_record, stored_manifest
from tests.harness.places.workplace import run_in_process


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Snapshot]:
    """A folder with a small record, its snapshot, and its cache; tests restore elsewhere."""
    home = tmp_path_factory.mktemp("home")
    record = small_record(home / "mlruns")
    before = contents(record.root)
    with private_files():
        snapshot = take_snapshot(record, home, "first")
    assert contents(record.root) == before
    return home, snapshot


@pytest.fixture
def umask() -> None:
    """Restoring is a command's work, and commands run under this."""
    with private_files():
        yield


# The copy


def test_the_copy_is_the_record_without_what_only_its_life_needs(tmp_path: Path) -> None:
    record = small_record(tmp_path / "mlruns")
    record.journal.write_bytes(b'{"whole": 1}\n{"torn')
    copy_record(record, tmp_path / "copy")
    assert set(contents(tmp_path / "copy")) == {
        "VERSION", "mlflow.db", "optuna.journal", "test_openings.jsonl", "artifacts/1/model.onnx",
        "spool/tiny/00001/trial.json", "spool/tiny/00001/events.jsonl",
    }  # fmt: skip
    assert (tmp_path / "copy" / "optuna.journal").read_bytes() == b'{"whole": 1}\n'
    assert (tmp_path / "copy" / "test_openings.jsonl").read_bytes() == b'{"study": "tiny"}\n'
    assert record.journal.read_bytes().endswith(b"torn")


def test_the_database_is_copied_with_what_only_its_log_holds(tmp_path: Path) -> None:
    record = small_record(tmp_path / "mlruns")
    writer = [sys.executable, "-c", "import sqlite3, sys, time; d = sqlite3.connect(sys.argv[1]); "
              "d.execute(\"insert into runs values ('c', 'RUNNING')\"); d.commit(); print(flush=True); input()"]  # fmt: skip
    with subprocess.Popen(
        [*writer, record.database], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        other.stdout.readline()
        copy_record(record, tmp_path / "copy")
        other.stdin.close()
    with closing(sqlite3.connect(tmp_path / "copy" / "mlflow.db")) as database:
        assert database.execute("select count(*) from runs").fetchone() == (3,)


def test_a_link_out_of_the_record_is_refused(tmp_path: Path) -> None:
    record = small_record(tmp_path / "mlruns")
    (record.artifacts / "1" / "shadow").symlink_to("/etc/passwd")
    with pytest.raises(RecordError, match="shadow is a symbolic link"):
        copy_record(record, tmp_path / "copy")


def test_while_somebody_asks_or_tells_the_copy_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = small_record(tmp_path / "mlruns")
    monkeypatch.setattr(record_copy, "LOCK_S", 0.1)
    with FileLock(record.journal_lock), pytest.raises(RecordError, match=r"journal\.lock for 0 s"):
        copy_record(record, tmp_path / "copy")


# Snapshot and restoration


def test_a_snapshot_comes_back_elsewhere_private_and_whole(
    taken: tuple[Path, Snapshot], tmp_path: Path, umask: None
) -> None:
    home, snapshot = taken
    assert (snapshot.made_project, snapshot.contents.runs, snapshot.contents.files) == (True, 2, 7)
    assert read_pointer(home / POINTER).message == "first"
    done = restore(Record(tmp_path / "deep" / "record"), home)
    assert (done.aside, done.contents) == (None, snapshot.contents)
    project = find_project(home)
    assert project is not None
    manifest = read_manifest(project.cache, snapshot.digest)
    assert altered(project.cache, manifest) == []
    assert contents(done.record) == manifest
    for path in [done.record, *done.record.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert list((tmp_path / "deep").iterdir()) == [done.record]
    assert list((home / ".dvc" / "tmp").glob("snapshot-*")) == []


def test_a_record_that_holds_more_is_kept(taken: tuple[Path, Snapshot], tmp_path: Path, umask: None) -> None:
    home, _ = taken
    record = Record(restore(Record(tmp_path / "mlruns"), home).record)
    assert restore(record, home).aside is not None  # it held the same, and is kept all the same
    with closing(sqlite3.connect(record.database)) as database:
        database.execute("update runs set status = 'FINISHED'")
        database.commit()
    (record.artifacts / "1" / "new.json").write_text("{}")
    before = contents(record.root)
    with pytest.raises(RestoreRefusedError, match=r"artifacts/1/new\.json, 1 rows of runs") as refused:
        restore(record, home)
    assert exit_code_of(refused.value) == EXIT_REFUSED
    assert contents(record.root) == before
    with (
        FileLock(record.locks / "study-tiny.lock"),
        pytest.raises(RestoreRefusedError, match=r"study-tiny\.lock"),
    ):
        restore(record, home, force=True)
    assert contents(record.root) == before
    aside = restore(record, home, force=True).aside
    assert aside is not None
    assert contents(aside) == before
    assert not (record.artifacts / "1" / "new.json").exists()


def test_a_record_whose_database_is_damaged_is_kept_too(tmp_path: Path) -> None:
    old, new = small_record(tmp_path / "old"), small_record(tmp_path / "new")
    files = contents(new.root)
    require_nothing_lost(old, new, files)
    old.database.write_bytes(old.database.read_bytes()[:4096] + b"damage" * 700)
    with pytest.raises(RestoreRefusedError, match=r"mlflow\.db, which cannot be read.*--force"):
        require_nothing_lost(old, new, files)


def test_commands_say_what_is_missing(tmp_path: Path) -> None:
    assert (
        "there is no mlruns.dvc"
        in json.loads(run_in_process(tmp_path, tmp_path, "restore", "--json", code=EXIT_INPUT))["error"]
    )
    assert (
        "no record at"
        in json.loads(run_in_process(tmp_path, tmp_path, "snapshot", "--json", code=EXIT_INPUT))["error"]
    )
    assert list(tmp_path.iterdir()) == []


def test_an_altered_object_is_named_and_nothing_is_restored(tmp_path: Path, umask: None) -> None:
    set_up(tmp_path)
    cache = tmp_path / ".dvc" / "cache"
    database = small_record(tmp_path / "made").database
    entries = [{"md5": md5_of(database), "relpath": "mlflow.db"}]
    digest = stored_manifest(cache, entries)
    path = object_path(cache, md5_of(database))
    path.parent.mkdir(parents=True)
    path.write_bytes(database.read_bytes() + b"x")
    Pointer(digest).write(tmp_path)
    with pytest.raises(AlteredError, match=r"mlflow\.db was altered.*: remove .* and try again"):
        restore(Record(tmp_path / "mlruns"), tmp_path)
    assert not (tmp_path / "mlruns").exists()
    path.unlink()
    with pytest.raises(DvcError, match="dvc remote add -d NAME"):
        restore(Record(tmp_path / "mlruns"), tmp_path)
    assert not (tmp_path / "mlruns").exists()


def test_a_hostile_remote_writes_nothing(tmp_path: Path, umask: None) -> None:
    home, remote = tmp_path / "home", tmp_path / "remote"
    home.mkdir()
    set_up(home)
    with (home / ".dvc" / "config").open("a") as file:
        file.write(f"['remote \"theirs\"']\n    url = {remote}\n    verify = true\n")
    evil = hashlib.md5(b"evil").hexdigest()
    object_path(remote, evil).parent.mkdir(parents=True)
    object_path(remote, evil).write_bytes(b"evil")
    digest = stored_manifest(remote, [{"md5": evil, "relpath": "../../marker"}])
    Pointer(digest, remote="theirs").write(home)
    with pytest.raises(PointerError, match="no record holds"):
        restore(Record(home / "mlruns"), home)
    assert not object_path(home / ".dvc" / "cache", evil).exists(), "what a bad manifest names is not fetched"
    assert not [path for path in tmp_path.rglob("*") if path.name in ("marker", "mlruns")]


def test_a_clone_fetches_from_the_remote_of_its_own(
    taken: tuple[Path, Snapshot], tmp_path: Path, umask: None
) -> None:
    """One of a project that is in git, and came without its .git."""
    home, snapshot = taken
    run_dvc(home, "remote", "add", "--default", "mine", str(tmp_path / "remote"))
    run_dvc(home, "push", "--quiet")
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / ".dvc").mkdir()
    for file in (".dvc/config", POINTER):
        (clone / file).write_text((home / file).read_text().replace("    no_scm = true\n", ""))
    assert [line for line in check_snapshots(clone) if "verify" not in line] == []
    assert restore(Record(clone / "mlruns"), clone).contents == snapshot.contents
    (tmp_path / "remote").rename(tmp_path / "gone")
    (clone / ".dvc" / "cache").rename(tmp_path / "cache")
    assert any("nowhere" in line for line in check_snapshots(clone))
    with pytest.raises(DvcError, match="was it pushed"):
        restore(Record(tmp_path / "again"), clone)


def test_in_git_the_record_is_ignored_and_nothing_is_staged(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    set_up(tmp_path)
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").touch()
    (tmp_path / ".dvc" / "cache").mkdir()
    (tmp_path / ".dvc" / "cache" / "object").touch()
    shown = subprocess.run(
        [*git, "status", "--porcelain", "-uall"], check=True, capture_output=True, text=True
    ).stdout
    assert sorted(shown.splitlines()) == [
        "?? .dvc/.gitignore",
        "?? .dvc/config",
        "?? .dvcignore",
        "?? .gitignore",
    ]
    assert check_snapshots(tmp_path) == []


def test_settings_that_are_not_ours_are_named_with_their_remedy(tmp_path: Path) -> None:
    set_up(tmp_path)
    (tmp_path / ".dvc" / "config").write_text(
        "[core]\n    no_scm = true\n    analytics = true\n['remote \"far\"']\n    url = s3://far\n"
    )
    problems = check_snapshots(tmp_path)
    for remedy in (
        "dvc config core.analytics false",
        "dvc config cache.type copy",
        "dvc remote modify far verify true",
    ):
        assert any(line.endswith(remedy) for line in problems), (remedy, problems)


# What the repository ships


def test_the_reference_record_is_whole_small_and_says_nothing_of_where_it_was_made(
    root: Path, tmp_path: Path
) -> None:
    pointer = read_pointer(root / POINTER)
    assert pointer.remote == "reference"
    remote = root / ".dvc" / "reference"
    manifest = read_manifest(remote, pointer.digest)
    assert altered(remote, manifest) == []
    files = [path for path in remote.rglob("*") if path.is_file()]
    assert len(files) == len(set(manifest.values())) + 2, (
        "one object a content, the manifest and .gitattributes"
    )
    assert sum(path.stat().st_size for path in files) <= 5_000_000
    places = re.compile(rb"/(?:home|root|Users|tmp|work)/")
    assert [path for path in files if places.search(path.read_bytes())] == []
    with closing(
        sqlite3.connect(f"file:{object_path(remote, manifest['mlflow.db'])}?immutable=1", uri=True)
    ) as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
        users = database.execute(
            "select user_id from runs union select value from tags where key = 'mlflow.user'"
        )
        assert users.fetchall() == [("harness",)]


def test_the_reference_record_is_the_quickstart(root: Path, tmp_path: Path) -> None:
    remote = root / ".dvc" / "reference"
    manifest = read_manifest(remote, read_pointer(root / POINTER).digest)
    record = Record(tmp_path / "mlruns")
    for file, md5 in manifest.items():
        (record.root / file).parent.mkdir(parents=True, exist_ok=True)
        (record.root / file).write_bytes(object_path(remote, md5).read_bytes())
    record.locks.mkdir()
    assert study_of(record, load_sweep(root / "sweeps" / "quickstart.yaml")) == "quickstart", (
        "make it again (tests.reference_record)"
    )
    trials = load_study(record, "quickstart").trials()
    assert [trial.state for trial in trials].count("complete") >= 4
    assert {trial.state for trial in trials} <= {"complete", "pruned"}
    models = [file for file in manifest if file.endswith("model/model.onnx")]
    assert len(models) == 1, "the best trial's"
