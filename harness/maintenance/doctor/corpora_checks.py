"""What `harness doctor` looks at in the folder of corpora: which are found, and whether their files can be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from data.audio.decode import read_header
from data.corpora import CORPORA
from data.corpora.base import Request
from data.errors import DataError
from harness.core.settings import Settings
from harness.maintenance.doctor.finding import Finding, ok, problem, warn

# Read from folders; the others are fetched, or lie in parquet files.
FOLDERS = ("librispeech", "ami")
AUDIO = (".flac", ".wav")
NAME_IT = "name the folder of the corpora (with LibriSpeech/ or AMI/ in it) with --data-root or HARNESS_DATA"


def data_root(settings: Settings) -> Iterator[Finding]:
    """The corpora in the data root, part by part; downloads and decodes nothing."""
    root = settings.data_root
    if root is None:
        yield ok("data", "no data root is named: corpus demo needs none, the others --data-root or the hub")
        return
    if not root.is_dir():
        yield problem("data", f"data root {root} is not a folder", NAME_IT)
        return
    if not os.access(root, os.R_OK | os.X_OK):
        yield problem("data", f"data root {root} may not be read", f"chmod u+rX {root}")
        return
    found = [finding for corpus in FOLDERS for finding in _parts(corpus, root, settings.cache)]
    yield from found
    if not found and next(root.glob("**/*.parquet"), None) is not None:
        yield ok("data", f"{root} has parquet files, for librispeech_hub or ami_hub")
    elif not found:
        yield warn("data", f"data root {root} holds no corpus that is known", NAME_IT)


def _parts(corpus: str, root: Path, cache: Path) -> Iterator[Finding]:
    subsets = CORPORA[corpus].subsets.values()
    there: list[str] = []
    wrong: dict[str, tuple[Finding, list[str]]] = {}
    for part in sorted({part for parts in subsets for part in (*parts.train, *parts.val, *parts.test)}):
        try:
            there.append(f"{part} ({_files(corpus, part, root, cache)} files)")
        except DataError as error:
            if not _is_absent(corpus, root, str(error)):
                wrong.setdefault(str(error), (_wrong(corpus, part, root, cache, error), []))[1].append(part)
        except OSError as error:
            yield problem("data", f"{corpus} {part}: {error}", f"let this user read it: chmod -R u+rX {root}")
    if there:
        yield ok("data", f"{corpus}: {', '.join(there)}")
    for finding, parts in wrong.values():
        yield replace(finding, message=f"{corpus} {', '.join(parts)}: {finding.message}")


def _files(corpus: str, part: str, root: Path, cache: Path, partition: str | None = None) -> int:
    """How many audio files a part has; the header of the first is read."""
    reader = CORPORA[corpus].reader()
    request = Request(
        parts=(part,), data_root=root, cache=cache, progress=lambda text: None, partition=partition
    )
    folder = reader.locate(request)
    audio = [file for file in reader.listing(folder, (part,)) if file.path.endswith(AUDIO)]
    if audio:
        read_header(folder / audio[0].path)
    return len(audio)


def _wrong(corpus: str, part: str, root: Path, cache: Path, error: DataError) -> Finding:
    """A part that cannot be used, or (AMI) only by lists of its own."""
    try:
        _files(corpus, part, root, cache, partition="lists")
    except DataError:
        return problem("data", str(error), "mend the folder as the message says")
    return warn(
        "data", str(error), "data: {partition: lists} in the sweep file, for want of the official lists"
    )


def _is_absent(corpus: str, root: Path, reason: str) -> bool:
    """Whether a part was never put there, which is no fault: few machines hold everything."""
    if corpus == "ami" and any((root / name / "amicorpus").is_dir() for name in ("", "AMI")):
        return "no meeting of part" in reason
    return "has no" in reason
