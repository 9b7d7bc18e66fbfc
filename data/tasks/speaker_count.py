"""Task ``speaker_count``: whether two or more people speak in a window."""

from __future__ import annotations

from collections.abc import Mapping

from data.tasks.activity import SHORTEST_S, Activity
from data.tasks.base import Piece
from data.tasks.diarization import DiarizationTask, LabelOrReason, WindowRequest
from data.tasks.mixing import HashedRandom, SpeakerUtterances, WindowLayout, lay, spliced


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

    def judge(self, activity: Activity) -> LabelOrReason:
        """Return 1 for two speakers with .5 s each, 0 for one alone."""
        heard = activity.seconds()
        if sum(seconds >= SHORTEST_S for seconds in heard.values()) >= 2:
            return 1
        if len(heard) > 1:
            return "a second speaker shorter than 0.5 s"
        return 0 if activity.speech_s >= SHORTEST_S else "less than 0.5 s of speech"

    def mix(
        self, shape: WindowLayout, dice: HashedRandom, voices: SpeakerUtterances, who: WindowRequest
    ) -> tuple[Piece, ...] | None:
        """Splice A with A' or B, or lay A or B over A spliced with A', in turn, alike in both classes."""
        others = voices.others(who.speaker)
        if not others:
            return None
        other = dice.pick(others) if who.label else who.speaker
        laid_over = who.number % 2 == 1
        second = who.speaker if laid_over else other
        base = spliced(dice, voices, who.speaker, second, shape.splice_s, shape.voice)
        if base is None or not laid_over:
            return base
        excerpt = voices.unused_excerpt(dice, other, shape.overlay_samples, shape.voice, base)
        return (*base, lay(voices, excerpt, shape.overlay_at, shape.relative_db)) if excerpt else None
