"""Task ``same_speaker``: whether the two halves of a window have different speakers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from data.audio.format import SAMPLE_RATE, WINDOW_SAMPLES
from data.corpora.base import Recording
from data.digests import rank
from data.errors import DataError
from data.tasks.activity import SHORTEST_S, Activity, activity_of_pieces
from data.tasks.base import Piece
from data.tasks.diarization import DiarizationTask, LabelOrReason, WindowRequest
from data.tasks.mixing import FADE, HashedRandom, SpeakerUtterances, WindowLayout, spliced

HALF_S = 1.5
APART_S = 5.0  # between the halves of one meeting: not two ends of one sentence
_HALF_SAMPLES = WINDOW_SAMPLES // 2 + FADE // 2


class SameSpeaker(DiarizationTask):
    """1: the two 1.5 s halves have different speakers; 0: the same speaker, of different chapters.

    ::

        utterances   1   A ------|------ B              0   A ------|------ A'  (another chapter)
        conversation 1   A from 12.0 s | B from 31.5 s  0   A from 12.0 s | A from 40.5 s
                                                            same meeting, >= 5 s apart, in both classes

    Halves in which two speak, or anybody less than .5 s, are ambiguous. Where a speaker has one chapter,
    other utterances are taken and flagged; with one utterance each the task is refused.
    """

    name = "same_speaker"
    label_meaning: Mapping[str, str] = {"0": "same speaker", "1": "different speakers"}
    utterances_a_speaker = 2

    def judge(self, activity: Activity) -> LabelOrReason:
        """Each half needs one speaker, alone, for at least .5 s."""
        halves = [activity.between(start, start + HALF_S).seconds() for start in (0.0, HALF_S)]
        if any(len(half) > 1 for half in halves):
            return "two speakers in one half"
        if any(sum(half.values()) < SHORTEST_S for half in halves):
            return "less than 0.5 s of speech in a half"
        return int(halves[0].keys() != halves[1].keys())

    def mix(
        self, shape: WindowLayout, dice: HashedRandom, voices: SpeakerUtterances, who: WindowRequest
    ) -> tuple[Piece, ...] | None:
        """Splice A with B, or with A of another chapter, in the middle."""
        others = voices.others(who.speaker)
        if not others:
            return None
        second = dice.pick(others) if who.label else who.speaker
        return spliced(dice, voices, who.speaker, second, HALF_S, shape.voice, other_chapter=True)

    def cut(self, conversation: Recording, step: int) -> Iterator[tuple[Piece, ...]]:
        """Yield pairs of halves at least 5 s apart: of one speaker, then of two, each half once in either."""
        del step  # halves are paired anew, so there are plenty
        halves: list[tuple[int, str]] = []
        for start in range(0, conversation.num_samples - _HALF_SAMPLES + 1, WINDOW_SAMPLES // 2):
            heard = activity_of_pieces([_first_half(conversation, start)], {}).seconds()
            if len(heard) == 1 and sum(heard.values()) >= SHORTEST_S:
                halves.append((start, next(iter(heard))))
        ordered = sorted(halves, key=lambda half: rank(conversation.key, half[0]))
        for same in (True, False):
            for one, other in _pairs(ordered, same):
                yield _first_half(conversation, one), _second_half(conversation, other)

    def remark(self, voices: SpeakerUtterances) -> str | None:
        """Say who lacks a second chapter; refuse voices that nobody has two utterances of."""
        if voices.left_out and not voices.by_speaker:
            raise DataError(
                f"task same_speaker needs two utterances a speaker, and all {voices.left_out} speakers have one; "
                "take parts with more audio a speaker, or task overlap or speaker_change"
            )
        lacking = [s for s, own in voices.by_speaker.items() if len({one.chapter for one in own}) == 1]
        if not lacking:
            return None
        return (
            f"{len(lacking)} of {len(voices.by_speaker)} speakers have one chapter: their two halves are "
            "different utterances of it, so the channel may say what the voice should"
        )


def _pairs(halves: Sequence[tuple[int, str]], same: bool) -> Iterator[tuple[int, int]]:
    """Pair each half with the next one that is free, far enough, and of the same speaker, or of another."""
    free = list(halves)
    while free:
        one, who = free.pop(0)
        fits = (
            index
            for index, (other, whom) in enumerate(free)
            if (who == whom) == same and abs(other - one) >= (APART_S + HALF_S) * SAMPLE_RATE
        )
        if (index := next(fits, None)) is not None:
            yield one, free.pop(index)[0]


def _first_half(conversation: Recording, start: int) -> Piece:
    return Piece(conversation, start, _HALF_SAMPLES, 0)


def _second_half(conversation: Recording, start: int) -> Piece:
    return Piece(conversation, start, _HALF_SAMPLES, WINDOW_SAMPLES - _HALF_SAMPLES)
