"""Task ``speaker_count``: whether two or more people speak in a window."""

from __future__ import annotations

from collections.abc import Mapping

from data.corpora.base import SAMPLE_RATE
from data.tasks.activity import SHORTEST_S, Activity
from data.tasks.base import Piece
from data.tasks.diarization import DiarizationTask, Verdict
from data.tasks.mixing import SPLICE_S, Dice, Voices, overlay, spliced
from data.tasks.overlap import OVERLAY_S, RELATIVE_DB


class SpeakerCount(DiarizationTask):
    """1: two or more speakers with at least .5 s each; 0: exactly one.

    ::

        utterances   1   A ---------|------ B           0   A ---------|------ A'
                     1   A ---------|------ A'          0   A ---------|------ A'
                              B =======                          A'' =======
        conversation 1   A ----    B ----               0   A ----      --

    Half of the windows of either class have a voice laid over the splice (of A himself in class 0), so
    that neither a splice nor a sum of voices gives the count away. A second speaker shorter than .5 s
    is ambiguous.
    """

    name = "speaker_count"
    label_meaning: Mapping[str, str] = {"0": "one speaker", "1": "two or more speakers"}

    def judge(self, activity: Activity) -> Verdict:
        """Return 1 for two speakers with .5 s each, 0 for one alone."""
        heard = activity.seconds()
        if sum(seconds >= SHORTEST_S for seconds in heard.values()) >= 2:
            return 1
        if len(heard) > 1:
            return "a second speaker shorter than 0.5 s"
        return 0 if activity.speech_s >= SHORTEST_S else "less than 0.5 s of speech"

    def mix(
        self, dice: Dice, voices: Voices, speaker: str, label: int, turn: int
    ) -> tuple[Piece, ...] | None:
        """Splice, or splice and lay a voice over it, in turn."""
        others = voices.others(speaker)
        if label and not others:
            return None
        other = dice.pick(others) if label else speaker
        laid_over = turn % 2 == 1
        base = spliced(dice, voices, speaker, speaker if laid_over else other, dice.uniform(*SPLICE_S))
        if base is None or not laid_over:
            return base
        length = round(dice.uniform(*OVERLAY_S) * SAMPLE_RATE)
        excerpt = voices.excerpt(dice, other, length, like=base[0].recording)
        return (*base, overlay(dice, voices, excerpt, dice.uniform(*RELATIVE_DB)))
