"""Where one speaker's utterance holds speech, and how loud it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

BELOW_PEAK_DB = 40.0  # what is fainter than this below the loudest frame is a pause
_FRAME = 400  # samples, 25 ms
_HOP = 160  # samples, 10 ms


@dataclass(frozen=True, slots=True)
class Speech:
    """``intervals`` of speech as (first, last + 1) samples at 16 kHz, and its root mean square level."""

    intervals: tuple[tuple[int, int], ...]
    level_dbfs: float

    def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the intervals cut to ``start``..``end`` samples, counted from ``start``."""
        cut = ((max(first, start) - start, min(last, end) - start) for first, last in self.intervals)
        return [(first, last) for first, last in cut if first < last]


def measure_speech(samples: npt.NDArray[np.float32]) -> Speech:
    """Return the speech of ``samples`` (sample,) at 16 kHz: 25 ms frames above -40 dB of the loudest one.

    The level is the root mean square of the speech alone, in dB of full scale, to .01 dB.
    """
    import numpy as np
    from librosa.effects import split

    found = split(samples, top_db=BELOW_PEAK_DB, frame_length=_FRAME, hop_length=_HOP)
    intervals = tuple((int(first), min(int(last), len(samples))) for first, last in found)
    power = sum(float(np.sum(samples[a:b].astype(np.float64) ** 2)) for a, b in intervals)
    length = sum(b - a for a, b in intervals)
    level = 10 * np.log10(max(power / max(length, 1), 1e-10))
    return Speech(intervals, round(float(level), 2))
