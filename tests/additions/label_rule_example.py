"""A label rule in one file: 0 1 1 0 0 1 1 0 ... over sorted ids, within each (group, sex)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from data.labels import LABEL_RULES, Speaker


def snake_labels(speakers: Sequence[Speaker]) -> dict[str, int]:
    """Deal classes as teams are picked: neither class always goes first.

    Law: the classes do not depend on the order of ``speakers``, and differ by at most one speaker in each
    (group, sex).
    """
    classes: dict[str, int] = {}
    ordered = sorted(speakers, key=lambda speaker: (speaker.group, speaker.sex, speaker.id))
    for _, alike in groupby(ordered, key=lambda speaker: (speaker.group, speaker.sex)):
        classes |= {speaker.id: (0, 1, 1, 0)[place % 4] for place, speaker in enumerate(alike)}
    return classes


LABEL_RULES["snake"] = snake_labels
