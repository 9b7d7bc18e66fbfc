"""The files of a bundle: what stands in SHA256SUMS and nothing else, each read once. Standard library only."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from harness.core.errors import InputError
from harness.core.files import sha256_of

SUMS = "SHA256SUMS"
MODEL = "model.onnx"
SPECIFICATION = "specification.json"
EVIDENCE = "evidence.json"
WAVEFORM = "golden/waveform.npy"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


class NoBundleError(InputError):
    """There is no bundle at this place; one that is broken is another matter, and refused."""


def golden_of(model: str) -> str:
    """Golden outputs of a model: model.onnx -> golden/logits.npy, model.int8.onnx -> golden/logits.int8.npy."""
    variant = model.removeprefix("model").removesuffix(".onnx")
    return f"golden/logits{variant}.npy"


def bundle_digest(folder: Path) -> str:
    """sha256 of SHA256SUMS, hex: since that lists the digest of every other file, one digest stands for them all."""
    return hashlib.sha256((folder / SUMS).read_bytes()).hexdigest()


def sums_text(folder: Path) -> str:
    """What SHA256SUMS has to hold for the files that lie there now, in the format of `sha256sum`."""
    lines = []
    for name in sorted(names_in(folder)):
        if name != SUMS:
            lines.append(f"{sha256_of(folder / name)}  {name}\n")
    return "".join(lines)


def require_bundle(folder: Path) -> None:
    """Say what is wrong where there is no bundle.

    Raises
    ------
    NoBundleError
        With the nearest folder that holds one.
    """
    if folder.is_dir() and any((folder / name).exists() for name in (SUMS, MODEL, SPECIFICATION)):
        return
    reason = "no bundle in it" if folder.is_dir() else "no such folder"
    around = folder if folder.is_dir() else folder.parent
    there = sorted(path.parent.name for path in around.glob(f"*/{SUMS}")) if around.is_dir() else []
    # By hand: the package `data` is not there where only bundles are verified.
    near = difflib.get_close_matches(folder.name, there, n=1) or there[:1]
    hint = f"did you mean {around / near[0]}?" if near else "`harness promote STUDY` writes one"
    raise NoBundleError(f"{folder}: {reason}; {hint}")


def read_bundle(folder: Path) -> tuple[dict[str, bytes], list[str], list[str]]:
    """Read every listed file once, so that what is digested is what is used.

    Links and whatever is not a plain file are reported and not read.

    Returns
    -------
    files : content by name, of those alone whose digest is right
    wrong : a line for each file that is missing, not listed, listed twice or not plain
    altered : a line for each whose sha256 is another one
    """
    listed, wrong = _listed(folder)
    there = set(names_in(folder)) - {SUMS}
    wrong += [f"{name} is not in {SUMS}" for name in sorted(there - set(listed))]
    files: dict[str, bytes] = {}
    altered = []
    for name, digest in listed.items():
        if name not in there:
            wrong.append(f"{name} is missing")
            continue
        content = _read(folder / name)
        if isinstance(content, str):
            wrong.append(f"{name} {content}")
        elif (actual := hashlib.sha256(content).hexdigest()) != digest:
            altered.append(f"{name} was altered: its sha256 is {actual[:12]}.., {SUMS} has {digest[:12]}..")
        else:
            files[name] = content
    return files, wrong, altered


def names_in(folder: Path) -> Iterator[str]:
    """Everything in a folder that is no folder itself, by relative path; links are not followed."""
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in [*names, *links]:
            yield (Path(place) / name).relative_to(folder).as_posix()


def _listed(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Digest by name, and what is wrong with the list itself."""
    content = _read(folder / SUMS)
    if isinstance(content, str):
        return {}, [f"{SUMS} {content}"]
    listed: dict[str, str] = {}
    wrong = []
    text = content.decode("utf-8", "replace")
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        parts = _LINE.fullmatch(line)
        if parts is None:
            wrong.append(f"{SUMS}, line {number}: not a sha256, two spaces and a path: {line[:100]!r}")
        elif not _is_inside(parts[2]):
            wrong.append(f"{SUMS}, line {number}: {parts[2]!r} is not a plain path inside the bundle")
        elif parts[2] in listed:
            wrong.append(f"{SUMS}, line {number}: {parts[2]} for the second time")
        else:
            listed[parts[2]] = parts[1]
    return listed, wrong


def _is_inside(name: str) -> bool:
    """Whether it names a file in the folder, in the one way that there is to write it."""
    parts = name.split("/")
    return name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(parts) and name != SUMS


def _read(path: Path) -> bytes | str:
    """The content of a plain file, or what it is instead."""
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            return "is a symbolic link: a bundle holds plain files"
        if not stat.S_ISREG(found.st_mode):
            return "is not a plain file"
        if found.st_nlink > 1:
            return "has a second name (hard link), through which it can be changed: copy the bundle"
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
