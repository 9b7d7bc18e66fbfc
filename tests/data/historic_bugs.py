"""A plugin with the two label bugs that cost 30 hours; the data gate must refuse both."""

from __future__ import annotations

from collections.abc import Sequence

from data.labels import LABEL_RULES, Speaker


def hash_labels(speakers: Sequence[Speaker]) -> dict[str, int]:
    """``hash(speaker) % 2``: as uneven as the ids happen to be."""
    return {speaker.id: hash(int(speaker.id)) % 2 for speaker in speakers}


def hash_of_text(speakers: Sequence[Speaker]) -> dict[str, int]:
    """The same on strings: another map in every process."""
    return {speaker.id: hash(speaker.id) % 2 for speaker in speakers}


def rebuilt_labels(speakers: Sequence[Speaker]) -> dict[str, int]:
    """Numbers speakers as they come, as a map rebuilt in every ``__iter__`` did."""
    return {speaker.id: position % 2 for position, speaker in enumerate(speakers)}


LABEL_RULES.update({"hash": hash_labels, "hash_of_text": hash_of_text, "rebuilt": rebuilt_labels})
