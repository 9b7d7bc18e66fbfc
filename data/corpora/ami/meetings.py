"""What a folder of AMI and its copy on the hub share: meetings -> recordings, and parts that share nobody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pyannote.core import Segment as Span
from pyannote.core import Timeline

from data.audio.decode import read_header
from data.corpora.ami.partition import OFFICIAL, OFFICIAL_PARTITION, group_of, sex_of
from data.corpora.base import UNKNOWN_SEX, LostRecording, Recording, Scan, Segment
from data.corpora.rttm import read_rttm, read_uem
from data.errors import AudioError, DataError, listed, unknown

PARTITIONS = (OFFICIAL_PARTITION, "lists")


@dataclass(frozen=True)
class Meeting:
    """The files of a meeting; None where one is missing."""

    id: str
    part: str
    audio: Path | None
    rttm: Path | None
    uem: Path | None = None


def is_official(partition: str | None) -> bool:
    """Tell whether the official partition is asked for, which is the default (None).

    Raises
    ------
    DataError
        A name other than those of `PARTITIONS`.
    """
    if partition not in (None, *PARTITIONS):
        raise DataError(unknown("AMI partition", partition, PARTITIONS))
    return partition in (None, OFFICIAL_PARTITION)


def check_official(claims: Iterable[tuple[str, str]], where: str, theirs: Mapping[str, str]) -> None:
    """Refuse ``(meeting, part)`` that contradict the official partition, as copies with ES2003 in dev do.

    ``theirs`` gives the official name of a part: the hub calls dev validation.
    """
    moved: dict[tuple[str, str], set[str]] = {}
    for meeting, part in claims:
        official = OFFICIAL.get(meeting)
        if official is not None and official != theirs.get(part, part):
            moved.setdefault((part, official), set()).add(meeting)
    if moved:
        named = "; ".join(
            f"{listed(sorted(meetings))}: {part} there, {official} officially"
            for (part, official), meetings in sorted(moved.items())
        )
        raise DataError(
            f"{where} does not follow AMI's official partition {OFFICIAL_PARTITION} ({named}). A model trained "
            "on the official train part has heard what this copy holds out, so its scores would mean "
            "nothing. Get the lists of Full-corpus-ASR, or write `partition: lists` into the data section to go by "
            "this copy; then every model of a comparison must be trained and scored with these lists"
        )


def check_disjoint(parts: Mapping[str, str], speakers: Mapping[str, Iterable[str]], where: str) -> None:
    """Refuse a meeting series or a speaker that stands in two parts.

    Parameters
    ----------
    parts : meeting -> part.
    speakers : meeting -> its speakers, as far as they are known.
    """
    for what, members in (
        ("meeting series", {meeting: [group_of(meeting)] for meeting in parts}),
        ("speakers", {meeting: speakers.get(meeting, ()) for meeting in parts}),
    ):
        stands: dict[str, dict[str, set[str]]] = {}
        for meeting, names in members.items():
            for name in names:
                stands.setdefault(name, {}).setdefault(parts[meeting], set()).add(meeting)
        shared = [
            f"{name} ({'; '.join(f'{part}: {listed(sorted(of[part]), 3)}' for part in sorted(of))})"
            for name, of in sorted(stands.items())
            if len(of) > 1
        ]
        if shared:
            raise DataError(
                f"{where} has {what} in two parts: {listed(shared, 5)}. What is heard in training cannot "
                "be held out; put all their meetings into one part"
            )


def scan_meetings(meetings: Iterable[Meeting], root: Path, parts: Iterable[str]) -> Scan:
    """Read headers and references; a meeting without audio or reference is lost, a bad reference refused."""
    found: dict[str, list[Recording]] = {part: [] for part in parts}
    lost: list[LostRecording] = []
    for meeting in sorted(meetings, key=lambda meeting: (meeting.part, meeting.id)):
        try:
            found[meeting.part].append(_recording(meeting))
        except AudioError as error:
            at = meeting.audio.relative_to(root).as_posix() if meeting.audio else meeting.id
            lost.append(LostRecording(at, str(error)))
    recordings = {part: tuple(of_part) for part, of_part in found.items() if of_part}
    return Scan(recordings, tuple(lost), tuple(_remarks(recordings)))


def _recording(meeting: Meeting) -> Recording:
    if meeting.audio is None:
        raise AudioError(f"meeting {meeting.id} of {meeting.part} is listed, but has no audio")
    if meeting.rttm is None:
        raise AudioError(f"meeting {meeting.id} of {meeting.part} has no reference (RTTM)")
    header = read_header(meeting.audio)
    scored = Timeline([Span(0.0, header.frames / header.sample_rate)])
    if meeting.uem:
        scored = scored.crop(read_uem(meeting.uem, meeting.id), mode="intersection")
    # The support: a speaker's turns that touch or overlap are one, so nobody overlaps with themselves.
    turns = read_rttm(meeting.rttm, meeting.id).crop(scored, mode="intersection").support()
    segments = tuple(
        Segment(span.start, span.end, str(name)) for span, _, name in turns.itertracks(yield_label=True)
    )
    if not segments:
        raise AudioError(f"nobody speaks in the scored part of its reference {meeting.rttm.name}")
    return Recording(
        id=meeting.id,
        path=meeting.audio,
        part=meeting.part,
        chapter=meeting.id,
        num_samples=header.num_samples,
        sample_rate=header.sample_rate,
        segments=segments,
        sex={name: sex_of(name) or UNKNOWN_SEX for name in sorted({segment.speaker for segment in segments})},
        conversation=True,
        group=group_of(meeting.id),
        scored=tuple((span.start, span.end) for span in scored.support()),
    )


def _remarks(recordings: Mapping[str, tuple[Recording, ...]]) -> Iterable[str]:
    sexes = {name: sex for rs in recordings.values() for r in rs for name, sex in r.sex.items()}
    if strangers := sorted(name for name, sex in sexes.items() if sex == UNKNOWN_SEX):
        yield (
            f"sex unknown for {len(strangers)} of {len(sexes)} speakers ({listed(strangers, 5)}): "
            "their ids are none of AMI's"
        )
