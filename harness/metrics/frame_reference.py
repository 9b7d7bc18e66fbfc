"""What is true of every moment of a meeting, from its reference of who speaks when; one rule a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from pyannote.core import Annotation, Segment, Timeline

from data.audio.format import WINDOW_S
from data.corpora.base import Recording
from data.tasks import TASKS
from data.tasks.activity import SHORTEST_S, activity_of
from data.tasks.diarization import DiarizationTask

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

# A frame is positive within this distance of a change.
TOLERANCE_S = 0.25
# Speakers further apart than this do not meet in one window with SHORTEST_S of speech on each side.
LONGEST_GAP_S = WINDOW_S - 2 * SHORTEST_S


@dataclass(frozen=True)
class Rule:
    """The reference of one task: ``regions(turns)`` are positive; ``text`` says when, and is part of a protocol."""

    text: str
    regions: Callable[[Annotation], Timeline]


def overlap_regions(turns: Annotation) -> Timeline:
    """Return where two speakers or more are active, in seconds of the recording.

    ::

        A        |---------|     |------|
        B             |----------------|
        overlap       |----|     |-----|
    """
    return turns.get_overlap()


def change_points(turns: Annotation) -> list[float]:
    """Return when the active speaker changes, in seconds.

    Between a stretch where A alone is active and the next, where B alone is, lies one change, in the
    middle of what separates them, unless that is 0.5 s of overlap or more, or more than 2 s of silence::

        A   |---------|                 |-----------|
        B                |-----|              |--|        |-----|
        C                      |------|                          > 2 s  |---|
                       ^       ^       ^               ^
        change         c1      c2      c3              c4           none

    B inside A's second turn is no change: the stretches before and after it are both A's.
    """
    overlap = overlap_regions(turns)
    alone = sorted(
        (stretch, label)
        for label in turns.labels()
        for stretch in turns.label_support(label).extrude(overlap, mode="intersection")
    )
    points = []
    for (before, left), (after, right) in pairwise(alone):
        if left == right:
            continue
        gap = Segment(before.end, after.start)
        shared = overlap.crop(gap).duration() if gap else 0.0
        if shared < SHORTEST_S and gap.duration - shared <= LONGEST_GAP_S:
            points.append((before.end + after.start) / 2)
    return points


def change_regions(turns: Annotation) -> Timeline:
    """Return what lies within 0.25 s of a change.

    ::

        change            c
        positive     |----|----|      .25 s on each side
    """
    near = [Segment(point - TOLERANCE_S, point + TOLERANCE_S) for point in change_points(turns)]
    return Timeline(near, uri=turns.uri).support()


def window_labels(task: str, recording: Recording, starts_s: Floats) -> Booleans:
    """Say of the windows that begin at ``starts_s`` (window,) whether the task labels them 1.

    Windows that the task drops as ambiguous count as 0.
    """
    spoken: dict[str, list[tuple[float, float]]] = {}
    for turn in recording.segments:
        spoken.setdefault(turn.speaker, []).append((turn.start_s, turn.end_s))
    meeting = activity_of(spoken, recording.duration_s)
    rule = TASKS[task]
    assert isinstance(rule, DiarizationTask), f"{task} does not judge who speaks when"
    return np.array([rule.judge(meeting.between(s, s + WINDOW_S)) == 1 for s in starts_s], dtype=bool)


RULES = {
    "overlap": Rule("2 speakers or more are active", overlap_regions),
    "speaker_change": Rule(
        "within 0.25 s of the middle between a stretch where one speaker alone is active and the next, where another "
        "is, with less than 0.5 s of overlap and at most 2 s of silence between them",
        change_regions,
    ),
}
