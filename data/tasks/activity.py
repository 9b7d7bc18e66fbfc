"""Who speaks when in a window: what every rule of a diarization task is stated in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data.audio.format import SAMPLE_RATE, WINDOW_SAMPLES
from data.audio.speech_activity import Speech
from data.corpora.base import Recording
from data.tasks.base import Piece

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SHORTEST_S = 0.5  # speech, overlap or a turn shorter than this is neither there nor absent
_PER_S = 1_000  # frames: a millisecond each
_HALF_FADE = 40  # samples: in a cross-fade each voice has its half
Interval = tuple[float, float]  # seconds, from the window's start


@dataclass(frozen=True)
class Activity:
    """``active`` (speaker, millisecond) bool over a window, one row for each of ``speakers``."""

    speakers: tuple[str, ...]
    active: npt.NDArray[np.bool_]

    @property
    def speech_s(self) -> float:
        """Seconds in which anybody speaks; overlap counts once."""
        return int(self.active.any(axis=0).sum()) / _PER_S

    @property
    def overlap_s(self) -> float:
        """Seconds in which two or more speak at once."""
        return int((self.active.sum(axis=0) >= 2).sum()) / _PER_S

    def seconds(self) -> dict[str, float]:
        """Return speaker -> seconds of speech, of those who speak at all; overlap counts for each of them."""
        return {
            s: int(row.sum()) / _PER_S for s, row in zip(self.speakers, self.active, strict=True) if row.any()
        }

    def between(self, start_s: float, end_s: float) -> Activity:
        """Return the activity from ``start_s`` to ``end_s``, as a view; times count from the new start."""
        return Activity(self.speakers, self.active[:, round(start_s * _PER_S) : round(end_s * _PER_S)])

    def changes_s(self) -> list[float]:
        """Return when the one who speaks alone becomes another: in the middle of what lies between.

        ::

            A  -----           --          silence or overlap between two turns: the change is
            B         ------               in its middle
                   ^         ^
        """
        import numpy as np

        alone = np.flatnonzero(self.active.sum(axis=0) == 1)
        who = self.active[:, alone].argmax(axis=0)
        turns = np.flatnonzero(np.diff(who))
        return [float(alone[i] + 1 + alone[i + 1]) / 2 / _PER_S for i in turns]


def activity_of(intervals: Mapping[str, Iterable[Interval]], seconds: float = 3.0) -> Activity:
    """Return the activity of a window of ``seconds`` from each speaker's intervals of speech."""
    import numpy as np

    speakers = tuple(sorted(intervals))
    active = np.zeros((len(speakers), round(seconds * _PER_S)), dtype=bool)
    for row, speaker in enumerate(speakers):
        for start_s, end_s in intervals[speaker]:
            active[row, max(0, round(start_s * _PER_S)) : max(0, round(end_s * _PER_S))] = True
    return Activity(speakers, active)


def activity_of_pieces(pieces: Iterable[Piece], speech: Mapping[str, Speech]) -> Activity:
    """Return the activity of a window made of ``pieces``.

    Parameters
    ----------
    speech : measured speech by recording key; an utterance that is not measured yet counts as all speech.
    """
    heard: dict[str, list[Interval]] = {}
    for piece in pieces:
        for speaker, first, last in _spoken(piece, speech):
            edge = (0, piece.num_samples) if _is_whole(piece) else _inner(piece)
            start, end = max(first, edge[0]) + piece.at_sample, min(last, edge[1]) + piece.at_sample
            if start < end:
                heard.setdefault(speaker, []).append((start / SAMPLE_RATE, end / SAMPLE_RATE))
    return activity_of(heard)


def _is_whole(piece: Piece) -> bool:
    return piece.at_sample == 0 and piece.num_samples == WINDOW_SAMPLES


def _inner(piece: Piece) -> tuple[int, int]:
    """Return the piece less half of each fade, in samples from its start."""
    first = _HALF_FADE if piece.at_sample > 0 else 0
    ends_inside = piece.at_sample + piece.num_samples < WINDOW_SAMPLES
    return first, piece.num_samples - (_HALF_FADE if ends_inside else 0)


def _spoken(piece: Piece, speech: Mapping[str, Speech]) -> Iterable[tuple[str, int, int]]:
    """Yield (speaker, first, last) in samples from the piece's start."""
    recording, start, end = piece.recording, piece.start_sample, piece.start_sample + piece.num_samples
    if recording.conversation:
        for segment in recording.segments:
            first, last = round(segment.start_s * SAMPLE_RATE), round(segment.end_s * SAMPLE_RATE)
            if first < end and last > start:
                yield segment.speaker, max(first, start) - start, min(last, end) - start
    elif recording.key in speech:
        for first, last in speech[recording.key].within(start, end):
            yield recording.speaker, first, last
    else:
        yield recording.speaker, 0, piece.num_samples


def active_speakers(recording: Recording, start: int, end: int) -> tuple[str, ...]:
    """Return who speaks in a conversation between two samples, sorted."""
    spoken = _spoken(Piece(recording, start, end - start), {})
    return tuple(sorted({speaker for speaker, _, _ in spoken}))
