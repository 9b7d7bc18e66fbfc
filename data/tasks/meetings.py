"""Windows cut from conversations by their reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from data.audio.format import SAMPLE_RATE
from data.corpora.base import Recording
from data.tasks.activity import Activity, active_speakers, activity_of_pieces
from data.tasks.base import Piece, PlannedWindow

Classes = tuple[list[PlannedWindow], list[PlannedWindow]]
OUTSIDE = "outside the scored part"


class Rule(Protocol):
    """The part of a diarization task that `from_meetings` needs: how windows are cut, and how they are judged."""

    def cut(self, conversation: Recording, step: int) -> Iterator[tuple[Piece, ...]]:
        """Yield candidates of a conversation, the pieces of a window each, ``step`` samples apart."""
        ...

    def judge(self, activity: Activity) -> int | str:
        """Return the class of a window by who speaks when in it, or why it is ambiguous."""
        ...


def from_meetings(
    rule: Rule,
    meetings: Iterable[Recording],
    units: Mapping[str, str],
    subset: str,
    step: int,
    dropped: Counter[str],
) -> Classes:
    """Return the windows of class 0 and of class 1; what is ambiguous is counted in ``dropped``.

    The cluster of a window is its unit (see `units_of`): meetings that share a speaker are not independent.
    """
    classes: Classes = ([], [])
    for meeting in meetings:
        for pieces in rule.cut(meeting, step):
            verdict = rule.judge(activity_of_pieces(pieces, {})) if _is_scored(pieces) else OUTSIDE
            if isinstance(verdict, str):
                dropped[verdict] += 1
            else:
                classes[verdict].append(_window(pieces, verdict, units[meeting.key], subset))
    return classes


def _is_scored(pieces: Iterable[Piece]) -> bool:
    """Tell whether the reference vouches for all of a window; nothing is known outside its regions."""
    return all(
        not piece.recording.scored
        or any(
            round(start_s * SAMPLE_RATE) <= piece.start_sample
            and piece.start_sample + piece.num_samples <= round(end_s * SAMPLE_RATE)
            for start_s, end_s in piece.recording.scored
        )
        for piece in pieces
    )


def _window(pieces: tuple[Piece, ...], label: int, cluster: str, subset: str) -> PlannedWindow:
    recording = pieces[0].recording
    heard = [active_speakers(recording, p.start_sample, p.start_sample + p.num_samples) for p in pieces]
    speakers = tuple(sorted({speaker for some in heard for speaker in some}))
    return PlannedWindow(pieces, label, "+".join(speakers), cluster, speakers, subset)
