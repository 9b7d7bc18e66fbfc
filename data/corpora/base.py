"""What every corpus yields: recordings made of segments, each spoken by one speaker."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from data.audio.format import SAMPLE_RATE
from data.parts import Parts

if TYPE_CHECKING:
    from data.audio.voice_variants import Variant

UNKNOWN_SEX = "unknown"
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Segment:
    """One speaker's speech from ``start_s`` to ``end_s`` of its recording."""

    start_s: float
    end_s: float
    speaker: str


@dataclass(frozen=True, slots=True)
class Recording:
    """One audio file, known from its header; ``num_samples`` counts samples at 16 kHz.

    ``chapter`` is what was recorded in one sitting (a book's chapter, a meeting). A ``conversation`` has
    several speakers and its segments are the reference of who speaks when; an utterance has one
    speaker and its segment is the whole file. Recordings of one ``group`` share speakers (a meeting
    series); "" for utterances. A reference vouches for ``scored`` only, in seconds (empty: for all of
    the file). A ``variant`` changes the voice of the file when it is decoded.
    """

    id: str
    path: Path
    part: str
    chapter: str
    num_samples: int
    sample_rate: int
    segments: tuple[Segment, ...]
    sex: Mapping[str, str] = field(default_factory=dict)
    conversation: bool = False
    group: str = ""
    scored: tuple[tuple[float, float], ...] = ()
    variant: Variant | None = None

    @property
    def key(self) -> str:
        """Name that is unique in the corpus: two parts may hold the same id (demo clean, other)."""
        return f"{self.part}/{self.id}"

    @property
    def duration_s(self) -> float:
        """Length in seconds, of the samples at 16 kHz."""
        return self.num_samples / SAMPLE_RATE

    @property
    def speaker(self) -> str:
        """The one speaker; asking a recording of several is a programming error."""
        speakers = {segment.speaker for segment in self.segments}
        assert len(speakers) == 1, f"{self.key} has {len(speakers)} speakers"
        return next(iter(speakers))


@dataclass(frozen=True, slots=True)
class LostRecording:
    """A file that cannot be used, ``path`` below its corpus, and why, in one line for a person."""

    path: str
    reason: str


@dataclass(frozen=True)
class Scan:
    """What the headers of some parts say: recordings by part, files lost, remarks worth a flag."""

    recordings: Mapping[str, tuple[Recording, ...]]
    lost: tuple[LostRecording, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, order=True, slots=True)
class FileStamp:
    """A file as its directory entry shows it; ``path`` is relative to the corpus, with ``/``."""

    path: str
    size: int
    mtime_ns: int


def stamp_of(path: Path, root: Path) -> FileStamp:
    """Return the stamp of a file below ``root``; of a link that leads nowhere, its own."""
    try:
        status = path.stat()
    except OSError:
        status = path.lstat()
    return FileStamp(path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Request:
    """What is wanted of a corpus, so that a reader which fetches can fetch only that.

    ``windows`` says how many 3 s windows are wanted of each part at most, ``speakers`` how many speakers;
    ``partition`` and ``revision`` mean what they mean in the data section of a sweep.
    """

    parts: tuple[str, ...]
    data_root: Path | None
    cache: Path
    progress: Progress
    windows: Mapping[str, int] = field(default_factory=dict)
    speakers: int | None = None
    max_download_gb: float | None = None
    partition: str | None = None
    revision: str | None = None


class Reader(Protocol):
    """How a corpus is opened. ``locate`` may make or fetch it; the rest only read."""

    def locate(self, request: Request) -> Path:
        """Return the folder that holds the parts of ``request``, made or fetched first where the corpus is such.

        Raises
        ------
        DataError
            A part is missing, or would cost more than the request allows.
        """
        ...

    def listing(self, root: Path, parts: Sequence[str]) -> list[FileStamp]:
        """Return all audio files of ``parts``, sorted, without opening them: their stamps name the corpus's state."""
        ...

    def scan(self, root: Path, files: Sequence[FileStamp]) -> Scan:
        """Read the headers of ``files``, as `listing` gave them; one that cannot be used is lost, and not raised."""
        ...


@dataclass(frozen=True)
class Corpus:
    """A registered corpus: its subsets, and where its reader is imported from (``module:class``).

    A subset that it lacks is looked for in its ``companions``, so that one sweep may train on read speech
    and be evaluated on meetings.
    """

    name: str
    description: str
    subsets: Mapping[str, Parts]
    reader_at: str
    companions: tuple[str, ...] = ()

    def reader(self) -> Reader:
        """Import the reader's module and make a reader: a new one each time, for it may remember what it located."""
        module, _, name = self.reader_at.partition(":")
        return cast(Reader, getattr(importlib.import_module(module), name)())
