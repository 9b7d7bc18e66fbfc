"""Task ``speaker_change``: whether the speaker changes in a window."""

from __future__ import annotations

from collections.abc import Mapping

from data.audio.format import WINDOW_S
from data.tasks.activity import SHORTEST_S, Activity
from data.tasks.base import Piece
from data.tasks.diarization import DiarizationTask, LabelOrReason, WindowRequest
from data.tasks.mixing import HashedRandom, SpeakerUtterances, WindowLayout, spliced

CHANGE_S = (0.5, 2.5)  # a change nearer to an edge is heard by the neighbouring window
LONE_SPEECH_S = 1.0


class SpeakerChange(DiarizationTask):
    """1: a change in .5..2.5 s, at least .5 s of speech on each side, overlap < .5 s; 0: one speaker, >= 1 s.

    ::

        utterances   1   A ---------|------ B           0   A ---------|------ A'     at .75..2.25 s
        conversation 1   A  -------                     0   A  ----   ---------
                         B          --------            B
                                  ^ in .5..2.5 s            at least 1 s

    Both classes are spliced: un-spliced negatives are told apart by their lack of a splice.
    """

    name = "speaker_change"
    label_meaning: Mapping[str, str] = {"0": "one speaker", "1": "speaker change"}

    def judge(self, activity: Activity) -> LabelOrReason:
        """Everything between one speaker and a clear change is ambiguous."""
        heard = activity.seconds()
        if len(heard) < 2:
            return 0 if activity.speech_s >= LONE_SPEECH_S else "less than 1 s of speech"
        if activity.overlap_s >= SHORTEST_S:
            return "overlap of 0.5 s or more"
        inside = [change for change in activity.changes_s() if CHANGE_S[0] <= change <= CHANGE_S[1]]
        if any(_speech_on_both_sides(activity, change) for change in inside):
            return 1
        return "no change with 0.5 s of speech on each side"

    def mix(
        self, shape: WindowLayout, dice: HashedRandom, voices: SpeakerUtterances, who: WindowRequest
    ) -> tuple[Piece, ...] | None:
        """Splice A with B (class 1), or with A', another stretch of A (class 0)."""
        others = voices.others(who.speaker)
        if not others:
            return None
        second = dice.pick(others) if who.label else who.speaker
        return spliced(dice, voices, who.speaker, second, shape.splice_s, shape.voice)


def _speech_on_both_sides(activity: Activity, change_s: float) -> bool:
    sides = (activity.between(0, change_s), activity.between(change_s, WINDOW_S))
    return all(side.speech_s >= SHORTEST_S for side in sides)
