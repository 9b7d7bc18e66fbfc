"""Front ends as batched torch modules, (batch, sample) float32 -> (batch, feature, frame).

The arithmetic of the spectral ones, for one window::

    48000 samples in [-1, 1]
      | frames of win_length at every hop, Hann, |FFT|^2      (257, 301)
      | Slaney mel filters                                     (80, 301)
      | 10 log10, floored top_db below the window's own peak   (80, 301)   log_mel
      | orthonormal DCT-II over the bands                      (40, 301)   mfcc
      | the same above its slope over 9 frames                 (80, 301)   mfcc_delta
      | every row to mean 0, variance 1 (CMVN)

Every step looks at one window alone: nothing is taken over the batch.
"""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
import torch
import torchaudio
from torch import nn

from models.front_ends.config import CepstralFrontEnd, MfccDelta, SpectralFrontEnd, Waveform
from models.front_ends.mel_scale import filter_edges
from models.front_ends.spectrogram import ConvolutionSpectrogram
from models.window import SAMPLE_RATE

MIN_POWER = 1e-10  # librosa's and torchaudio's floor under the logarithm
MIN_DEVIATION = 1e-2  # of a row, in its own unit: a silent window gives zeros, not amplified rounding
MIN_LEVEL = 1e-4  # root mean square of a waveform, about three steps of int16


def standardize(features: torch.Tensor, floor: float) -> torch.Tensor:
    """Bring rows to mean 0 and variance 1 over frames, (..., frame) -> (..., frame).

    A row divides by its own standard deviation (over n, not n - 1), or by ``floor`` where that is larger: a silent row
    gives zeros instead of amplified rounding.
    """
    centred = features - features.mean(dim=-1, keepdim=True)
    deviation = centred.square().mean(dim=-1, keepdim=True).sqrt()
    return centred / deviation.clamp(min=floor)


def _mel_filters(config: SpectralFrontEnd) -> torch.Tensor:
    """Make the triangular filters, (n_mels, bin) float32, on the Slaney scale.

    Each rises from one edge to the next and falls to the one after, with area 1 over Hz: height 2 / (high - low). In
    double precision, as librosa: torchaudio's single-precision edges cost a digit of parity.
    """
    edges = np.asarray(filter_edges(config.n_mels, config.f_min, config.f_max_hz))
    bins_hz = np.arange(config.n_fft // 2 + 1) * SAMPLE_RATE / config.n_fft
    low, middle, high = (edges[i : i + config.n_mels, None] for i in range(3))
    rising, falling = (bins_hz - low) / (middle - low), (high - bins_hz) / (high - middle)
    filters = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return torch.from_numpy(filters.astype(np.float32))


class FeatureExtractor(nn.Module):
    """Base of all front-end modules, (batch, sample) float32 in [-1, 1] -> (batch, feature, frame) float32.

    Each is made of the configuration that names it, holds constants only (buffers that no state dict keeps), and is
    found through `build_front_end`.
    """

    @classmethod
    def why_unavailable(cls, config: Any) -> str | None:
        """Say why this cannot be computed on this machine; None where it can. Asked of external front ends only."""
        del config
        return None

    def exportable(self) -> FeatureExtractor:
        """Give the same function without operations that ONNX runtimes lack; parameters are shared."""
        return self


class WaveformFeatures(FeatureExtractor):
    """(batch, sample) -> (batch, 1, sample); normalised, a window has mean 0 and root mean square 1.

    Below a root mean square of 1e-4 it divides by that: silence stays small.
    """

    def __init__(self, config: Waveform) -> None:
        super().__init__()
        self.normalize = config.normalize

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Give each window a row of its own, normalised where the configuration says so."""
        rows = waveforms.unsqueeze(1)
        return standardize(rows, MIN_LEVEL) if self.normalize else rows


class LogMelFeatures(FeatureExtractor):
    """(batch, sample) -> (batch, n_mels, frame), decibels unless CMVN is on."""

    mel_filters: torch.Tensor

    def __init__(self, config: SpectralFrontEnd) -> None:
        super().__init__()
        self.config = config
        self.spectrogram: nn.Module = torchaudio.transforms.Spectrogram(
            n_fft=config.n_fft,
            win_length=config.win_length,
            hop_length=config.hop_length,
            power=2.0,
            center=True,
            pad_mode="constant",  # as librosa; torchaudio's own "reflect" differs by .12
        )
        self.register_buffer("mel_filters", _mel_filters(config), persistent=False)

    def exportable(self) -> Self:
        """Replace the FFT by a convolution: the ONNX STFT has no CUDA kernel, the convolution has."""
        other = copy.copy(self)
        other._modules = dict(self._modules)
        other.spectrogram = ConvolutionSpectrogram(
            self.config.n_fft, self.config.win_length, self.config.hop_length
        )
        return other

    def decibels(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Compute the mel spectrogram in dB re 1, (batch, n_mels, frame): 10 log10 of the power, at least -100 dB.

        With ``top_db`` nothing is further below the window's own peak than that.
        """
        power = self.mel_filters @ self.spectrogram(waveforms)  # (B, M, T)
        decibels = 10.0 * torch.log10(power.clamp(min=MIN_POWER))
        if self.config.top_db is None:
            return decibels
        peak = decibels.amax(dim=(1, 2), keepdim=True)
        return torch.maximum(decibels, peak - self.config.top_db)

    def rows(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Compute the features before CMVN, (batch, feature, frame); subclasses go on from the decibels here."""
        return self.decibels(waveforms)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Compute the features, (batch, sample) -> (batch, feature, frame); rows standardized with CMVN."""
        rows = self.rows(waveforms)
        return standardize(rows, MIN_DEVIATION) if self.config.cmvn else rows


class MfccFeatures(LogMelFeatures):
    """(batch, sample) -> (batch, n_mfcc, frame): mel-frequency cepstral coefficients (Davis & Mermelstein 1980).

    The orthonormal DCT-II over the decibels of the mel bands, of which the lowest ``n_mfcc`` are kept; no liftering.
    """

    dct: torch.Tensor

    def __init__(self, config: CepstralFrontEnd) -> None:
        super().__init__(config)
        basis = torchaudio.functional.create_dct(config.n_mfcc, config.n_mels, norm="ortho")
        self.register_buffer("dct", basis.T.contiguous(), persistent=False)  # (coefficient, mel)

    def rows(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Compute the coefficients before CMVN, (batch, n_mfcc, frame)."""
        return self.dct @ self.decibels(waveforms)


class MfccDeltaFeatures(MfccFeatures):
    """(batch, sample) -> (batch, 2 n_mfcc, frame): coefficients, then their slopes over time.

    The slope is that of the least-squares line through ``delta_width`` frames (unit: per frame); beyond the ends the
    first and the last frame are repeated.
    """

    slope: torch.Tensor

    def __init__(self, config: MfccDelta) -> None:
        super().__init__(config)
        self.reach = config.delta_width // 2
        # Least-squares slope over n = -h..h: sum(n x) / sum(n^2), sum(n^2) = h (h + 1) (2 h + 1) / 3.
        steps = torch.arange(-self.reach, self.reach + 1, dtype=torch.float32)
        kernel = steps / (self.reach * (self.reach + 1) * (2 * self.reach + 1) / 3)
        self.register_buffer("slope", kernel.view(1, 1, 1, -1), persistent=False)

    def rows(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Compute coefficients and slopes before CMVN, (batch, 2 n_mfcc, frame)."""
        cepstra = super().rows(waveforms)
        # torchaudio's compute_deltas folds the batch into channels, and "replicate" padding takes a dozen
        # operations in ONNX: either way a graph for one batch size, or a slow one.
        edges = [cepstra[..., :1]] * self.reach, [cepstra[..., -1:]] * self.reach
        padded = torch.cat([*edges[0], cepstra, *edges[1]], dim=-1)
        slopes = nn.functional.conv2d(padded.unsqueeze(1), self.slope).squeeze(1)
        return torch.cat([cepstra, slopes], dim=1)
