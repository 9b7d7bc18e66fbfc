"""`harness restore`: the record that `mlruns.dvc` points to, verified, put in place whole."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.core.files import sync_folder, sync_tree
from harness.maintenance.snapshot.dvc_pointer import (
    POINTER,
    AlteredError,
    Pointer,
    PointerError,
    altered,
    object_path,
    printable,
    read_manifest,
    read_pointer,
)
from harness.maintenance.snapshot.dvc_project import DvcError, DvcProject, find_project
from harness.maintenance.snapshot.record_copy import FOLDERS
from harness.maintenance.snapshot.restore_target import (
    lock_unused_record,
    make_parent,
    move_aside,
    require_nothing_lost,
    restore_target,
)
from harness.maintenance.snapshot.snapshot import Contents, contents_of
from harness.study.storage.record import Record


@dataclass(frozen=True)
class Restored:
    """A record that was restored.

    Attributes
    ----------
    digest, message : of its snapshot; the message in one printable line
    aside : where the record that was there before lies now; None where there was none
    """

    record: Path
    digest: str
    message: str
    contents: Contents
    aside: Path | None

    def as_json(self) -> dict[str, Any]:
        """The document that `harness restore --json` prints."""
        return {
            "record": str(self.record),
            "digest": self.digest,
            "message": self.message,
            **self.contents.as_json(),
            "moved_aside": str(self.aside) if self.aside else None,
        }


def restore(record: Record, folder: Path, *, force: bool = False) -> Restored:
    """Put the snapshot that `mlruns.dvc` in ``folder`` names at the record's place.

    Raises
    ------
    PointerError
        The pointer or its manifest cannot be used, or must not be; nothing was written.
    RestoreRefusedError
        The place is no record's, the record there is in use, or (without ``force``) holds what the snapshot does not.
    DvcError, AlteredError
        It cannot be fetched whole; the record there is as it was.
    """
    pointer = read_pointer(folder / POINTER)
    project = find_project(folder)
    if project is None:
        raise PointerError(f"{folder} is no DVC project: {POINTER} says what to fetch, and .dvc from where")
    place = restore_target(record, (folder, project.root))
    with project.lock(), lock_unused_record(Record(place)):
        manifest = _fetch(project, pointer)
        make_parent(place)
        for leftover in place.parent.glob(f".{place.name}.restoring-*"):  # of one that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        with TemporaryDirectory(prefix=f".{place.name}.restoring-", dir=place.parent) as name:
            fresh = Record(Path(name) / place.name)
            _write(project.cache, manifest, fresh.root)
            contents = contents_of(fresh, [fresh.root / file for file in manifest])
            fresh.require()
            if not force:
                require_nothing_lost(Record(place), fresh, manifest)
            sync_tree(fresh.root)
            aside = move_aside(place)
            fresh.root.rename(place)
            sync_folder(place.parent)
    return Restored(place, pointer.digest, printable(pointer.message), contents, aside)


def _fetch(project: DvcProject, pointer: Pointer) -> dict[str, str]:
    """Bring a snapshot's objects into the cache: the manifest first, which is judged before anything it names."""
    cache, remote = project.cache, pointer.remote
    if not object_path(cache, pointer.digest).is_file():
        project.pull([pointer.digest], remote)
        if not object_path(cache, pointer.digest).is_file():
            raise DvcError(
                f"neither the cache nor the remote holds the snapshot {pointer.digest}: was it pushed (dvc push)?"
            )
    manifest = read_manifest(cache, pointer.digest)
    missing = [md5 for md5 in manifest.values() if not object_path(cache, md5).is_file()]
    if missing:
        project.pull(sorted(set(missing)), remote)
    if wrong := altered(cache, manifest):
        raise AlteredError(
            f"{len(wrong)} of {len(manifest)} files of the snapshot cannot be had as they were: {'; '.join(wrong[:5])}"
        )
    return manifest


def _write(cache: Path, manifest: dict[str, str], target: Path) -> None:
    """Copy a snapshot out of the cache; what is written is what was verified."""
    for folder in ("", *FOLDERS, "locks"):
        (target / folder).mkdir(mode=0o700, exist_ok=True)
    for file, md5 in manifest.items():
        content_path, path = object_path(cache, md5), target / file
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        digest = hashlib.md5(usedforsecurity=False)
        with content_path.open("rb") as source, path.open("xb") as copy:
            while block := source.read(1 << 20):
                digest.update(block)
                copy.write(block)
        if digest.hexdigest() != md5:
            raise AlteredError(
                f"{content_path} was altered while {file} was restored: remove it and try again"
            )
