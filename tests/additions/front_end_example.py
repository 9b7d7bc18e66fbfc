"""A front end in one file: the log power of bands of equal width in Hz, (n_bands, frame)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field

from models.front_ends.config import FRONT_ENDS, FrontEnd
from models.front_ends.features import MIN_DEVIATION, MIN_POWER, FeatureExtractor, standardize
from models.front_ends.spectrogram import ConvolutionSpectrogram
from models.window import SAMPLE_RATE, WINDOW_SAMPLES

N_FFT = 512


class LinearBands(FrontEnd):
    """What a sweep file says, and what the front end tells about itself."""

    extractor: ClassVar[str] = f"{__name__}:LinearBandFeatures"
    kind: Literal["linear_bands"] = "linear_bands"
    n_bands: Literal[32, 64, 128] = Field(64, description="Bands from 0 to 8000 Hz.")
    hop_length: int = Field(160, ge=80, le=400, description="Frame shift in samples at 16 kHz.")

    @property
    def num_features(self) -> int:
        """One row a band."""
        return self.n_bands

    @property
    def frame_shift_s(self) -> float:
        """The hop."""
        return self.hop_length / SAMPLE_RATE

    def num_frames(self, num_samples: int = WINDOW_SAMPLES) -> int:
        """Frames are centred at every hop, from the first sample on."""
        return 1 + num_samples // self.hop_length


class LinearBandFeatures(FeatureExtractor):
    """(batch, sample) -> (batch, n_bands, frame)."""

    def __init__(self, config: LinearBands) -> None:
        super().__init__()
        self.n_bands = config.n_bands
        self.spectrogram = ConvolutionSpectrogram(N_FFT, N_FFT, config.hop_length)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Compute the features, every row of every window at mean 0 and variance 1."""
        power = self.spectrogram(waveforms)[:, : N_FFT // 2]  # (B, 256, T): 8000 Hz itself is left out
        bands = power.unflatten(1, (self.n_bands, -1)).mean(dim=2)
        return standardize(10 * torch.log10(bands.clamp(min=MIN_POWER)), MIN_DEVIATION)


FRONT_ENDS["linear_bands"] = LinearBands
