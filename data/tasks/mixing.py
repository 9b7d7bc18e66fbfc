"""Windows made by cutting, splicing and mixing utterances, the same way for both classes."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from data.audio.format import SAMPLE_RATE, WINDOW_S, WINDOW_SAMPLES
from data.audio.speech_activity import Speech
from data.corpora.base import Recording
from data.digests import rank
from data.tasks.base import Piece, PlannedWindow
from data.tasks.splits import speaker_groups

FADE = 80  # samples, 5 ms, shared by the two pieces of a splice
SPLICE_S = (0.75, 2.25)  # where a window is spliced
OVERLAY_S = (0.75, 2.5)  # how long a voice is laid over a splice
RELATIVE_DB = (-5.0, 5.0)  # how much louder it is than the voices below it
NOMINAL_DBFS = -25.0  # every voice is brought to this level before it is mixed
LEVEL_DBFS = (-32.0, -20.0)  # of a finished window, drawn alike for both classes
SHORTEST_UTTERANCE = WINDOW_SAMPLES + 2 * FADE
LONE_UTTERANCE = 6 * SAMPLE_RATE  # the only one of a speaker gives several pieces, which share no sample
PLACES = 20  # tried for a piece that shares no sample with others
T = TypeVar("T")


class HashedRandom:
    """Numbers that depend on names only: equal on every machine, whatever was drawn before."""

    def __init__(self, *names: str | int) -> None:
        self._random = random.Random(int(rank(*names), 16))

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high), uniformly."""
        return low + (high - low) * self._random.random()

    def below(self, count: int) -> int:
        """Return one of 0..count-1, uniformly."""
        return int(count * self._random.random())

    def pick(self, options: Sequence[T]) -> T:
        """Return one of ``options``, each as likely; their order must be the same on every machine."""
        return options[self.below(len(options))]


@dataclass(frozen=True)
class WindowLayout:
    """How a window is laid out: drawn once for a speaker's turn, and the same for both classes.

    Attributes
    ----------
    splice_s : where two pieces meet, from the window's start
    overlay_samples, overlay_at : length and place, in samples, of a voice laid over the splice
    relative_db : how much louder that voice is than those below it
    level_dbfs : root mean square of the finished window
    voice : which voice variant everybody in it speaks with; 0 is everybody's own voice
    """

    splice_s: float
    overlay_samples: int
    overlay_at: int
    relative_db: float
    level_dbfs: float
    voice: int

    @classmethod
    def drawn(cls, dice: HashedRandom, voices: int) -> WindowLayout:
        """Draw a layout uniformly from the ranges of this module, one of ``voices`` for everybody in it."""
        samples = round(dice.uniform(*OVERLAY_S) * SAMPLE_RATE)
        return cls(
            splice_s=dice.uniform(*SPLICE_S),
            overlay_samples=samples,
            overlay_at=dice.below(WINDOW_SAMPLES - samples + 1),
            relative_db=dice.uniform(*RELATIVE_DB),
            level_dbfs=round(dice.uniform(*LEVEL_DBFS), 2),
            voice=dice.below(voices),
        )


@dataclass(frozen=True)
class Excerpt:
    """A stretch of an utterance, in samples at 16 kHz; not yet laid anywhere (see `lay`)."""

    recording: Recording
    start_sample: int
    num_samples: int


class SpeakerUtterances:
    """The utterances of one split of one subset that are long enough to cut from, by speaker.

    Parameters
    ----------
    size : speakers that a window may need; evaluation windows mix only within groups of that many,
        so that groups are independent of each other. None: anybody with anybody (training).
    least : utterances that a speaker must have. Who cannot make both classes makes neither: else the
        speaker would tell the class.
    varied : the voice variants of an utterance, as many for each.
    """

    def __init__(
        self,
        recordings: Iterable[Recording],
        speech: Mapping[str, Speech],
        size: int | None,
        least: int = 1,
        varied: Callable[[Recording], Sequence[Recording]] = lambda recording: (),
    ) -> None:
        found: dict[str, list[Recording]] = defaultdict(list)
        for recording in sorted(recordings, key=lambda r: r.key):
            found[recording.speaker] += [recording] if recording.num_samples >= SHORTEST_UTTERANCE else []
        self.by_speaker: dict[str, list[Recording]] = {
            s: found[s] for s in sorted(found) if _enough(found[s], least)
        }
        self.left_out = len(found) - len(self.by_speaker)
        self.speech = speech
        everyone = tuple(self.by_speaker)
        self.groups = speaker_groups(everyone, size) if size else dict.fromkeys(everyone, everyone)
        self.grouped = size is not None
        self._varied = {s: _by_variant(self.by_speaker[s], varied) for s in everyone}
        self.count = max(map(len, self._varied.values()), default=1)

    def of(self, speaker: str, voice: int) -> list[Recording]:
        """Return the speaker's utterances in one voice; 0 is the own one."""
        voices = self._varied[speaker]
        return voices[voice] if voice < len(voices) else voices[0]

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

    def excerpt(self, dice: HashedRandom, speaker: str, num_samples: int, voice: int) -> Excerpt:
        """Return a stretch of one of the speaker's utterances in ``voice``, both drawn by ``dice``."""
        recording = dice.pick(self.of(speaker, voice))
        return Excerpt(recording, dice.below(recording.num_samples - num_samples + 1), num_samples)

    def unused_excerpt(
        self, dice: HashedRandom, speaker: str, num_samples: int, voice: int, heard: Sequence[Piece]
    ) -> Excerpt | None:
        """Return a stretch that shares no sample with ``heard``; None where none is found.

        The sum of a voice and its own echo would be heard in one class only.
        """
        for _ in range(PLACES):
            excerpt = self.excerpt(dice, speaker, num_samples, voice)
            if not any(_shares(excerpt, piece) for piece in heard):
                return excerpt
        return None

    def other_excerpt(
        self, dice: HashedRandom, of: Excerpt, num_samples: int, voice: int, *, other_chapter: bool = False
    ) -> Excerpt | None:
        """Return a stretch of another utterance of the same speaker, else one of the same beside ``of``.

        ``other_chapter``: of another chapter, else of another utterance, else None.
        """
        own = of.recording
        utterances = [r for r in self.of(own.speaker, voice) if r.id != own.id]
        chapters = [r for r in utterances if r.chapter != own.chapter]
        options = chapters or utterances if other_chapter else utterances
        if options:
            recording = dice.pick(options)
            return Excerpt(recording, dice.below(recording.num_samples - num_samples + 1), num_samples)
        return None if other_chapter else _beside(dice, of, num_samples)


def _enough(utterances: Sequence[Recording], least: int) -> bool:
    """Tell whether a speaker can make windows of both classes."""
    if len(utterances) < max(1, least):
        return False
    return len(utterances) > 1 or utterances[0].num_samples >= LONE_UTTERANCE


def _by_variant(
    utterances: Sequence[Recording], varied: Callable[[Recording], Sequence[Recording]]
) -> list[list[Recording]]:
    """Return the utterances in each voice, the own one first; variants that nothing is left of are passed over."""
    by_variant: dict[str, list[Recording]] = defaultdict(list)
    for recording in (variant for utterance in utterances for variant in varied(utterance)):
        if recording.num_samples >= SHORTEST_UTTERANCE and recording.variant is not None:
            by_variant[recording.variant.name].append(recording)
    return [list(utterances), *(by_variant[name] for name in sorted(by_variant))]


def _shares(excerpt: Excerpt, piece: Piece) -> bool:
    start, end = excerpt.start_sample, excerpt.start_sample + excerpt.num_samples
    other = piece.start_sample
    return excerpt.recording.key == piece.recording.key and start < other + piece.num_samples and other < end


def _beside(dice: HashedRandom, of: Excerpt, num_samples: int) -> Excerpt | None:
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


def lay(voices: SpeakerUtterances, excerpt: Excerpt, at_sample: int, gain_db: float = 0.0) -> Piece:
    """Return ``excerpt`` as a piece at ``at_sample``, ``gain_db`` above the nominal level."""
    gain = round(voices.gain_db(excerpt.recording) + gain_db, 2)
    return Piece(excerpt.recording, excerpt.start_sample, excerpt.num_samples, at_sample, gain)


def spliced(
    dice: HashedRandom,
    voices: SpeakerUtterances,
    first: str,
    second: str,
    at_s: float,
    voice: int,
    *,
    other_chapter: bool = False,
) -> tuple[Piece, ...] | None:
    """Return the two pieces of a splice of two speakers, or of one with himself; None where none fits."""
    length, rest = splice_lengths(at_s)
    one = voices.excerpt(dice, first, length, voice)
    other = (
        voices.other_excerpt(dice, one, rest, voice, other_chapter=other_chapter)
        if first == second
        else voices.excerpt(dice, second, rest, voice)
    )
    if other is None:
        return None
    return lay(voices, one, 0), lay(voices, other, length - FADE)


def window_of(
    shape: WindowLayout,
    voices: SpeakerUtterances,
    pieces: tuple[Piece, ...],
    label: int,
    speaker: str,
    subset: str,
) -> PlannedWindow:
    """Return the planned window of ``pieces``, counted for ``speaker`` and clustered with whom it may be mixed with."""
    speakers = tuple(sorted({piece.recording.speaker for piece in pieces}))
    cluster = voices.cluster(speaker)
    return PlannedWindow(pieces, label, speaker, cluster, speakers, subset, shape.level_dbfs)


assert SPLICE_S[0] + SPLICE_S[1] == WINDOW_S, "a splice is as likely early as late"
assert OVERLAY_S[1] <= WINDOW_S
