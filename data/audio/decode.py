"""Decoding: any readable file -> float32 mono at 16 kHz, or one sentence on why not."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from data.audio.format import SAMPLE_RATE, WINDOW_S, WINDOW_SAMPLES
from data.errors import AudioError
from data.store.safe_read import kind_of, missing_bytes

__all__ = [
    "SAMPLE_RATE",
    "WINDOW_S",
    "WINDOW_SAMPLES",
    "Audio",
    "Header",
    "digest_audio",
    "load_audio",
    "read_audio",
    "read_excerpt",
    "read_header",
    "to_int16",
]

SILENCE_PEAK = 1e-4  # -80 dBFS
LARGEST_PEAK = 4.0  # +12 dBFS: beyond it float samples are not in -1..1 at all
RATES = (4_000, 384_000)  # Hz
LONGEST_UTTERANCE_S = 3_600  # decoded in one piece; hours of a meeting are read by seeking
# Digital silence packs about 300 samples into a byte of FLAC; a broken header claims far more.
MOST_SAMPLES_PER_BYTE = 4_096
_BLOCK = 1 << 20
_MARGIN_S = 1  # decoded around an excerpt that is resampled, so that its ends are right

Float = npt.NDArray[np.float32]
Int16 = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Header:
    """What a file claims about itself: ``frames`` of ``channels`` samples each, at ``sample_rate`` Hz."""

    frames: int
    channels: int
    sample_rate: int

    @property
    def num_samples(self) -> int:
        """Length in samples at 16 kHz, rounded down: what windows are planned from before anything is decoded."""
        return self.frames * SAMPLE_RATE // self.sample_rate


@dataclass(frozen=True)
class Audio:
    """Decoded audio: ``samples`` (sample,) float32 mono at 16 kHz, and the sha256 of what was decoded before that."""

    samples: Float
    sha256: str


def _check_header(header: Header, size: int) -> None:
    if header.frames <= 0 or header.channels <= 0:
        raise AudioError("empty: it holds no samples")
    if not RATES[0] <= header.sample_rate <= RATES[1]:
        raise AudioError(f"sample rate {header.sample_rate} Hz is outside {RATES[0]}..{RATES[1]} Hz")
    if header.frames * header.channels > MOST_SAMPLES_PER_BYTE * size:
        raise AudioError(f"its header claims {header.frames} samples, which {size} bytes cannot hold")


def read_header(path: Path) -> Header:
    """Return what the header of ``path`` says, without decoding.

    Raises
    ------
    AudioError
        No file, unreadable, empty, truncated, an impossible sample rate or length.
    """
    try:
        status = path.stat()
        if kind := kind_of(status.st_mode):
            raise AudioError(f"unreadable: it is {kind}, not a file")
        if status.st_size == 0:
            raise AudioError("empty: 0 bytes")
        info = soundfile.info(os.fsencode(path))
        if missing := missing_bytes(path):
            raise AudioError(f"truncated: {missing} bytes of the samples in its header are not there")
    except OSError as error:
        raise AudioError(f"unreadable: {error.strerror or error}") from error
    except RuntimeError as error:
        raise AudioError(f"unreadable: {_reason(error)}") from error
    header = Header(int(info.frames), int(info.channels), int(info.samplerate))
    _check_header(header, status.st_size)
    return header


def _reason(error: RuntimeError) -> str:
    """Return libsndfile's own words, without the path that stands beside the reason anyway."""
    return str(getattr(error, "error_string", error)).strip().rstrip(".")


def _blocks(path: Path, header: Header) -> Iterator[Float]:
    """Yield ``(frame, channel)`` blocks; grows with what is decoded, never with what a header claims."""
    decoded = 0
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            frames = max(1, _BLOCK // header.channels)
            while len(block := file.read(frames, dtype="float32", always_2d=True)):
                decoded += len(block)
                yield _checked(block)
    except (OSError, RuntimeError) as error:
        reason = _reason(error) if isinstance(error, RuntimeError) else str(error)
        raise AudioError(f"unreadable: {reason}") from error
    if decoded == 0:
        raise AudioError("empty: it holds no samples")
    if decoded != header.frames:
        raise AudioError(f"truncated: {decoded} of the {header.frames} samples in its header")


def _checked(block: Float) -> Float:
    if not np.isfinite(block).all():
        raise AudioError("it holds samples that are not finite (NaN or Inf)")
    peak = float(np.abs(block).max())
    if peak > LARGEST_PEAK:
        raise AudioError(f"peak {peak:.4g} is out of range; float samples must lie in -1..1")
    return block


def _start_digest(header: Header) -> hashlib._Hash:
    return hashlib.sha256(f"{header.sample_rate} {header.channels} ".encode())


def _raw(block: Float) -> memoryview:
    return np.ascontiguousarray(block, dtype="<f4").data


def _require_sound(low: float, high: float) -> None:
    """Refuse silence, which a constant is too, wherever it lies."""
    peak = (high - low) / 2
    if peak < SILENCE_PEAK:
        level = (high + low) / 2
        where = f" around a constant {level:.4f}" if abs(level) >= SILENCE_PEAK else ""
        raise AudioError(f"silent: peak {peak:.1e}{where} is below {SILENCE_PEAK:.0e} (-80 dBFS)")


def load_audio(path: Path) -> Audio:
    """Decode ``path``: channels averaged, resampled to 16 kHz, with the digest of its samples.

    The digest covers the decoded samples before resampling, so it is equal for a WAV and its FLAC,
    and on every machine. The length is exactly ``read_header(path).num_samples``.

    Raises
    ------
    AudioError
        Unreadable, empty, silent (peak below -80 dBFS), constant, not finite, out of range, truncated, longer
        than an hour, or with a header that claims an absurd length.
    """
    header = read_header(path)
    if header.num_samples > LONGEST_UTTERANCE_S * SAMPLE_RATE:
        hours = header.num_samples / SAMPLE_RATE / 3600
        raise AudioError(
            f"{hours:.1f} h long, and an utterance has {LONGEST_UTTERANCE_S / 3600:g} h at most: cut it"
        )
    digest = _start_digest(header)
    blocks = []
    for block in _blocks(path, header):
        digest.update(_raw(block))
        blocks.append(block.mean(axis=1, dtype=np.float32))
    mono = np.concatenate(blocks)
    _require_sound(float(mono.min()), float(mono.max()))
    return Audio(_at_16_khz(mono, header.sample_rate, header.num_samples), digest.hexdigest())


def digest_audio(path: Path) -> str:
    """Return the digest that `load_audio` gives, after the same checks, a block at a time.

    For recordings of hours: memory does not grow with the length, which has no limit here.

    Raises
    ------
    AudioError
        As `load_audio`.
    """
    header = read_header(path)
    digest, low, high = _start_digest(header), np.inf, -np.inf
    for block in _blocks(path, header):
        digest.update(_raw(block))
        mono = block.mean(axis=1, dtype=np.float32)
        low, high = min(low, float(mono.min())), max(high, float(mono.max()))
    _require_sound(low, high)
    return digest.hexdigest()


def read_excerpt(path: Path, start_sample: int, num_samples: int) -> Float:
    """Return ``num_samples`` samples from ``start_sample``, both at 16 kHz, found by seeking: (sample,) float32 mono.

    A file at another rate is read with a second more on either side, so that the resampler's ends are right.

    Raises
    ------
    AudioError
        Unreadable there, cut off there, or not finite.
    """
    header = read_header(path)
    shared = math.gcd(header.sample_rate, SAMPLE_RATE)
    samples, frames = SAMPLE_RATE // shared, header.sample_rate // shared  # of one common period
    margin = 0 if header.sample_rate == SAMPLE_RATE else _MARGIN_S * shared
    first = max(0, start_sample // samples - margin)
    last = -(-(start_sample + num_samples) // samples) + margin
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            file.seek(first * frames)
            block = file.read((last - first) * frames, dtype="float32", always_2d=True)
        if len(block) < min(last * frames, header.frames) - first * frames:
            raise AudioError(f"truncated: {len(block)} samples are left of it")
        read = _checked(block)
    except (OSError, RuntimeError, ValueError) as error:
        raise AudioError(f"unreadable from {start_sample / SAMPLE_RATE:.2f} s: {error}") from error
    wanted = start_sample - first * samples + num_samples
    mono = _at_16_khz(read.mean(axis=1, dtype=np.float32), header.sample_rate, wanted)
    return mono[-num_samples:]


def _at_16_khz(mono: Float, sample_rate: int, num_samples: int) -> Float:
    """Return the first ``num_samples`` at 16 kHz."""
    if sample_rate != SAMPLE_RATE:
        mono = soxr.resample(mono, sample_rate, SAMPLE_RATE).astype(np.float32, copy=False)
    # A resampler may round the last sample either way; windows were planned from the header.
    missing = max(0, num_samples - len(mono))
    return np.pad(mono, (0, missing))[:num_samples]


def read_audio(path: Path) -> Float:
    """Return ``(sample,)`` float32 mono at 16 kHz; AudioError as `load_audio`."""
    return load_audio(path).samples


def to_int16(samples: Float) -> Int16:
    """Return ``samples`` in -1..1 as int16, rounded and clipped; the inverse of ``/ 32768``."""
    scaled = np.rint(samples.astype(np.float64) * 32_768)
    return np.clip(scaled, -32_768, 32_767).astype(np.int16)
