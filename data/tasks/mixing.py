"""Windows made by cutting, splicing and mixing utterances, the same way for both classes."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from data.corpora.base import SAMPLE_RATE, WINDOW_S, WINDOW_SAMPLES, Recording
from data.digests import rank
from data.speech import Speech
from data.tasks.assignment import speaker_groups
from data.tasks.base import Piece, PlannedWindow

FADE = 80  # samples, 5 ms, shared by the two pieces of a splice
SPLICE_S = (0.75, 2.25)  # where a window is spliced
NOMINAL_DBFS = -25.0  # every voice is brought to this level before it is mixed
LEVEL_DBFS = (-32.0, -20.0)  # of a finished window, drawn alike for both classes
SHORTEST_UTTERANCE = WINDOW_SAMPLES + 2 * FADE
T = TypeVar("T")


class Dice:
    """Numbers that depend on names only: equal on every machine, whatever was drawn before."""

    def __init__(self, *names: str | int) -> None:
        self._random = random.Random(int(rank(*names), 16))

    def uniform(self, low: float, high: float) -> float:
        """Return a number from ``low`` up to ``high``."""
        return low + (high - low) * self._random.random()

    def below(self, count: int) -> int:
        """Return one of 0..count-1."""
        return int(count * self._random.random())

    def pick(self, options: Sequence[T]) -> T:
        """Return one of ``options``."""
        return options[self.below(len(options))]


@dataclass(frozen=True)
class Excerpt:
    """A stretch of an utterance."""

    recording: Recording
    start_sample: int
    num_samples: int


class Voices:
    """The utterances of one split of one subset that are long enough to cut from, by speaker.

    Parameters
    ----------
    size : speakers that a window may need; evaluation windows mix only within groups of that many,
        so that groups are independent of each other. None: anybody with anybody (training).
    """

    def __init__(
        self, recordings: Iterable[Recording], speech: Mapping[str, Speech], size: int | None
    ) -> None:
        found: dict[str, list[Recording]] = defaultdict(list)
        for recording in sorted(recordings, key=lambda r: r.key):
            if recording.num_samples >= SHORTEST_UTTERANCE:
                found[recording.speaker].append(recording)
        self.by_speaker: dict[str, list[Recording]] = {s: found[s] for s in sorted(found)}
        self.speech = speech
        everyone = tuple(self.by_speaker)
        self.groups = speaker_groups(everyone, size) if size else dict.fromkeys(everyone, everyone)
        self.grouped = size is not None

    def own_utterances(self, speaker: str) -> list[Recording]:
        """Return the speaker's utterances, less their voice variants."""
        return [recording for recording in self.by_speaker[speaker] if recording.variant is None]

    def cluster(self, speaker: str) -> str:
        """Return what a window of ``speaker`` is not independent of: its group, in training itself."""
        return "+".join(self.groups[speaker]) if self.grouped else speaker

    def others(self, *speakers: str) -> list[str]:
        """Return who else is in the group of the first of ``speakers``."""
        return [other for other in self.groups[speakers[0]] if other not in speakers]

    def gain_db(self, recording: Recording) -> float:
        """Return what brings the speech of ``recording`` to the nominal level; 0 before it is measured."""
        measured = self.speech.get(recording.key)
        return round(NOMINAL_DBFS - measured.level_dbfs, 2) if measured else 0.0

    def excerpt(self, dice: Dice, speaker: str, num_samples: int, like: Recording | None = None) -> Excerpt:
        """Return a stretch of any of the speaker's utterances; in the voice of ``like``, if it is the speaker's."""
        options = self.by_speaker[speaker]
        if like is not None and like.speaker == speaker:
            options = [recording for recording in options if recording.variant == like.variant]
        recording = dice.pick(options)
        return Excerpt(recording, dice.below(recording.num_samples - num_samples + 1), num_samples)

    def another(
        self, dice: Dice, of: Excerpt, num_samples: int, *, other_chapter: bool = False
    ) -> Excerpt | None:
        """Return a stretch of another utterance of the same speaker, else one of the same beside ``of``.

        ``other_chapter``: of another chapter, else of another utterance, else None.
        """
        own = of.recording
        mine = [r for r in self.by_speaker[own.speaker] if r.variant == own.variant]
        utterances = [r for r in mine if r.id != own.id]
        chapters = [r for r in utterances if r.chapter != own.chapter]
        options = chapters or utterances if other_chapter else utterances
        if options:
            recording = dice.pick(options)
            return Excerpt(recording, dice.below(recording.num_samples - num_samples + 1), num_samples)
        return None if other_chapter else _beside(dice, of, num_samples)


def _beside(dice: Dice, of: Excerpt, num_samples: int) -> Excerpt | None:
    """Return a stretch of the same utterance that shares no sample with ``of``; None where none fits."""
    before = of.start_sample - num_samples
    after = of.recording.num_samples - num_samples - (of.start_sample + of.num_samples)
    ways = [(0, before)] * (before >= 0) + [(of.start_sample + of.num_samples, after)] * (after >= 0)
    if not ways:
        return None
    first, room = dice.pick(ways)
    return Excerpt(of.recording, first + dice.below(room + 1), num_samples)


def splice_lengths(at_s: float) -> tuple[int, int]:
    """Return the lengths in samples of two pieces that meet at ``at_s``, 5 ms of cross-fade in both.

    ::

        |---------- first ----------|
                                  |------ second ------|      they share 80 samples around at_s
        0                        at_s                  3 s
    """
    first = round(at_s * SAMPLE_RATE) + FADE // 2
    return first, WINDOW_SAMPLES - first + FADE


def lay(voices: Voices, excerpt: Excerpt, at_sample: int, gain_db: float = 0.0) -> Piece:
    """Return ``excerpt`` as a piece at ``at_sample``, ``gain_db`` above the nominal level."""
    gain = round(voices.gain_db(excerpt.recording) + gain_db, 2)
    return Piece(excerpt.recording, excerpt.start_sample, excerpt.num_samples, at_sample, gain)


def spliced(
    dice: Dice, voices: Voices, first: str, second: str, at_s: float, *, other_chapter: bool = False
) -> tuple[Piece, ...] | None:
    """Return the two pieces of a splice of two speakers, or of one with himself; None where none fits."""
    length, rest = splice_lengths(at_s)
    one = voices.excerpt(dice, first, length)
    other = (
        voices.another(dice, one, rest, other_chapter=other_chapter)
        if first == second
        else voices.excerpt(dice, second, rest)
    )
    if other is None:
        return None
    return lay(voices, one, 0), lay(voices, other, length - FADE)


def overlay(dice: Dice, voices: Voices, excerpt: Excerpt, gain_db: float) -> Piece:
    """Return ``excerpt`` laid anywhere into a window."""
    return lay(voices, excerpt, dice.below(WINDOW_SAMPLES - excerpt.num_samples + 1), gain_db)


def window_of(
    dice: Dice, voices: Voices, pieces: tuple[Piece, ...], label: int, speaker: str, subset: str
) -> PlannedWindow:
    """Return the planned window of ``pieces``, its level drawn."""
    speakers = tuple(sorted({piece.recording.speaker for piece in pieces}))
    level = round(dice.uniform(*LEVEL_DBFS), 2)
    return PlannedWindow(pieces, label, speaker, voices.cluster(speaker), speakers, subset, level)


assert SPLICE_S[0] + SPLICE_S[1] == WINDOW_S, "a splice is as likely early as late"
