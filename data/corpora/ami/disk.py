"""AMI on disk, in the layout of BUTSpeechFIT/AMI-diarization-setup beside the corpus's own audio.

::

    amicorpus/<meeting>/audio/<meeting>.Mix-Headset.wav    only_words/rttms/<part>/<meeting>.rttm
    lists/<part>.meetings.txt                              uems/<part>/<meeting>.uem
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data.corpora.ami.meetings import Meeting, check_disjoint, check_official, is_official, scan_meetings
from data.corpora.ami.partition import OFFICIAL, OFFICIAL_PARTITION, PARTS
from data.corpora.base import FileStamp, Request, Scan, stamp_of
from data.corpora.rttm import read_meetings, read_speakers, reference
from data.errors import DataError, listed, unknown

__all__ = ["AmiReader", "reference"]

FOLDER = "AMI"
AUDIO, LISTS, RTTMS, UEMS = "amicorpus", "lists", "only_words/rttms", "uems"


class AmiReader:
    """Reads a folder that somebody downloaded; changes nothing in it.

    It remembers the partition that `locate` was asked for, and what `listing` listed.
    """

    def __init__(self) -> None:
        self._official = True
        self._parts: tuple[str, ...] = PARTS

    def locate(self, request: Request) -> Path:
        """Return the data root or the AMI folder in it, after checking its partition.

        Raises
        ------
        DataError
            No such folder or part; a partition that is not the one asked for; parts that share a
            meeting series or a speaker; a bad line in a reference.
        """
        for part in request.parts:
            if part not in PARTS:
                raise DataError(unknown("part of corpus ami", part, PARTS))
        self._official = is_official(request.partition)
        folder = _Folder(_find(request.data_root), self._official)
        folder.check()
        for part in request.parts:
            if part not in folder.parts.values():
                raise DataError(_no_meeting(part, folder))
        return folder.root

    def listing(self, root: Path, parts: Sequence[str]) -> list[FileStamp]:
        """Return audio, RTTM and UEM files of the meetings of ``parts``, and the lists."""
        self._parts = tuple(parts)
        folder = _Folder(root, self._official)
        of_meetings = [(m.audio, m.rttm, m.uem) for m in folder.meetings(parts)]
        paths = [*folder.lists.values(), *(path for files in of_meetings for path in files if path)]
        return sorted(stamp_of(path, root) for path in paths)

    def scan(self, root: Path, files: Sequence[FileStamp]) -> Scan:
        """Read headers and references of the meetings that were listed; ``files`` is what `listing` gave."""
        folder = _Folder(root, self._official)
        scan = scan_meetings(folder.meetings(self._parts), root, self._parts)
        return Scan(scan.recordings, scan.lost, (*scan.remarks, *folder.remarks(self._parts)))


@dataclass(frozen=True)
class _Folder:
    """The names of the files in a folder of AMI, and which part each meeting is in."""

    root: Path
    official: bool

    @cached_property
    def lists(self) -> dict[str, Path]:
        """Part -> its list of meetings; a part without a list is left out."""
        found = {part: self.root / LISTS / f"{part}.meetings.txt" for part in PARTS}
        return {part: path for part, path in found.items() if path.is_file()}

    @cached_property
    def claims(self) -> list[tuple[str, str]]:
        """(meeting, part) as the lists have it."""
        return [(meeting, part) for part, path in self.lists.items() for meeting in read_meetings(path)]

    @cached_property
    def audio(self) -> dict[str, Path]:
        """Meeting -> its headset mix: the close-talking microphones of all participants summed into one channel."""
        found = {path.parts[-3]: path for path in (self.root / AUDIO).glob("*/audio/*.Mix-Headset.wav")}
        return {meeting: path for meeting, path in found.items() if path.name.startswith(f"{meeting}.")}

    @cached_property
    def rttms(self) -> dict[str, Path]:
        """Meeting -> its reference, in whichever part it lies."""
        return self._of_parts(RTTMS, ".rttm")

    @cached_property
    def uems(self) -> dict[str, Path]:
        """Meeting -> its scored regions, in whichever part they lie."""
        return self._of_parts(UEMS, ".uem")

    def _of_parts(self, place: str, suffix: str) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for path in sorted(p for part in PARTS for p in (self.root / place / part).glob(f"[!.]*{suffix}")):
            if path.stem in found:
                raise DataError(
                    f"meeting {path.stem} stands twice: {found[path.stem]} and {path}; remove one"
                )
            found[path.stem] = path
        return found

    @cached_property
    def parts(self) -> dict[str, str]:
        """Meeting -> part, of the meetings that this folder lists or holds."""
        if not self.official:
            return dict(self.claims)
        there = {*self.audio, *self.rttms, *(meeting for meeting, _ in self.claims)}
        return {meeting: OFFICIAL[meeting] for meeting in sorted(there) if meeting in OFFICIAL}

    def check(self) -> None:
        """Refuse a partition that is not the one asked for, and parts that share a series or a speaker."""
        if self.official:
            lying = [(meeting, path.parent.name) for meeting, path in self.rttms.items()]
            check_official([*self.claims, *lying], str(self.root), {})
        elif not self.lists:
            raise DataError(
                f"{self.root / LISTS} has none of {listed(f'{part}.meetings.txt' for part in PARTS)}, and "
                f"`partition: lists` goes by them; write them, or use `partition: {OFFICIAL_PARTITION}`"
            )
        elif twice := sorted({m for m, part in self.claims if self.parts[m] != part}):
            raise DataError(f"{self.root / LISTS}: {listed(twice)} in two lists; leave each in one")
        speakers = {m: read_speakers(self.rttms[m], m) for m in self.parts if m in self.rttms}
        check_disjoint(self.parts, speakers, str(self.root))

    def meetings(self, parts: Sequence[str]) -> list[Meeting]:
        """Return the meetings of ``parts`` with the files they have."""
        return [
            Meeting(m, part, self.audio.get(m), self.rttms.get(m), self.uems.get(m))
            for m, part in sorted(self.parts.items())
            if part in parts
        ]

    def remarks(self, parts: Sequence[str]) -> list[str]:
        """Return what is worth a flag: a partition that is not the official one, meetings left out."""
        remarks = []
        if not self.official:
            remarks.append("AMI by this folder's own lists: not comparable with the official partition")
        elif strangers := sorted({*self.rttms, *(m for m, _ in self.claims)} - OFFICIAL.keys()):
            remarks.append(
                f"{len(strangers)} meetings ({listed(strangers, 5)}) are in no part of the official "
                "partition and left out"
            )
        whole = [m.id for m in self.meetings(parts) if m.uem is None]
        if whole:
            remarks.append(f"{len(whole)} meetings ({listed(whole, 5)}) have no UEM: scored from end to end")
        return remarks


def _find(data_root: Path | None) -> Path:
    if data_root is None:
        raise DataError(
            "corpus ami is read from a folder, and none was given: pass --data-root DIR, or set "
            f"HARNESS_DATA, to the folder that holds {AUDIO}/ or {FOLDER}/{AUDIO}/"
        )
    for root in (data_root, data_root / FOLDER):
        if (root / AUDIO).is_dir():
            return root
    if not data_root.is_dir():
        there = "is not a folder"
    else:
        names = sorted(p.name for p in data_root.iterdir() if p.is_dir() and not p.name.startswith("."))
        there = f"has no {AUDIO}/ and no {FOLDER}/{AUDIO}/ (it holds: {listed(names) or 'no folders'})"
    raise DataError(
        f"data root {data_root} {there}; pass --data-root DIR, or set HARNESS_DATA, to the folder of the "
        f"AMI corpus, with {AUDIO}/<meeting>/audio/<meeting>.Mix-Headset.wav and {RTTMS}/<part>/<meeting>.rttm"
    )


def _no_meeting(part: str, folder: _Folder) -> str:
    partition = "the official partition" if folder.official else "its own lists"
    counts = [f"{list(folder.parts.values()).count(p)} {p}" for p in PARTS]
    return (
        f"{folder.root} has no meeting of part {part} by {partition} (it has {listed(counts)}); fetch "
        "them, or name parts that are there in the sweep file, as in data: {parts: {ami: [train]}}"
    )
