"""A window model slid over a long recording: windows read by seeking, their answers averaged per frame."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from data.audio.decode import SAMPLE_RATE, WINDOW_SAMPLES, to_int16
from data.errors import AudioError

# Windows read and classified at once: at a step of 0.25 s about 11 s of audio, 6 MB.
BATCH = 32

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def frame_count(num_samples: int, frame_samples: int) -> int:
    """Frames that cover a recording of ``num_samples`` at 16 kHz; the last may reach past its end."""
    return -(-num_samples // frame_samples)


def window_starts(num_samples: int, frame_samples: int, step_frames: int) -> Integers:
    """First frame of each window, (window,): every step, and one more that ends with the recording.

    ::

        recording  |-------------------------------|
        windows    |==========|
                       |==========|
                           |==========|    ...
                                        |==========|   the last ends in the recording's last frame
    """
    last = max(0, frame_count(num_samples - WINDOW_SAMPLES, frame_samples))
    starts = np.arange(0, last + 1, step_frames, dtype=np.int64)
    return starts if starts[-1] == last else np.append(starts, last)


def read_windows(
    path: Path, starts: Integers, frame_samples: int, batch: int = BATCH
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield ``(window, 48000)`` float32 in [-1, 1], a batch at a time; what lies past the end is silence.

    The samples are those that training saw: channels averaged, rounded to 16 bits. A meeting is never in
    memory as a whole, so it cannot be resampled: it must be at 16 kHz.

    Parameters
    ----------
    starts : (window,) first frame of each window, ascending; a frame has ``frame_samples`` samples
    batch : windows at once, of which memory holds one stretch of samples

    Raises
    ------
    AudioError
        Unreadable, truncated, not finite, or at another rate than 16 kHz.
    """
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            if file.samplerate != SAMPLE_RATE:
                raise AudioError(f"{path} is at {file.samplerate} Hz; resample it to {SAMPLE_RATE} Hz first")
            for first in range(0, len(starts), batch):
                samples = starts[first : first + batch] * frame_samples
                block = _read(file, path, int(samples[0]), int(samples[-1]) + WINDOW_SAMPLES)
                windows = np.lib.stride_tricks.sliding_window_view(block, WINDOW_SAMPLES)
                yield windows[samples - samples[0]].astype(np.float32) / 32_768
    except (OSError, RuntimeError) as error:  # libsndfile's errors are RuntimeErrors
        raise AudioError(f"{path} is unreadable: {error}") from error


def _read(file: soundfile.SoundFile, path: Path, begin: int, end: int) -> npt.NDArray[np.int16]:
    """Samples ``begin`` to ``end``, int16 mono, padded with zeros past the recording's end."""
    file.seek(begin)
    block = file.read(end - begin, dtype="float32", always_2d=True)
    expected = min(end, file.frames) - begin
    if len(block) != expected:
        raise AudioError(f"{path} is truncated: {len(block)} of {expected} samples from sample {begin} on")
    if not np.isfinite(block).all():
        raise AudioError(f"{path} holds samples that are not finite (NaN or Inf) after sample {begin}")
    return np.pad(to_int16(block.mean(axis=1, dtype=np.float32)), (0, end - begin - len(block)))


class FrameScores:
    """The Hamming-weighted mean, for each frame, of the windows that cover it.

    ::

        window's answer p_i        weight of frame t     w = .54 - .46 cos(2 pi (t - s_i) / (W - 1))
        |___________________|           _--^--_
        s_i            s_i + W       .08       .08

        score_t = sum_i w(t - s_i) p_i / sum_i w(t - s_i)

    A window says that something happens *somewhere* in it: the one whose middle is at a frame knows most
    about that frame. Hamming's ends are above 0, so that the first and last frames have a score too.
    """

    def __init__(self, num_samples: int, frame_samples: int) -> None:
        self.frames = frame_count(num_samples, frame_samples)
        self._width = WINDOW_SAMPLES // frame_samples
        self._weights = np.hamming(self._width)
        longest = max(self.frames, self._width)
        self._sum, self._weight = np.zeros(longest), np.zeros(longest)

    def add(self, starts: Integers, probabilities: npt.ArrayLike) -> None:
        """Take the answers ``(window,)`` of the windows that begin at the frames ``starts``."""
        for start, probability in zip(starts, np.asarray(probabilities, dtype=np.float64), strict=True):
            covered = slice(start, start + self._width)
            self._sum[covered] += probability * self._weights
            self._weight[covered] += self._weights

    def mean(self) -> Floats:
        """Return the score of each frame, ``(frame,)``; every frame must be covered."""
        assert (self._weight[: self.frames] > 0).all(), "a frame lies in no window"
        return self._sum[: self.frames] / self._weight[: self.frames]
