"""`mlruns.dvc` and the manifest it names: read as a stranger's, before anything is fetched or written.

mlruns.dvc   outs: one, of digest HEX.dir, at path `mlruns`
HEX.dir      [{"md5": HEX, "relpath": "artifacts/..."}, ...], one entry a file of the record
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from harness.config.files.yaml_reader import parse_yaml
from harness.core.errors import FailedError, InputError
from harness.core.files import to_share, write_text_atomic
from harness.maintenance.snapshot.record_copy import FILES, FOLDERS

POINTER = "mlruns.dvc"
OUTPUT = "mlruns"
MAX_POINTER_BYTES, MAX_MESSAGE = 100_000, 2000
# Of a path in a record: bytes in all, folders, bytes of a name; file systems take little more.
MAX_BYTES, MAX_DEPTH, MAX_NAME_BYTES = 1000, 100, 255
_MD5 = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{32}\.dir")
_REMOTE = re.compile(r"\w[\w.-]*", re.ASCII)


class PointerError(InputError):
    """A pointer or a manifest that cannot be used, or must not be."""


class AlteredError(FailedError, RuntimeError):
    """An object of the cache was altered: the md5 of its content is not its name."""


@dataclass(frozen=True)
class Pointer:
    """What `mlruns.dvc` says.

    Attributes
    ----------
    digest : md5 of the manifest, 32 hexadecimal digits and `.dir`
    size, files : bytes and number of files; 0 where it does not say
    remote : the one that holds it; None for the project's default
    message : whoever took the snapshot's own words
    """

    digest: str
    size: int = 0
    files: int = 0
    remote: str | None = None
    message: str = ""

    def text(self) -> str:
        """The file's content, as DVC writes it."""
        out: dict[str, Any] = {
            "md5": self.digest,
            "size": self.size,
            "nfiles": self.files,
            "hash": "md5",
            "path": OUTPUT,
        }
        out |= {"remote": self.remote} if self.remote else {}
        out |= {"desc": self.message} if self.message else {}
        stream = io.StringIO()
        yaml = YAML()
        yaml.width = 10_000  # one line each
        yaml.dump({"outs": [out]}, stream)
        return stream.getvalue()

    def write(self, folder: Path) -> Path:
        """Replace `mlruns.dvc` in a folder by this one, in one step."""
        path = folder / POINTER
        with to_share():
            write_text_atomic(path, self.text())
        return path


def read_pointer(path: Path) -> Pointer:
    """Read `mlruns.dvc`.

    Raises
    ------
    PointerError
        It is not there, or says anything but where one snapshot of a record is.
    """
    try:
        if path.stat().st_size > MAX_POINTER_BYTES:
            raise PointerError(f"{path} is no pointer to a snapshot: it has {path.stat().st_size} bytes")
        document = parse_yaml(path.read_text("utf-8"))
    except FileNotFoundError:
        raise PointerError(
            f"there is no {path.name} in {path.parent}: run this in the folder that has one, or make one with "
            "`harness snapshot`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise PointerError(f"{path} cannot be read: {error}") from None
    if document.mistakes:
        raise PointerError(f"{path} is not what DVC writes: {document.mistakes[0].message}")
    content = document.values
    outs = content.get("outs") if isinstance(content, dict) else None
    if not isinstance(outs, list) or len(outs) != 1 or not isinstance(outs[0], dict):
        raise PointerError(f"{path} does not have one entry under `outs`: take it from version control again")
    return _pointer(path, content, outs[0])


def _pointer(path: Path, content: dict[str, Any], out: dict[str, Any]) -> Pointer:
    digest, remote, where = out.get("md5"), out.get("remote"), out.get("path")
    extra = sorted(map(str, set(content) - {"outs", "desc", "meta", "md5", "frozen"}))
    if extra:
        raise PointerError(f"{path} has {', '.join(extra)}: a snapshot has `outs` alone")
    if where != OUTPUT:
        raise PointerError(f"{path} points to path {where!r}: a snapshot's is {OUTPUT!r}")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest) or out.get("hash", "md5") != "md5":
        raise PointerError(f"{path} has md5 {digest!r}: a snapshot's is 32 hexadecimal digits and `.dir`")
    if remote is not None and not (isinstance(remote, str) and _REMOTE.fullmatch(remote)):
        raise PointerError(f"{path} names remote {remote!r}: that is no remote's name")
    size, files = (value if isinstance(value, int) else 0 for value in (out.get("size"), out.get("nfiles")))
    return Pointer(digest, size, files, remote, str(out.get("desc") or ""))


def require_message(message: str) -> None:
    """Raise PointerError where a message is not one that `mlruns.dvc` may keep."""
    if len(message) > MAX_MESSAGE:
        raise PointerError(
            f"the message has {len(message)} characters, {MAX_MESSAGE} at most are kept: write the rest elsewhere"
        )
    if any("\ud800" <= letter <= "\udfff" for letter in message):
        raise PointerError(f"the message {message!r} is not UTF-8")


def printable(message: str) -> str:
    """A message in one line without what would steer a terminal."""
    return "".join(letter for letter in " ".join(message.split()) if letter.isprintable())


def object_path(cache: Path, digest: str) -> Path:
    """Where a DVC cache (or a remote that is a folder) keeps an object: `files/md5/ab/cdef...`."""
    return cache / "files" / "md5" / digest[:2] / digest[2:]


def read_manifest(cache: Path, digest: str) -> dict[str, str]:
    """md5 of each file of a snapshot by its path in the record.

    Raises
    ------
    AlteredError
        The manifest's own md5 is another one.
    PointerError
        It names a file that no record has: outside of it, twice, unknown, of a name that cannot be; or no database.
    """
    path = object_path(cache, digest)
    content = path.read_bytes()
    if (found := hashlib.md5(content, usedforsecurity=False).hexdigest()) != digest.removesuffix(".dir"):
        raise AlteredError(f"{path} was altered: its md5 is {found}; remove it and try again")
    try:
        entries = json.loads(content)
        files = {entry["relpath"]: entry["md5"] for entry in entries}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise PointerError(f"{path} is no manifest of a snapshot") from None
    for file, md5 in files.items():
        if not (isinstance(md5, str) and _MD5.fullmatch(md5)):
            raise PointerError(
                f"{path}: {file!r:.200} has md5 {md5!r:.200}, which is none; the snapshot is refused"
            )
        if not _belongs(file):
            raise PointerError(f"{path} names {file!r:.200}, which no record holds; the snapshot is refused")
    folders = {str(parent) for file in files for parent in Path(file).parents}
    twice = sorted(folders & set(files))
    if len(files) != len(entries) or twice:
        raise PointerError(f"{path} names {twice[0] if twice else 'a file'} twice; the snapshot is refused")
    if "mlflow.db" not in files:
        raise PointerError(
            f"the snapshot {digest} holds no mlflow.db: it is no record's; the snapshot is refused"
        )
    return dict(sorted(files.items()))


def _belongs(file: Any) -> bool:
    if not isinstance(file, str) or not file.isprintable() or "\\" in file or len(file.encode()) > MAX_BYTES:
        return False
    parts = file.split("/")
    if len(parts) > MAX_DEPTH or any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        return False
    if any(part in ("", ".", "..") or part.startswith(".dvc") for part in parts):
        return False
    return file in FILES if len(parts) == 1 else parts[0] in FOLDERS


def md5_of(path: Path) -> str:
    """md5 of a file in hex: the name that DVC gives its content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def altered(cache: Path, manifest: dict[str, str]) -> list[str]:
    """A line for each object of a snapshot that is not there, or not what its name says."""
    lines = []
    for file, md5 in manifest.items():
        path = object_path(cache, md5)
        if not path.is_file():
            lines.append(f"{file} is missing ({path})")
        elif (found := md5_of(path)) != md5:
            lines.append(
                f"{file} was altered: its md5 is {found}, recorded {md5}: remove {path} and try again"
            )
    return lines
