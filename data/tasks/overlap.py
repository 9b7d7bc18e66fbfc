"""Task ``overlap``: whether two people speak at once in a window."""

from __future__ import annotations

from collections.abc import Mapping

from data.corpora.base import SAMPLE_RATE, WINDOW_S
from data.tasks.activity import SHORTEST_S, Activity
from data.tasks.base import Piece
from data.tasks.diarization import DiarizationTask, Verdict
from data.tasks.mixing import SPLICE_S, Dice, Voices, overlay, spliced

OVERLAY_S = (0.75, 2.5)
RELATIVE_DB = (-5.0, 5.0)  # of the added voice to the voices below it


class Overlap(DiarizationTask):
    """1: at least .5 s with two or more speakers; 0: none, and at least .5 s of speech.

    ::

        utterances   1   A ----------|---- A' or B      0   A ----------|---- A' or B
                             C  ==========
        conversation 1   A  -----------    -            0   A  ------      ---
                         B        ---------             B            ---
                              >= .5 s of both                 never both

    A third voice C, -5..5 dB, for .75..2.5 s, makes the difference. Half of the windows of either class
    hold one speaker below it and half hold two, so that a splice or a second voice says nothing.
    """

    name = "overlap"
    label_meaning: Mapping[str, str] = {"0": "no overlap", "1": "overlapped speech"}
    speakers_a_window = 3

    def judge(self, activity: Activity) -> Verdict:
        """Any overlap shorter than .5 s is ambiguous, and so is too little speech."""
        if activity.overlap_s >= SHORTEST_S:
            return 1
        if activity.overlap_s > 0:
            return "overlap shorter than 0.5 s"
        return 0 if activity.speech_s >= SHORTEST_S else "less than 0.5 s of speech"

    def mix(
        self, dice: Dice, voices: Voices, speaker: str, label: int, turn: int
    ) -> tuple[Piece, ...] | None:
        """Splice A with A' or B, in turn; class 1 adds C."""
        others = voices.others(speaker)
        if not others:
            return None
        two = turn % 2 == 1 and len(others) > 1
        second = dice.pick(others) if two else speaker
        base = spliced(dice, voices, speaker, second, dice.uniform(*SPLICE_S))
        if base is None or label == 0:
            return base
        third = dice.pick(voices.others(speaker, second))
        excerpt = voices.excerpt(dice, third, round(dice.uniform(*OVERLAY_S) * SAMPLE_RATE))
        return (*base, overlay(dice, voices, excerpt, dice.uniform(*RELATIVE_DB)))

    def remark(self, voices: Voices) -> str | None:
        """Two speakers cannot make a base of two voices below a third."""
        few = max((len(group) for group in voices.groups.values()), default=0) < self.speakers_a_window
        if few and voices.by_speaker:
            return "fewer than 3 speakers: the base is always one speaker's, so a second voice gives it away"
        return super().remark(voices)


assert OVERLAY_S[1] <= WINDOW_S
