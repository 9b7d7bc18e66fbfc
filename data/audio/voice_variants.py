"""Variants of whole utterances: another pitch, another pace. Made before mixing, so that labels hold, and once.

::

    samples -- phase vocoder, rate r / 2^(p/12) --> longer or shorter, same pitch
            -- resampled by 2^(-p/12) ----------> round(n / r) samples, all frequencies x 2^(p/12)
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.digests import digest_of, rank
from data.errors import DataError
from data.store.content_store import build_once

if TYPE_CHECKING:
    from data.audio.decode import Audio, Float

IMPLEMENTATION = 1  # raise it when an equal variant would sound different: stored ones are keyed by it
MOST_SEMITONES = 12.0
RATES = (0.5, 2.0)
STEPS = 4  # on each side of the middle of a range
# 64 ms: two periods of the lowest voices, and no longer than the syllables that would be smeared
N_FFT = 1024
HOP = 256
_SAMPLES, _SOURCE = "samples.npy", "source.json"


@dataclass(frozen=True, order=True, slots=True)
class Variant:
    """``pitch_semitones`` up (or down), spoken ``rate`` times as fast; (0, 1) is the utterance itself."""

    pitch_semitones: float
    rate: float

    def __post_init__(self) -> None:
        if not abs(self.pitch_semitones) <= MOST_SEMITONES:
            raise DataError(
                f"pitch_semitones {self.pitch_semitones:g} is outside -{MOST_SEMITONES:g}..{MOST_SEMITONES:g}"
            )
        if not RATES[0] <= self.rate <= RATES[1]:
            raise DataError(f"rate {self.rate:g} is outside {RATES[0]:g}..{RATES[1]:g}")

    @property
    def name(self) -> str:
        """The variant as file names and manifests have it: ``p+2.0r0.90`` is two semitones up, at 0.9 of the pace."""
        return f"p{self.pitch_semitones:+.1f}r{self.rate:.2f}"

    def num_samples(self, num_samples: int) -> int:
        """Count the samples that ``num_samples`` of the utterance become."""
        return round(num_samples / self.rate)


def variants_for(
    recording_key: str, count: int, pitch_semitones: float, stretch: float
) -> tuple[Variant, ...]:
    """Return ``count`` different variants of a recording, the same ones on every machine.

    Of an even grid over -pitch_semitones..pitch_semitones and 1-stretch..1+stretch without its middle,
    the utterance itself, those of the lowest rank; more of them begin with the fewer.

    Raises
    ------
    DataError
        The ranges hold fewer than ``count``, or reach beyond what a `Variant` may be.
    """
    shares = [step / STEPS for step in range(-STEPS, STEPS + 1)]
    pitches = sorted({round(pitch_semitones * share, 1) + 0.0 for share in shares})
    rates = sorted({round(1 + stretch * share, 2) for share in shares})
    grid = [
        Variant(pitch, rate) for pitch, rate in itertools.product(pitches, rates) if (pitch, rate) != (0, 1)
    ]
    if count > len(grid):
        raise DataError(
            f"{count} voice variants are wanted, and pitch_semitones {pitch_semitones:g} with stretch "
            f"{stretch:g} gives {len(grid)}: ask for that many, or widen one of the two"
        )
    return tuple(sorted(grid, key=lambda variant: rank("variant", recording_key, variant.name))[:count])


def vary(samples: Float, variant: Variant) -> Float:
    """Return ``(sample,)`` float32 at 16 kHz as ``(round(n / rate),)``, at the level it had.

    The phases that a vocoder makes up cost 3 to 4 dB: kept, the level would tell a variant from an
    utterance. Peaks may exceed -1..1 by a little.
    """
    import numpy as np
    import soxr
    from librosa.effects import time_stretch

    raised = 2 ** (variant.pitch_semitones / 12)
    padded = np.pad(samples, (0, max(0, N_FFT - len(samples))))  # shorter than a frame has no spectrum
    varied = padded
    if variant.rate != raised:
        varied = time_stretch(padded, rate=variant.rate / raised, n_fft=N_FFT, hop_length=HOP)
    if raised != 1:
        varied = soxr.resample(varied, raised, 1.0)
    length = variant.num_samples(len(samples))
    varied = np.pad(varied, (0, max(0, length - len(varied))))[:length]
    if power := float(np.square(varied, dtype=np.float64).mean()):
        varied = varied * np.sqrt(float(np.square(samples, dtype=np.float64).mean()) / power)
    return np.asarray(varied, dtype=np.float32)


def load_variant(path: Path, variant: Variant, folder: Path) -> Audio:
    """Return a variant of the audio file ``path`` from the store ``folder``, made at its first use.

    The digest is that of the utterance it was made of: a variant must not be trained on where the
    utterance is judged. Samples are rounded to int16, as all windows are; a stored variant decodes nothing.

    Raises
    ------
    AudioError
        As `load_audio` of the utterance.
    """
    import numpy as np

    from data.audio.decode import Audio, load_audio, read_header, to_int16

    def build(aside: Path) -> None:
        audio = load_audio(path)
        np.save(aside / _SAMPLES, to_int16(vary(audio.samples, variant)))
        (aside / _SOURCE).write_text(json.dumps({"sha256": audio.sha256}), encoding="utf-8")

    read_header(path)  # an unreadable file is told as such, with a reason
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    parts = [IMPLEMENTATION, digest, variant.pitch_semitones, variant.rate]
    key = digest_of(parts)
    stored = build_once(folder / key[:2] / key, build, intact=True)
    samples = np.load(stored / _SAMPLES, allow_pickle=False).astype(np.float32) / 32_768
    source = json.loads((stored / _SOURCE).read_text(encoding="utf-8"))
    return Audio(samples, source["sha256"])
