"""Decoding: any readable file -> float32 mono at 16 kHz, or one sentence on why not."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from data.corpora.base import SAMPLE_RATE, WINDOW_S, WINDOW_SAMPLES
from data.errors import AudioError

__all__ = [
    "SAMPLE_RATE",
    "WINDOW_S",
    "WINDOW_SAMPLES",
    "Audio",
    "Header",
    "load_audio",
    "read_audio",
    "read_header",
    "to_int16",
]

SILENCE_PEAK = 1e-4  # -80 dBFS
LARGEST_PEAK = 4.0  # +12 dBFS: beyond it float samples are not in -1..1 at all
RATES = (4_000, 384_000)  # Hz
# Digital silence packs about 300 samples into a byte of FLAC; a broken header claims far more.
MOST_SAMPLES_PER_BYTE = 4_096
_BLOCK = 1 << 20

Float = npt.NDArray[np.float32]
Int16 = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Header:
    """What a file claims about itself; ``num_samples`` is its length at 16 kHz."""

    frames: int
    channels: int
    sample_rate: int

    @property
    def num_samples(self) -> int:
        """Length at 16 kHz, rounded down."""
        return self.frames * SAMPLE_RATE // self.sample_rate


@dataclass(frozen=True)
class Audio:
    """Decoded audio: ``samples`` (sample,) float32 at 16 kHz, and the digest of what was decoded."""

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
        Unreadable, empty, an impossible sample rate or length.
    """
    try:
        size = path.stat().st_size
        if size == 0:
            raise AudioError("empty: 0 bytes")
        info = soundfile.info(os.fsencode(path))
    except OSError as error:
        raise AudioError(f"unreadable: {error.strerror or error}") from error
    except RuntimeError as error:
        raise AudioError(f"unreadable: {_reason(error)}") from error
    header = Header(int(info.frames), int(info.channels), int(info.samplerate))
    _check_header(header, size)
    return header


def _reason(error: RuntimeError) -> str:
    """Return libsndfile's own words, without the path that stands beside the reason anyway."""
    return str(getattr(error, "error_string", error)).strip().rstrip(".")


def _decode(path: Path, header: Header) -> Float:
    """Return ``(frame, channel)``; grows with what is decoded, never with what a header claims."""
    blocks: list[Float] = []
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                blocks.append(block)
    except (OSError, RuntimeError) as error:
        reason = _reason(error) if isinstance(error, RuntimeError) else str(error)
        raise AudioError(f"unreadable: {reason}") from error
    decoded = sum(map(len, blocks))
    if decoded == 0:
        raise AudioError("empty: it holds no samples")
    if decoded != header.frames:
        raise AudioError(f"truncated: {decoded} of the {header.frames} samples in its header")
    return np.concatenate(blocks)


def _digest(samples: Float, sample_rate: int) -> str:
    digest = hashlib.sha256(f"{sample_rate} {samples.shape[1]} ".encode())
    digest.update(np.ascontiguousarray(samples, dtype="<f4").data)
    return digest.hexdigest()


def load_audio(path: Path) -> Audio:
    """Decode ``path``: channels averaged, resampled to 16 kHz, with the digest of its samples.

    The digest covers the decoded samples before resampling, so it is equal for a WAV and its FLAC,
    and on every machine. The length is exactly ``read_header(path).num_samples``.

    Raises
    ------
    AudioError
        Unreadable, empty, silent (peak below -80 dBFS), not finite, out of range, truncated,
        or with a header that claims an absurd length.
    """
    header = read_header(path)
    decoded = _decode(path, header)
    if not np.isfinite(decoded).all():
        raise AudioError("it holds samples that are not finite (NaN or Inf)")
    peak = float(np.abs(decoded).max())
    if peak > LARGEST_PEAK:
        raise AudioError(f"peak {peak:.4g} is out of range; float samples must lie in -1..1")
    mono = decoded.mean(axis=1, dtype=np.float32)
    peak = float(np.abs(mono).max())
    if peak < SILENCE_PEAK:
        raise AudioError(f"silent: peak {peak:.1e} is below {SILENCE_PEAK:.0e} (-80 dBFS)")
    if header.sample_rate != SAMPLE_RATE:
        mono = soxr.resample(mono, header.sample_rate, SAMPLE_RATE).astype(np.float32, copy=False)
    # A resampler may round the last sample either way; windows were planned from the header.
    missing = max(0, header.num_samples - len(mono))
    samples = np.pad(mono, (0, missing))[: header.num_samples]
    return Audio(samples, _digest(decoded, header.sample_rate))


def read_audio(path: Path) -> Float:
    """Return ``(sample,)`` float32 mono at 16 kHz; AudioError as `load_audio`."""
    return load_audio(path).samples


def to_int16(samples: Float) -> Int16:
    """Return ``samples`` in -1..1 as int16, rounded and clipped; the inverse of ``/ 32768``."""
    scaled = np.rint(samples.astype(np.float64) * 32_768)
    return np.clip(scaled, -32_768, 32_767).astype(np.int16)
