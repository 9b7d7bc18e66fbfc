"""The Slaney mel scale in plain Python, for the laws of front-end parameters.

Linear to 1 kHz, logarithmic above (Slaney, Auditory Toolbox, 1998), as in librosa and torchaudio.
"""

from __future__ import annotations

import math

_HZ_PER_MEL = 200 / 3  # below 1 kHz
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27  # above: 27 mels from 1 to 6.4 kHz


def hz_to_mel(hz: float) -> float:
    """Map Hz to mels: ``3 hz / 200`` below 1 kHz (15 mels), then 27 mels to each factor of 6.4."""
    if hz < _BREAK_HZ:
        return hz / _HZ_PER_MEL
    return _BREAK_MEL + math.log(hz / _BREAK_HZ) / _LOG_STEP


def mel_to_hz(mel: float) -> float:
    """Map mels to Hz: the inverse of `hz_to_mel`."""
    if mel < _BREAK_MEL:
        return mel * _HZ_PER_MEL
    return _BREAK_HZ * math.exp((mel - _BREAK_MEL) * _LOG_STEP)


def filter_edges(n_mels: int, f_min: float, f_max: float) -> list[float]:
    """Give the n_mels + 2 frequencies (Hz), evenly spaced in mels, between which the triangular filters stand.

    Filter m rises from edge m to m + 1 and falls to m + 2; the first edge is ``f_min``, the last ``f_max``.
    """
    low, high = hz_to_mel(f_min), hz_to_mel(f_max)
    return [mel_to_hz(low + (high - low) * i / (n_mels + 1)) for i in range(n_mels + 2)]


def empty_filters(n_mels: int, n_fft: int, f_min: float, f_max: float, sample_rate: int) -> list[int]:
    """List the mel filters that no FFT bin falls into; they would be rows of constant silence."""
    edges = filter_edges(n_mels, f_min, f_max)
    bin_hz = sample_rate / n_fft
    first_bin_above = [(math.floor(edge / bin_hz) + 1) * bin_hz for edge in edges]
    return [m for m in range(n_mels) if first_bin_above[m] >= edges[m + 2]]


def most_filters(n_mels: int, n_fft: int, f_min: float, f_max: float, sample_rate: int) -> int:
    """Find the largest number of filters up to ``n_mels`` that leaves none empty (0 if there is none)."""
    return next(
        (n for n in range(n_mels, 0, -1) if not empty_filters(n, n_fft, f_min, f_max, sample_rate)), 0
    )
