"""LibriSpeech on disk: ``<part>/<speaker>/<chapter>/<speaker>-<chapter>-<utt>.flac``, as OpenSLR has it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.audio.decode import read_header
from data.corpora.base import (
    UNKNOWN_SEX,
    FileStamp,
    LostRecording,
    Recording,
    Request,
    Scan,
    Segment,
    stamp_of,
)
from data.errors import LOOSE, AudioError, DataError, listed, nearest
from data.store.safe_read import read_text

SUFFIXES = (".flac", ".wav")
TABLE = "SPEAKERS.TXT"
FOLDER = "LibriSpeech"


class LibriSpeechReader:
    """Reads a folder that somebody downloaded; changes nothing in it."""

    def locate(self, request: Request) -> Path:
        """Return the data root or the LibriSpeech folder in it, whichever holds all parts asked for.

        Raises
        ------
        DataError
            There is no data root, or neither holds them all: the message says what is there and what is near.
        """
        parts, data_root = request.parts, request.data_root
        if data_root is None:
            raise DataError(
                "corpus librispeech is read from a folder, and none was given: pass --data-root DIR, "
                f"or set HARNESS_DATA, to the folder that holds {listed(parts)}"
            )
        candidates = [data_root, data_root / FOLDER]
        for root in candidates:
            if all((root / part).is_dir() for part in parts):
                return root
        raise DataError(_missing(parts, candidates))

    def listing(self, root: Path, parts: Sequence[str]) -> list[FileStamp]:
        """Return the audio files of ``parts``; hidden files are passed over."""
        return sorted(stamp for part in parts for stamp in _walk(root / part, root))

    def scan(self, root: Path, files: Sequence[FileStamp]) -> Scan:
        """Read every header; a file that is unreadable, misplaced or named twice is lost."""
        sexes = read_speakers(root / TABLE)
        found: dict[str, dict[str, Recording]] = {}
        lost: list[LostRecording] = []
        for stamp in files:
            try:
                recording = _recording(root, stamp, sexes)
                of_part = found.setdefault(recording.part, {})
                if recording.id in of_part:
                    raise AudioError(f"has the same id, {recording.id}, as another file")
                of_part[recording.id] = recording
            except AudioError as error:
                lost.append(LostRecording(_printable(stamp.path), str(error)))
        recordings = {part: tuple(of_part[i] for i in sorted(of_part)) for part, of_part in found.items()}
        return Scan(recordings, tuple(lost), _remarks(recordings, root))


def read_speakers(path: Path) -> dict[str, str]:
    """Return speaker id -> "F" or "M" from ``ID | SEX | SUBSET | MINUTES | NAME``, where NAME may hold ``|``.

    Lines that begin with ``;`` are comments; a missing file gives no speakers.
    """
    if not path.is_file():
        return {}
    sexes: dict[str, str] = {}
    for line in read_text(path, encoding="utf-8-sig", errors="replace").splitlines():
        if line.lstrip().startswith(";") or "|" not in line:
            continue
        speaker, sex, *_ = (column.strip() for column in line.split("|", 4))
        if speaker and sex.upper() in {"F", "M"}:
            sexes[unicodedata.normalize("NFC", speaker)] = sex.upper()
    return sexes


def _walk(folder: Path, root: Path) -> Iterator[FileStamp]:
    """Yield all that is named like audio, folders and dead links too: `scan` says what is wrong with them."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in SUFFIXES:
            yield stamp_of(path, root)
        elif path.is_dir():
            if path.is_symlink() and path.resolve() in {
                above.resolve() for above in (folder, *folder.parents)
            }:
                raise DataError(f"{path} is a link to a folder that holds it; remove it")
            yield from _walk(path, root)


def _printable(path: str) -> str:
    return path.encode(errors="backslashreplace").decode()


def _recording(root: Path, stamp: FileStamp, sexes: dict[str, str]) -> Recording:
    if _printable(stamp.path) != stamp.path:
        raise AudioError("its name is not UTF-8; rename it")
    # macOS hands out decomposed names: the same corpus must have the same ids everywhere.
    names = unicodedata.normalize("NFC", stamp.path).split("/")
    if len(names) != 4:
        raise AudioError("misplaced: expected <part>/<speaker>/<chapter>/<file>")
    part, speaker, chapter, name = names
    stem = name.rpartition(".")[0]
    own = f"{speaker}-{chapter}-"
    path = root / stamp.path
    header = read_header(path)
    return Recording(
        id=stem if stem.startswith(own) else own + stem,
        path=path,
        part=part,
        chapter=chapter,
        num_samples=header.num_samples,
        sample_rate=header.sample_rate,
        segments=(Segment(0.0, header.frames / header.sample_rate, speaker),),
        sex={speaker: sexes.get(speaker, UNKNOWN_SEX)},
    )


def _remarks(recordings: dict[str, tuple[Recording, ...]], root: Path) -> tuple[str, ...]:
    speakers = {r.speaker: r.sex[r.speaker] for rs in recordings.values() for r in rs}
    unknown = sorted(speaker for speaker, sex in speakers.items() if sex == UNKNOWN_SEX)
    if not unknown:
        return ()
    return (
        f"sex unknown for {len(unknown)} of {len(speakers)} speakers ({listed(unknown, 5)}), not in "
        f"{root / TABLE}: classes are not sex-balanced among them",
    )


def _missing(parts: Sequence[str], candidates: Sequence[Path]) -> str:
    """Say which parts are missing, what is there, and what to do."""
    folders = [root for root in candidates if root.is_dir()]
    if not folders:
        return (
            f"data root {candidates[0]} is not a folder; pass --data-root DIR, or set HARNESS_DATA, "
            f"to the folder that holds {listed(parts)}"
        )
    root = max(folders, key=lambda folder: sum((folder / part).is_dir() for part in parts))
    there = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    missing = [part for part in parts if not (root / part).is_dir()]
    guesses = {part: guess for part in missing if (guess := nearest(part, there, LOOSE))}
    example = next(iter([*guesses.values(), *there, "test-other"]))
    hint = "; did you mean " + ", ".join(f"{g!r} for {p!r}" for p, g in guesses.items()) if guesses else ""
    return (
        f"{root} has no part {listed(missing)} (it holds: {listed(there) or 'no folders'}){hint}. "
        "Pass --data-root DIR (or set HARNESS_DATA) to the folder that holds it, or name parts that are "
        f"there in the sweep file, as in data: {{parts: {{SUBSET: [{example}]}}}}"
    )
