"""Task ``overlap``: whether two people speak at once in a window."""

from __future__ import annotations

from collections.abc import Mapping

from data.tasks.activity import SHORTEST_S, Activity
from data.tasks.base import Piece
from data.tasks.diarization import DiarizationTask, LabelOrReason, WindowRequest
from data.tasks.mixing import HashedRandom, SpeakerUtterances, WindowLayout, lay, spliced


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

    def judge(self, activity: Activity) -> LabelOrReason:
        """Any overlap shorter than .5 s is ambiguous, and so is too little speech."""
        if activity.overlap_s >= SHORTEST_S:
            return 1
        if activity.overlap_s > 0:
            return "overlap shorter than 0.5 s"
        return 0 if activity.speech_s >= SHORTEST_S else "less than 0.5 s of speech"

    def mix(
        self, shape: WindowLayout, dice: HashedRandom, voices: SpeakerUtterances, who: WindowRequest
    ) -> tuple[Piece, ...] | None:
        """Splice A with A' or B, in turn by ``who.number``, alike in both classes; class 1 adds C."""
        others = voices.others(who.speaker)
        if not others:
            return None
        two = who.number % 2 == 1 and len(others) > 1
        second = dice.pick(others) if two else who.speaker
        base = spliced(dice, voices, who.speaker, second, shape.splice_s, shape.voice)
        if base is None or who.label == 0:
            return base
        third = dice.pick(voices.others(who.speaker, second))
        excerpt = voices.excerpt(dice, third, shape.overlay_samples, shape.voice)
        return (*base, lay(voices, excerpt, shape.overlay_at, shape.relative_db))

    def remark(self, voices: SpeakerUtterances) -> str | None:
        """Two speakers cannot make a base of two voices below a third."""
        few = max((len(group) for group in voices.groups.values()), default=0) < self.speakers_a_window
        if few and voices.by_speaker:
            return "fewer than 3 speakers: the base is always one speaker's, so a second voice gives it away"
        return super().remark(voices)
