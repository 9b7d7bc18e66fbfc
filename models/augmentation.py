"""Augmentation of training batches, on their device: reverberation, noise and gain, then masks on features.

Masks are those of SpecAugment (Park et al. 2019) without its warping of time.

::

    int16 -> float -> reverb -> noise -> gain -> front end -> masks -> CNN
             `------ `EpochAugmentation.waveforms` -'         `- `.features`

All parameters of an epoch are drawn at its start, on the CPU, from one seed: they are the same on every
device, nothing on an accelerator waits for them, and nothing else's draws move. Each kind meets a window by
itself with probability `share`. Every kind has its draws whether it is on or not, so that trials which
differ in one kind have the others in common.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torchaudio

SAMPLE_RATE = 16_000  # Hz
SNR_SPAN_DB = 15.0
MIN_RT60_S = 1e-3  # shorter is no room at all, and 0 divides
_IR_STEP = 1_600  # an FFT of 3 s and a multiple of 0.1 s has small prime factors


@dataclass(frozen=True)
class Augmentation:
    """What may be drawn; the defaults draw nothing.

    share : probability with which each kind meets a window
    noise_snr_db : lowest SNR in dB, drawn uniformly up to 15 dB above it; None for no noise
    gain_db : drawn uniformly from -gain_db..gain_db
    reverb_rt60_s : drawn uniformly from 0..reverb_rt60_s
    freq_mask, time_mask : largest width of a mask, in rows and frames; at most half of them are masked at once
    masks : of each of the two kinds in a window
    num_features, num_frames : shape of the features that are masked
    """

    num_features: int
    num_frames: int
    share: float = 1.0
    noise_snr_db: float | None = None
    gain_db: float = 0.0
    reverb_rt60_s: float = 0.0
    freq_mask: int = 0
    time_mask: int = 0
    masks: int = 1

    @property
    def on_waveforms(self) -> bool:
        """Whether anything happens before the front end, so that features cannot be stored but are made every step."""
        some = self.noise_snr_db is not None or self.gain_db > 0 or self.reverb_rt60_s > 0
        return some and self.share > 0

    @property
    def on_features(self) -> bool:
        """Whether anything happens behind the front end: masks."""
        return (self.freq_mask > 0 or self.time_mask > 0) and self.share > 0

    def draw(self, windows: int, generator: torch.Generator) -> Draws:
        """Draw the parameters of `windows` windows from a CPU generator.

        As many numbers are drawn whatever is switched on, so that two trainings that differ in one kind of augmentation
        have the draws of the others in common (but `masks` decides how many numbers the masks take).
        """
        uniform = torch.rand(windows, 8, generator=generator, dtype=torch.float64)
        hit = uniform[:, :4] < self.share
        snr, exponent, gain, rt60 = uniform[:, 4:].unbind(1)
        snr_db = snr * SNR_SPAN_DB + (self.noise_snr_db or 0.0)
        noisy = hit[:, 0] & (self.noise_snr_db is not None)
        return Draws(
            snr_db=torch.where(noisy, snr_db, math.inf).float(),
            noise_exponent=exponent.float(),
            gain_db=torch.where(hit[:, 1], (2 * gain - 1) * self.gain_db, 0.0).float(),
            rt60_s=torch.where(hit[:, 2], rt60 * self.reverb_rt60_s, 0.0).float(),
            rows=self._spans(hit[:, 3], self.num_features, self.freq_mask, generator),
            frames=self._spans(hit[:, 3], self.num_frames, self.time_mask, generator),
        )

    def _spans(self, hit: torch.Tensor, size: int, largest: int, generator: torch.Generator) -> torch.Tensor:
        """Draw first and end position of each mask, (window, mask, 2); equal where nothing is masked."""
        uniform = torch.rand(len(hit), self.masks, 2, generator=generator, dtype=torch.float64)
        largest = min(largest, size // 2 // self.masks)
        width = (uniform[..., 0] * (largest + 1)).long() * hit[:, None]
        first = (uniform[..., 1] * (size - width + 1)).long()
        return torch.stack([first, first + width], dim=-1)


@dataclass(frozen=True)
class Draws:
    """What was drawn for each window.

    snr_db : (window,) inf for no noise; noise_exponent : (window,) a of the noise's power ~ 1/f^a, from
    white (0) to pink (1); gain_db : (window,) 0 for none; rt60_s : (window,) 0 for none;
    rows, frames : (window, mask, 2) first masked position and the one behind the last
    """

    snr_db: torch.Tensor
    noise_exponent: torch.Tensor
    gain_db: torch.Tensor
    rt60_s: torch.Tensor
    rows: torch.Tensor
    frames: torch.Tensor

    def at(self, start: int, count: int) -> Draws:
        """Give the draws of `count` windows from `start` on, as views."""
        return self._each(lambda column: column[start : start + count])

    def to(self, device: torch.device) -> Draws:
        """Give the draws on a device; they were drawn on the CPU, equal for all."""
        return self._each(lambda column: column.to(device))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Draws:
        return Draws(**{column.name: change(getattr(self, column.name)) for column in fields(self)})

    def means(self, augmentation: Augmentation) -> dict[str, float]:
        """Sum up what was drawn; a mean is over the windows that were met, a share over all.

        ``gain_db`` is the mean size of the gain: its mean is 0 by construction.
        """
        noisy, reverberant, loud = self.snr_db.isfinite(), self.rt60_s > 0, self.gain_db != 0
        found: dict[str, float] = {}
        if augmentation.noise_snr_db is not None:
            found["noise_share"] = float(noisy.double().mean())
            found |= _mean("snr_db", self.snr_db[noisy]) | _mean("noise_exponent", self.noise_exponent[noisy])
        if augmentation.gain_db > 0:
            found["gain_share"] = float(loud.double().mean())
            found |= _mean("gain_db", self.gain_db[loud].abs())
        if augmentation.reverb_rt60_s > 0:
            found["reverb_share"] = float(reverberant.double().mean())
            found |= _mean("rt60_s", self.rt60_s[reverberant])
        if augmentation.freq_mask > 0:
            found["freq_masked"] = float(covered(self.rows).double().mean()) / augmentation.num_features
        if augmentation.time_mask > 0:
            found["time_masked"] = float(covered(self.frames).double().mean()) / augmentation.num_frames
        return found


class EpochAugmentation:
    """One epoch's draws on a device, in the order in which its windows come.

    Attributes
    ----------
    means : what was drawn, summed up (`Draws.means`)
    generator : draws the noise itself, on the device; its state is part of an epoch that is interrupted
    """

    def __init__(self, augmentation: Augmentation, windows: int, seed: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(seed)
        drawn = augmentation.draw(windows, generator)
        own_seed = int(torch.randint(2**62, (), generator=generator))
        self.means = drawn.means(augmentation)
        self.augmentation, self.drawn = augmentation, drawn.to(device)
        # The noise itself is drawn where it is needed: by the hundred thousand numbers a window.
        self.generator = torch.Generator(device).manual_seed(own_seed)

    def waveforms(self, batch: torch.Tensor, start: int) -> torch.Tensor:
        """Augment the windows from `start` on, (window, sample) float32; the samples stay where they are."""
        drawn, ranges = self.drawn.at(start, len(batch)), self.augmentation
        if ranges.reverb_rt60_s > 0:
            response = impulse_responses(drawn.rt60_s, ranges.reverb_rt60_s, self.generator)
            wet = torchaudio.functional.fftconvolve(batch, response)[:, : batch.shape[1]]
            batch = torch.where(drawn.rt60_s[:, None] > 0, wet, batch)
        if ranges.noise_snr_db is not None:
            noise = coloured_noise(drawn.noise_exponent, batch.shape[1], self.generator)
            batch = torchaudio.functional.add_noise(batch, noise, drawn.snr_db)
        if ranges.gain_db > 0:
            batch = batch * 10 ** (drawn.gain_db[:, None] / 20)
        return batch

    def features(self, batch: torch.Tensor, start: int) -> torch.Tensor:
        """Mask the windows from `start` on, (window, feature, frame), with each row's mean: 0 after CMVN."""
        if not self.augmentation.on_features:
            return batch
        drawn = self.drawn.at(start, len(batch))
        masked = _inside(drawn.rows, batch.shape[1])[:, :, None]
        masked = masked | _inside(drawn.frames, batch.shape[2])[:, None, :]
        axes = (2,) if batch.shape[2] > 1 else (1, 2)  # a single frame has no mean but itself
        return torch.where(masked, batch.mean(dim=axes, keepdim=True), batch)


def coloured_noise(exponent: torch.Tensor, samples: int, generator: torch.Generator) -> torch.Tensor:
    """Draw noise of power ~ 1/f^exponent without its constant, (window, samples); the level means nothing."""
    bins = samples // 2 + 1
    spectrum = torch.randn(
        len(exponent), bins, dtype=torch.complex64, generator=generator, device=exponent.device
    )
    frequency = torch.arange(bins, device=exponent.device, dtype=torch.float32)
    shape = torch.exp(-exponent[:, None] / 2 * frequency.clamp(min=1).log()) * (frequency > 0)
    noise: torch.Tensor = torch.fft.irfft(spectrum * shape, n=samples)
    return noise


def impulse_responses(rt60_s: torch.Tensor, longest_s: float, generator: torch.Generator) -> torch.Tensor:
    """Draw room impulse responses of energy 1, (window, sample): the direct sound, then a decaying tail.

    ::

        |                      half of the energy is direct (a listener at the critical distance);
        | .                    the tail is noise whose power falls by 60 dB in RT60 (Polack 1988)
        |:|:.:...  . .
        0        RT60 -> time
    """
    length = 1 + _IR_STEP * math.ceil(longest_s * SAMPLE_RATE / _IR_STEP)
    noise = torch.randn(len(rt60_s), length, generator=generator, device=rt60_s.device)
    time_s = torch.arange(length, device=rt60_s.device) / SAMPLE_RATE
    tail = noise * torch.exp(-3 * math.log(10) * time_s / rt60_s[:, None].clamp(min=MIN_RT60_S))
    tail[:, 0] = 0
    tail = tail / torch.linalg.vector_norm(tail, dim=1, keepdim=True)
    tail[:, 0] = 1
    responses: torch.Tensor = tail / math.sqrt(2)
    return responses


def covered(spans: torch.Tensor) -> torch.Tensor:
    """Count the positions in at least one of a window's spans, (window, span, 2) -> (window,)."""
    first, order = spans[..., 0].sort(dim=1)
    end = spans[..., 1].gather(1, order)
    reached = torch.cat([torch.zeros_like(end[:, :1]), end.cummax(dim=1).values[:, :-1]], dim=1)
    return (end - torch.maximum(first, reached)).clamp(min=0).sum(dim=1)


def _inside(spans: torch.Tensor, size: int) -> torch.Tensor:
    """Tell which of `size` positions lie in one of a window's spans, (window, size)."""
    position = torch.arange(size, device=spans.device)[:, None, None]
    # torchaudio's masks draw from the device's own generator and do not tell what they drew.
    inside = (position >= spans[None, ..., 0]) & (position < spans[None, ..., 1])
    return inside.any(dim=2).T


def _mean(name: str, values: torch.Tensor) -> dict[str, float]:
    return {name: float(values.double().mean())} if len(values) else {}
