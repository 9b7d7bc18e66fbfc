"""A task in one file: whether a window is a dialogue, its two speakers each with a fair share of the speech."""

from __future__ import annotations

from collections.abc import Mapping

from data.tasks import TASKS
from data.tasks.activity import Activity
from data.tasks.base import Piece
from data.tasks.diarization import DiarizationTask, LabelOrReason, WindowRequest
from data.tasks.mixing import HashedRandom, SpeakerUtterances, WindowLayout, spliced

FAIR_SHARE = 0.2
LEAST_SPEECH_S = 1.0


class Dialogue(DiarizationTask):
    """1: two speakers, each with a fifth of the speech or more; 0: one speaker; at least 1 s of speech in both.

    ::

        1   A ---------|------ B           0   A ---------|------ A'
    """

    name = "dialogue"
    label_meaning: Mapping[str, str] = {"0": "monologue", "1": "dialogue"}

    def judge(self, activity: Activity) -> LabelOrReason:
        """Return the class, or why the window is ambiguous."""
        seconds = activity.seconds()
        if activity.speech_s < LEAST_SPEECH_S:
            return "less than 1 s of speech"
        if len(seconds) > 2:
            return "more than two speakers"
        if len(seconds) == 2 and min(seconds.values()) < FAIR_SHARE * sum(seconds.values()):
            return "one of two speakers says next to nothing"
        return len(seconds) - 1

    def mix(
        self, shape: WindowLayout, dice: HashedRandom, voices: SpeakerUtterances, who: WindowRequest
    ) -> tuple[Piece, ...] | None:
        """Splice A with B, or with A': a splice must not tell the classes apart."""
        others = voices.others(who.speaker)
        if not others:
            return None
        second = dice.pick(others) if who.label else who.speaker
        return spliced(dice, voices, who.speaker, second, shape.splice_s, shape.voice)


TASKS["dialogue"] = Dialogue()
