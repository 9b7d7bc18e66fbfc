"""A record that may not be written, or that another version made: clear refusals, and not one byte changed."""

import contextlib
import hashlib
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.maintenance.doctor import machine_checks
from harness.study.storage.mlflow_schema import known_revisions
from harness.study.storage.record import LAYOUT_VERSION
from tests.faults.conftest import FULL
from tests.harness.places.workplace import Workspace, copied

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# Commands that write to the record, or start a server that does; none of them may begin.
WRITING = (
    ("sweep", "tiny.yaml", "--trials", "4"), ("promote", "tiny"), ("promote", "tiny", "--dry-run"), ("ui",),
    ("confirm", "tiny"), ("rollback",), ("ensemble", "tiny/0", "tiny/1"),
)  # fmt: skip
STUDY_ONLY = (("status",), ("status", "tiny"))
READING = (*STUDY_ONLY, ("report", "tiny"))


@pytest.fixture
def place(swept: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(machine_checks, "run_probe", lambda *words: (True, "not asked"))
    return copied(swept, tmp_path)


def contents(folder: Path) -> dict[str, str]:
    """The digest of every file, and every folder; reports are written anew each time."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
        if path.relative_to(folder).parts[0] != "reports"
    }


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """The folder on a file system that cannot be written, for root too."""
    for words in (["mount", "--bind", folder, folder], ["mount", "-o", "remount,bind,ro", folder, folder]):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            subprocess.run(["umount", folder], capture_output=True, check=False)
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def refused(place: Workspace, says: str, commands: tuple[tuple[str, ...], ...] = WRITING) -> list[str]:
    """The commands that were not refused in words, each with what it printed."""
    wrong = []
    for words in commands:
        try:
            error = place.inside(*words, code=2)["error"]
        except AssertionError as other:
            wrong.append(str(other))
        else:
            if says not in error or "\n" in error:
                wrong.append(f"{words}: {error}")
    return wrong


def read(place: Workspace, commands: tuple[tuple[str, ...], ...] = READING) -> list[dict]:
    """What the commands print that only read."""
    return [place.inside(*words) for words in commands]


@pytest.mark.row(26)
def test_a_read_only_record_is_read_and_never_half_written(
    place: Workspace, measured: Callable[..., None]
) -> None:
    printed, before = read(place), contents(place.folder)
    with read_only(place.folder / "mlruns"):
        wrong = refused(place, "may not be written")
        differs = sum(one != other for one, other in zip(printed, read(place), strict=True))
        document = place.inside("doctor", "--fix", code=1)
        after = contents(place.folder)
    changed = [path for path in {**before, **after} if before.get(path) != after.get(path)]
    assert document["fixed"] == []
    assert any("may not be written" in one["message"] for one in document["findings"] if one["level"] != "ok")
    assert wrong == []
    measured(
        f"read-only record: {len(WRITING) - len(wrong)} of {len(WRITING)} writing commands refused, "
        f"{len(READING) - differs} of {len(READING)} reading ones as ever, {len(changed)} files changed",
        holds=not (wrong or differs or changed),
    )


def set_schema(place: Workspace, revision: str) -> None:
    with contextlib.closing(sqlite3.connect(place.record.database)) as database, database:
        database.execute("update alembic_version set version_num = ?", (revision,))


@pytest.mark.row(26)
def test_a_record_of_another_version_is_refused_unharmed(
    place: Workspace, measured: Callable[..., None]
) -> None:
    newest, known = known_revisions()
    assert newest in known
    wrong: list[str] = []
    changed = read_differently = 0
    printed = read(place, STUDY_ONLY)
    for revision in [*sorted(known - {newest})[:: 1 if FULL else 30], "ffffffffffff"]:
        set_schema(place, revision)
        before = contents(place.folder)
        said = "older than" if revision in known else "a newer version made it"
        wrong += refused(place, said, (*WRITING, ("report", "tiny")))
        read_differently += read(place, STUDY_ONLY) != printed
        changed += contents(place.folder) != before
    set_schema(place, newest)
    for layout in ("0", "99", ""):
        (place.record.root / "VERSION").write_text(layout)
        before = contents(place.folder)
        wrong += refused(place, f"has layout {layout}, this version knows {LAYOUT_VERSION}")
        changed += contents(place.folder) != before
    (place.record.root / "VERSION").write_text(LAYOUT_VERSION)
    assert read(place, STUDY_ONLY) == printed
    assert wrong == []
    measured(
        f"older and newer schemas, other layouts: {len(wrong)} commands let in, {changed} records changed, "
        f"{read_differently} read otherwise",
        holds=not (wrong or changed or read_differently),
    )
