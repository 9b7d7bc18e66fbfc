"""Speech-like voices: a glottal pulse train and noise, shaped by moving formants.

::

    f0 contour -> phase -> glottal pulse ─┐
                                          ├─ x formants, tilt, gains (one spectrum every 10 ms) -> overlap-add
    white noise (breath, fricatives) ─────┘

Source-filter model after G. Fant, Acoustic Theory of Speech Production (1960); vowel formants of an
adult man after G. E. Peterson and H. L. Barney, JASA 24, 175 (1952).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.audio.format import SAMPLE_RATE

Float = npt.NDArray[np.float64]

HOP = 160  # samples: 10 ms
WINDOW = 2 * HOP  # a Hann window of two hops sums to one
FFT = 3 * HOP  # the last hop takes the tail of the filter
FRAMES_PER_S = SAMPLE_RATE // HOP
BINS_HZ: Float = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE).astype(np.float64)

VOWELS: Float = np.array(
    [
        [270, 2290, 3010, 3600, 4500],
        [390, 1990, 2550, 3500, 4500],
        [530, 1840, 2480, 3500, 4500],
        [660, 1720, 2410, 3400, 4400],
        [730, 1090, 2440, 3400, 4400],
        [570, 840, 2410, 3300, 4400],
        [300, 870, 2240, 3300, 4300],
        [490, 1350, 1690, 3200, 4300],
    ],
    dtype=np.float64,
)
_BANDWIDTHS: Float = np.array([70, 90, 130, 200, 280], dtype=np.float64)


@dataclass(frozen=True)
class Voice:
    """What stays the same in everything that a speaker says."""

    f0_hz: float
    f0_range: float  # semitones
    f0_slope: float  # semitones a second, over a phrase
    accent_hz: float  # rate of the melody's swing
    formants_hz: Float  # (vowel, formant)
    vowel_shares: Float  # (vowel,)
    bandwidth: float  # times the table
    open_quotient: float
    jitter: float  # relative, frame to frame
    tilt_db: float  # an octave above 500 Hz
    breath: float  # noise beside the pulses
    syllables_per_s: float
    pause_share: float
    pause_s: float
    fricative_share: float
    fricative_hz: float
    fricative_width: float  # octaves


def make_voice(rng: np.random.Generator, sex: str) -> Voice:
    """Draw a speaker's voice: f0 log-uniform in 155-265 Hz (F) or 80-150 Hz (M), formants scaled by the tract's length.

    The vowels of `VOWELS` are a man's; a factor of 1.06 to 1.26 (F) or .88 to 1.07 (M), and 8 % of scatter of each
    formant and vowel, make them a person's own.
    """
    female = sex == "F"
    tract = rng.uniform(1.06, 1.26) if female else rng.uniform(0.88, 1.07)
    own = np.exp(rng.normal(0, 0.08, (1, VOWELS.shape[1])) + rng.normal(0, 0.08, VOWELS.shape))
    shares = rng.dirichlet(np.full(len(VOWELS), 1.5))
    return Voice(
        f0_hz=float(
            np.exp(rng.uniform(np.log(155), np.log(265)) if female else rng.uniform(np.log(80), np.log(150)))
        ),
        f0_range=rng.uniform(0.5, 3.0),
        f0_slope=rng.uniform(-2.5, 0.0),
        accent_hz=rng.uniform(0.6, 3.0),
        formants_hz=VOWELS * tract * own,
        vowel_shares=shares,
        bandwidth=rng.uniform(0.7, 1.7),
        open_quotient=rng.uniform(0.45, 0.8),
        jitter=rng.uniform(0.002, 0.02),
        tilt_db=rng.uniform(-1.0, 7.0),
        breath=float(10 ** rng.uniform(-1.8, -0.5)),
        syllables_per_s=rng.uniform(2.8, 6.5),
        pause_share=rng.uniform(0.05, 0.25),
        pause_s=rng.uniform(0.15, 0.45),
        fricative_share=rng.uniform(0.15, 0.6),
        fricative_hz=float(np.exp(rng.uniform(np.log(2_200), np.log(6_500)))),
        fricative_width=rng.uniform(0.2, 0.8),
    )


@dataclass(frozen=True)
class _Articulation:
    """What is said, frame by frame: formant targets and three gains, each ``(frame, ...)``."""

    formants_hz: Float
    voiced: Float
    breath: Float
    fricative: Float


def _compose(voice: Voice, frames: int, rng: np.random.Generator) -> _Articulation:
    """Write a sequence of syllables (fricative or stop, then vowel) and pauses."""
    formants = np.empty((frames, VOWELS.shape[1]))
    voiced, fricative = np.zeros(frames), np.zeros(frames)
    at = 0
    while at < frames:
        vowel = rng.choice(len(VOWELS), p=voice.vowel_shares)
        length = FRAMES_PER_S / voice.syllables_per_s * np.exp(rng.normal(0, 0.25))
        pause = rng.random() < voice.pause_share
        silent = int(FRAMES_PER_S * voice.pause_s * np.exp(rng.normal(0, 0.3))) if pause else 0
        onset = max(2, int(length * rng.uniform(0.2, 0.4)))
        sound = max(3, int(length) - onset)
        end = at + silent + onset + sound
        formants[at:end] = voice.formants_hz[vowel] * np.exp(rng.normal(0, 0.02))
        if rng.random() < voice.fricative_share:
            fricative[at + silent : at + silent + onset] = rng.uniform(0.5, 1.0)
        else:
            fricative[at + silent + onset - 2 : at + silent + onset] = 0.4
        voiced[at + silent + onset : end] = rng.uniform(0.6, 1.0)
        at = end
    formants, voiced, fricative = (
        _smooth(track, width) for track, width in ((formants, 7), (voiced, 5), (fricative, 3))
    )
    return _Articulation(formants, voiced, voiced * voice.breath, fricative)


def _smooth(track: Float, width: int) -> Float:
    """Return a running mean over frames, twice: articulators do not jump."""
    kernel = np.convolve(np.ones(width), np.ones(width)) / width**2
    padded = np.pad(track, [(width - 1, width - 1)] + [(0, 0)] * (track.ndim - 1), mode="edge")
    if track.ndim == 1:
        return np.convolve(padded, kernel, mode="valid")
    columns = [np.convolve(column, kernel, mode="valid") for column in padded.T]
    return np.stack(columns, axis=1)


def _pulses(voice: Voice, samples: int, rng: np.random.Generator) -> Float:
    """Return the glottal source: the derivative of a Rosenberg pulse, read at the phase of f0."""
    frames = samples // HOP + 2
    time_s = np.arange(frames) / FRAMES_PER_S
    phrase_s = rng.uniform(1.5, 3.0)
    swing = np.sin(2 * np.pi * (voice.accent_hz * time_s + rng.random()))
    walk = _smooth(rng.normal(0, 1.0, frames), 9) * 2.0
    semitones = voice.f0_slope * (time_s % phrase_s - phrase_s / 2) + voice.f0_range * (
        0.7 * swing + 0.5 * walk
    )
    f0 = voice.f0_hz * 2 ** (semitones / 12) * (1 + voice.jitter * rng.normal(0, 1, frames))
    per_sample = np.interp(np.arange(samples) / HOP, np.arange(frames), f0)
    phase = np.cumsum(per_sample / SAMPLE_RATE) % 1.0
    return np.interp(phase, *_pulse_table(voice.open_quotient))


def _pulse_table(open_quotient: float) -> tuple[Float, Float]:
    """Return (phase, value) of one period: opening over two thirds of the open phase, then closing."""
    phase = np.linspace(0, 1, 257)
    opening, closing = open_quotient * 2 / 3, open_quotient / 3
    flow = np.where(
        phase < opening,
        0.5 * (1 - np.cos(np.pi * phase / opening)),
        np.cos(np.pi / 2 * np.clip((phase - opening) / closing, 0, 1)),
    )
    value = np.gradient(flow, phase)
    return phase, value / np.sqrt(np.mean(value**2))


def _frames(signal: Float, frames: int) -> npt.NDArray[np.complex128]:
    """Return the spectra ``(frame, bin)`` of Hann windows of two hops."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    cut = np.lib.stride_tricks.sliding_window_view(signal, WINDOW)[::HOP][:frames]
    return np.fft.rfft(cut * hann, FFT, axis=1)


def _tract(formants_hz: Float, bandwidth: float) -> Float:
    """Return the gain ``(frame, bin)`` of resonators in cascade, each one at zero frequency.

    One resonator: ``|H(f)| = F^2 / sqrt((F^2 - f^2)^2 + (B f)^2)``.
    """
    square = BINS_HZ**2
    denominator = np.ones((len(formants_hz), len(BINS_HZ)))
    for formant, width in zip(formants_hz.T, _BANDWIDTHS * bandwidth, strict=True):
        term = formant[:, None] ** 2 - square
        term *= term
        term += width**2 * square
        denominator *= term
    numerator = np.prod(formants_hz, axis=1, keepdims=True) ** 2
    gain: Float = numerator / np.sqrt(denominator)
    return gain


def speak(voice: Voice, samples: int, rng: np.random.Generator, channel: Float) -> Float:
    """Return speech-like sound, ``(samples,)`` float64 at 16 kHz, through ``channel``, a gain ``(bin,)`` at `BINS_HZ`.

    The level is arbitrary. What is said is drawn from ``rng``, who says it is ``voice`` alone.
    """
    frames = samples // HOP + 1
    score = _compose(voice, frames, rng)
    padded = (frames + 1) * HOP
    pulses = _frames(_pulses(voice, padded, rng), frames)
    noise = _frames(rng.normal(0, 1, padded), frames)
    octaves = np.log2(np.maximum(BINS_HZ, 500) / 500)
    tract = _tract(score.formants_hz, voice.bandwidth)
    tract *= channel * 10 ** (-voice.tilt_db * octaves / 20)
    hiss = np.exp(-0.5 * (np.log2(np.maximum(BINS_HZ, 50) / voice.fricative_hz) / voice.fricative_width) ** 2)
    pulses *= tract * score.voiced[:, None]
    noise *= tract * score.breath[:, None] + (0.6 * channel * hiss) * score.fricative[:, None]
    signal: Float = _overlap_add(np.fft.irfft(pulses + noise, FFT, axis=1))[:samples]
    return signal


def _overlap_add(frames: Float) -> Float:
    """Return the sum of ``(frame, 3 hops)`` laid one hop apart."""
    out = np.zeros((len(frames) + 2, HOP))
    for third in range(3):
        out[third : third + len(frames)] += frames[:, third * HOP : (third + 1) * HOP]
    return out.ravel()
