"""Kaldi's filter bank (Povey et al. 2011) as speaker-embedding networks expect it: 80 bands, 25 ms every 10 ms.

``library_fbank`` is kaldi-native-fbank; ``KaldiFbank`` is the same as a torch module that can be exported.
The arithmetic of one frame::

    400 samples * scale
      | minus their mean
      | x[n] - .97 x[n - 1], x[0] - .97 x[0]            all linear, so one (514, 400)
      | window (hamming or povey)                        matrix, applied as a convolution
      | cosines and sines of 257 bins of 512
    power of every bin                                   (257,)
      | triangles between 20 and 8000 Hz, in mel         (80,)
    natural logarithm, not below that of 2^-23           (80,)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.window import SAMPLE_RATE

BANDS = 80
FRAME_SAMPLES = 400  # 25 ms
FRAME_SHIFT = 160  # 10 ms
FFT_SAMPLES = 512
PRE_EMPHASIS = 0.97
LOWEST_HZ = 20.0
FLOOR = float(np.finfo(np.float32).eps)  # of the energy, before the logarithm


@dataclass(frozen=True)
class Recipe:
    """What the conventions of embedding networks differ in; a network works with the one it was trained with."""

    window: str  # hamming, or povey: a Hann window to the power .85, which is 0 at its ends
    scale: float  # of samples in [-1, 1]: Kaldi itself reads int16


RECIPES = {"wespeaker": Recipe("hamming", 32768.0), "3dspeaker": Recipe("povey", 1.0)}


def num_fbank_frames(num_samples: int) -> int:
    """Count the frames that fit whole (Kaldi's snip_edges): ``1 + (n - 400) // 160``, 298 in 3 s, 148 in 1.5 s."""
    return max(0, 1 + (num_samples - FRAME_SAMPLES) // FRAME_SHIFT)


def library_fbank(samples: npt.NDArray[np.float32], recipe: str) -> npt.NDArray[np.float32]:
    """Compute log energies with kaldi-native-fbank, (sample,) in [-1, 1] -> (frame, 80)."""
    import kaldi_native_fbank

    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = RECIPES[recipe].window
    options.mel_opts.num_bins = BANDS
    computer = kaldi_native_fbank.OnlineFbank(options)
    computer.accept_waveform(SAMPLE_RATE, samples * np.float32(RECIPES[recipe].scale))
    computer.input_finished()
    frames = [computer.get_frame(index) for index in range(computer.num_frames_ready)]
    return np.stack(frames) if frames else np.empty((0, BANDS), np.float32)


class KaldiFbank(nn.Module):
    """(batch, sample) in [-1, 1] -> (batch, frame, 80) log energies: `library_fbank` without dither, in two products.

    Everything before the power is linear in the samples, so it is one convolution; see `_kernels`.
    """

    kernels: torch.Tensor
    bands: torch.Tensor

    def __init__(self, recipe: str) -> None:
        super().__init__()
        kernels = torch.from_numpy(_kernels(RECIPES[recipe]).astype(np.float32)).unsqueeze(1)
        self.register_buffer("kernels", kernels, persistent=False)  # (2 bin, 1, sample)
        self.register_buffer("bands", _bands(), persistent=False)  # (80, bin)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Compute natural log energies, (batch, sample) -> (batch, frame, 80)."""
        parts = nn.functional.conv1d(waveforms.unsqueeze(1), self.kernels, stride=FRAME_SHIFT).square()
        bins = FFT_SAMPLES // 2 + 1
        energy = self.bands @ (parts[:, :bins] + parts[:, bins:])  # (B, 80, T)
        return energy.clamp(min=FLOOR).log().transpose(1, 2)


def _kernels(recipe: Recipe) -> npt.NDArray[np.float64]:
    """Fold everything before the power into one matrix, (cosines and sines of every bin, sample)."""
    n = np.arange(FRAME_SAMPLES)
    cosine = np.cos(2 * np.pi * n / (FRAME_SAMPLES - 1))
    window = 0.54 - 0.46 * cosine if recipe.window == "hamming" else (0.5 - 0.5 * cosine) ** 0.85
    centre = np.eye(FRAME_SAMPLES) - 1 / FRAME_SAMPLES
    emphasis = np.eye(FRAME_SAMPLES) - PRE_EMPHASIS * np.eye(FRAME_SAMPLES, k=-1)
    emphasis[0, 0] -= PRE_EMPHASIS
    # Reduced modulo the FFT's length as whole numbers: the angle stays exact for high bins.
    angle = 2 * np.pi * (np.outer(np.arange(FFT_SAMPLES // 2 + 1), n) % FFT_SAMPLES) / FFT_SAMPLES
    transform = np.concatenate([np.cos(angle), np.sin(angle)])
    return np.asarray(recipe.scale * (transform * window) @ emphasis @ centre)


def _bands() -> torch.Tensor:
    """Give torchaudio's triangles of Kaldi, with a column of zeros for the bin at 8000 Hz."""
    from torchaudio.compliance.kaldi import get_mel_banks

    bands, _ = get_mel_banks(BANDS, FFT_SAMPLES, float(SAMPLE_RATE), LOWEST_HZ, 0.0, 100.0, -500.0, 1.0)
    return nn.functional.pad(bands, (0, 1)).float()
