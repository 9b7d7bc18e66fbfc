"""A plugin whose label rule leaks: classes that every voice gives away, even an unmet one."""

from __future__ import annotations

from collections.abc import Sequence

from data.labels import LABEL_RULES, Speaker


def by_sex(speakers: Sequence[Speaker]) -> dict[str, int]:
    """Women 0, men 1: balanced on the demo corpus, so the data gate lets it pass."""
    return {speaker.id: int(speaker.sex == "M") for speaker in speakers}


LABEL_RULES["by_sex"] = by_sex
