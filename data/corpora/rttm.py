"""References of who speaks when: RTTM, UEM and lists of meetings, read through pyannote.

pyannote.database reads what it can: a line with a field too many shifts its columns, "NA" becomes a
speaker called nan, a NaN start drops the turn. So every line is checked here before it is handed on.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from pyannote.core import Annotation, Segment, Timeline
from pyannote.database.util import load_lst, load_rttm, load_uem

from data.corpora.base import Recording
from data.errors import DataError
from data.store.safe_read import read_text

_Loaded = TypeVar("_Loaded")
LONGEST_S = 1e6  # eleven days: no meeting, but a number in the wrong unit or column
_NUMBER = re.compile(r"(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_MISSING = {"na", "n/a", "nan", "null", "none", "#n/a", "#na", "<na>"}  # what pandas reads as nothing
_NAME = re.compile(r"\w[\w.-]*")


def reference(recording: Recording) -> Annotation:
    """Return the segments of ``recording`` as an Annotation, its uri the recording's id."""
    annotation = Annotation(uri=recording.id)
    for track, segment in enumerate(recording.segments):
        annotation[Segment(segment.start_s, segment.end_s), track] = segment.speaker
    return annotation


def read_rttm(path: Path, meeting: str) -> Annotation:
    """Return the turns of ``meeting``, whose file holds nothing else; one without turns gives none.

    Raises
    ------
    DataError
        A file that cannot be read, or a bad line, with its number.
    """
    lines = [line for _, line, _ in _turns(path, meeting)]
    loaded = _load(load_rttm, "\n".join(lines), path)
    annotation = loaded.get(meeting, Annotation(uri=meeting))
    if sum(1 for _ in annotation.itertracks()) != len(lines):
        raise DataError(
            f"{path} cannot be read as RTTM: {len(lines)} turns are not what pyannote finds in it"
        )
    return annotation


def read_speakers(path: Path, meeting: str) -> frozenset[str]:
    """Return the speakers of an RTTM file, without building its turns; DataError as `read_rttm`."""
    return frozenset(speaker for _, _, speaker in _turns(path, meeting))


def read_uem(path: Path, meeting: str) -> Timeline:
    """Return the scored regions of ``meeting``: ``<meeting> <channel> <start> <end>`` a line.

    Raises
    ------
    DataError
        A file that cannot be read or has no region, or a bad line, with its number.
    """
    kept = []
    for number, fields in _lines(path):
        if len(fields) != 4:
            raise _bad(path, number, f"has {len(fields)} fields; a UEM line has 4")
        _check_meeting(path, number, fields[0], meeting)
        start, end = _seconds(path, number, fields[2], "start"), _seconds(path, number, fields[3], "end")
        if not Segment(start, end):
            raise _bad(path, number, f"ends at {end:g} s, not after its start at {start:g} s")
        kept.append(" ".join(fields))
    if not kept:
        raise DataError(f"{path} is empty; a UEM names the regions that are scored")
    timeline: Timeline = _load(load_uem, "\n".join(kept), path)[meeting]
    return timeline


def read_meetings(path: Path) -> list[str]:
    """Return the meetings that a list names, one a line; DataError names a line that is no name."""
    try:
        names = load_lst(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable list: {error}") from error
    for number, name in enumerate(names, 1):
        if name and not _NAME.fullmatch(name):
            raise _bad(path, number, f"is no meeting id: {name[:60]!r}")
    return [name for name in names if name]


def _turns(path: Path, meeting: str) -> Iterator[tuple[int, str, str]]:
    """Yield (line number, line, speaker) of every turn that lasts; other types of line are passed over."""
    for number, fields in _lines(path):
        if fields[0] != "SPEAKER":
            if re.fullmatch(r"[A-Z][A-Z/-]*", fields[0]):
                continue
            raise _bad(path, number, f"begins with {fields[0][:20]!r}; a turn begins with 'SPEAKER'")
        if not 9 <= len(fields) <= 10:
            raise _bad(path, number, f"has {len(fields)} fields; an RTTM line has 9 or 10")
        _check_meeting(path, number, fields[1], meeting)
        start = _seconds(path, number, fields[3], "start")
        duration = _seconds(path, number, fields[4], "duration")
        if fields[7].casefold() in _MISSING:
            raise _bad(path, number, f"names no speaker: {fields[7]!r}")
        if Segment(start, start + duration):
            # As 10 fields: pandas takes the number of columns from the first line.
            yield number, " ".join([*fields, "<NA>"][:10]), fields[7]


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of the lines that are not empty and no ``;;`` comments."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        line = line.replace("\t", " ")
        if not line.strip() or line.lstrip().startswith(";;"):
            continue
        if not line.isprintable() or '"' in line:
            raise _bad(path, number, f"holds characters that do not belong there: {line[:60]!r}")
        yield number, line.split()


def _seconds(path: Path, number: int, field: str, what: str) -> float:
    value = float(field) if _NUMBER.fullmatch(field) else math.nan
    if not value < LONGEST_S:
        raise _bad(path, number, f"has {what} {field[:30]!r}; expected seconds, 0 or more")
    return value


def _check_meeting(path: Path, number: int, found: str, meeting: str) -> None:
    if found != meeting:
        raise _bad(path, number, f"is of {found[:30]!r}, not of {meeting}")


def _bad(path: Path, number: int, what: str) -> DataError:
    return DataError(f"{path}, line {number} {what}; repair the file or fetch it again")


def _load(
    load: Callable[[io.StringIO], Mapping[str, _Loaded]], text: str, path: Path
) -> Mapping[str, _Loaded]:
    if not text:
        return {}
    try:
        return load(io.StringIO(text))
    except ValueError as error:  # pandas' errors are ValueErrors
        raise DataError(f"{path} cannot be read: {error}") from error
