"""`harness snapshot`: a consistent copy of the record under DVC, while sweeps go on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.maintenance.snapshot.dvc_pointer import (
    OUTPUT,
    POINTER,
    AlteredError,
    Pointer,
    PointerError,
    altered,
    object_path,
    read_manifest,
    read_pointer,
    require_message,
)
from harness.maintenance.snapshot.dvc_project import (
    SETTINGS,
    DvcError,
    DvcProject,
    find_project,
    run_dvc,
    set_up,
)
from harness.maintenance.snapshot.record_copy import copy_record
from harness.maintenance.snapshot.sqlite_copy import count_runs
from harness.study.storage.record import Record


@dataclass(frozen=True)
class Contents:
    """What a record holds.

    Attributes
    ----------
    studies : their names
    runs : number of MLflow runs, of every kind and state
    size : bytes of its files together
    """

    studies: tuple[str, ...]
    runs: int
    files: int
    size: int

    def line(self) -> str:
        """The same for a terminal: `1 study (quickstart), 9 runs, 120 files, 3.4 MB`."""
        named = f" ({', '.join(self.studies)})" if self.studies else ""
        studies = "1 study" if len(self.studies) == 1 else f"{len(self.studies)} studies"
        runs = "1 run" if self.runs == 1 else f"{self.runs} runs"
        return f"{studies}{named}, {runs}, {self.files} files, {self.size / 1e6:.1f} MB"

    def as_json(self) -> dict[str, Any]:
        """What `harness snapshot --json` and `harness restore --json` print of it."""
        return {"studies": list(self.studies), "runs": self.runs, "files": self.files, "bytes": self.size}


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that was taken.

    Attributes
    ----------
    pointer, digest : the `mlruns.dvc` that names it, and the manifest's md5
    made_project : DVC was set up in the folder for it
    remotes : names of those that it can be pushed to
    """

    pointer: Path
    digest: str
    contents: Contents
    message: str
    made_project: bool
    remotes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The document that `harness snapshot --json` prints."""
        return {
            "pointer": str(self.pointer),
            "digest": self.digest,
            **self.contents.as_json(),
            "message": self.message,
            "dvc_set_up": self.made_project,
            "remotes": list(self.remotes),
        }


def take_snapshot(record: Record, folder: Path, message: str = "") -> Snapshot:
    """Copy a record into DVC's cache and let `mlruns.dvc` in ``folder`` point to it, once every digest is verified.

    Raises
    ------
    PointerError
        The message is too long, or no text.
    RecordError
        There is no record, or it cannot be copied as it is.
    DvcError, AlteredError
        DVC failed, or stored something else; `mlruns.dvc` is as it was.
    """
    require_message(message)
    record.require()
    record.check_writable()  # before anything is set up for it
    project = find_project(folder)
    made_project = project is None
    project = project or set_up(folder)
    with project.throwaway() as aside:
        copy_record(record, aside / OUTPUT)
        files = [path for path in (aside / OUTPUT).rglob("*") if path.is_file()]
        contents = contents_of(Record(aside / OUTPUT), files)
        run_dvc(aside, "add", "--quiet", OUTPUT)
        stored = read_pointer(aside / POINTER)
        manifest = read_manifest(project.cache, stored.digest)
        _verify(project.cache, manifest, {path.relative_to(aside / OUTPUT).as_posix() for path in files})
    pointer = Pointer(stored.digest, contents.size, contents.files, None, message).write(folder)
    remotes = tuple(sorted(name for name in project.remotes if not is_reference(project, name)))
    return Snapshot(pointer, stored.digest, contents, message, made_project, remotes)


def contents_of(copy: Record, files: list[Path]) -> Contents:
    """What the copy of a record holds; it is nobody's but ours, and is opened as its users would.

    Raises
    ------
    DatabaseUnreadableError
        Its MLflow database is not sound.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    from harness.study.study import names_in

    studies = (
        names_in(JournalStorage(JournalFileBackend(str(copy.journal)))) if copy.journal.is_file() else []
    )
    size = sum(path.stat().st_size for path in files)
    return Contents(tuple(studies), count_runs(copy.database), len(files), size)


def _verify(cache: Path, manifest: dict[str, str], files: set[str]) -> None:
    wrong = altered(cache, manifest)
    wrong += [f"{file} is not in the snapshot" for file in sorted(files ^ set(manifest))]
    if wrong:
        raise AlteredError(
            f"the snapshot is not what was copied, {POINTER} stays as it was: {'; '.join(wrong[:5])}"
        )


def is_reference(project: DvcProject, remote: str) -> bool:
    """Whether a remote is a folder inside `.dvc`: what the project ships, not where users push."""
    return Path(project.remotes[remote]).is_relative_to(project.root / ".dvc")


def check_snapshots(folder: Path) -> list[str]:
    """What is wrong with DVC and `mlruns.dvc` in a folder, a line each with what to do."""
    project = find_project(folder)
    pointer = folder / POINTER
    if project is None:
        return [
            f"{pointer} is there, and no DVC project around it: run `harness snapshot`"
        ] * pointer.exists()
    try:
        return [*_check_settings(project), *(_check_pointer(project, pointer) if pointer.exists() else [])]
    except DvcError as error:
        return [str(error)]


def _check_settings(project: DvcProject) -> list[str]:
    problems = [
        f"DVC's {name} is {project.settings.get(name, 'not set')} in {project.root}: dvc config {name} {value}"
        for name, value in SETTINGS.items()
        if project.settings.get(name, "").lower() != value
    ]
    for remote in project.remotes:
        if project.settings.get(f"remote.{remote}.verify", "").lower() != "true":
            problems.append(
                f"DVC does not verify what it fetches from remote {remote}: dvc remote modify {remote} verify true"
            )
    return problems


def _check_pointer(project: DvcProject, path: Path) -> list[str]:
    try:
        pointer = read_pointer(path)
        remote = pointer.remote or project.settings.get("core.remote", "")
        where = project.remotes.get(remote, "")
        places = [project.cache, *([Path(where)] if where and "://" not in where else [])]
        held = [place for place in places if object_path(place, pointer.digest).is_file()]
        if not held and "://" in where:
            return []  # it is far away: not asked
        if not held:
            return [f"{path} points to {pointer.digest}, which is nowhere: run `harness snapshot` again"]
        names = read_manifest(held[0], pointer.digest).values()
        lost = [md5 for md5 in names if not any(object_path(place, md5).is_file() for place in places)]
    except (PointerError, AlteredError) as error:
        return [str(error)]
    if not lost or "://" in where:
        return []
    return [f"{len(lost)} objects of the snapshot in {path} are nowhere: run `harness snapshot` again"]
