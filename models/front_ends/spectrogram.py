"""The power spectrogram as one convolution, for graphs: the ONNX operator STFT has no CUDA kernel."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class ConvolutionSpectrogram(nn.Module):
    """(batch, sample) -> (batch, n_fft // 2 + 1, frame), the same as a centred, zero-padded STFT.

    A frame of an STFT holds the window in its middle, the rest of it is zeros::

        n_fft      |0 0 0 0|   win_length   |0 0 0 0|
                       centre ^ at every hop

    so the power of bin k is that of the samples around the centre, times the window, correlated with
    ``cos(2 pi k n / n_fft)`` and ``sin(2 pi k n / n_fft)``, n counted from the centre: two kernels a bin.
    """

    kernels: torch.Tensor

    def __init__(self, n_fft: int, win_length: int, hop_length: int) -> None:
        super().__init__()
        self.bins = n_fft // 2 + 1
        self.hop_length = hop_length
        self.reach = (win_length + 1) // 2
        first = n_fft // 2 - (n_fft - win_length) // 2  # samples of the window before the centre
        n = np.arange(-self.reach, self.reach)
        position = n + first
        inside = (position >= 0) & (position < win_length)
        hann = np.where(inside, 0.5 - 0.5 * np.cos(2 * np.pi * position / win_length), 0)
        # Reduced modulo n_fft as whole numbers: the angle stays exact for high bins.
        angle = 2 * np.pi * (np.outer(np.arange(self.bins), n) % n_fft) / n_fft
        kernels = np.concatenate([np.cos(angle), np.sin(angle)]) * hann
        rows = torch.from_numpy(kernels.astype(np.float32)).unsqueeze(1)
        self.register_buffer("kernels", rows, persistent=False)  # (2 bin, 1, sample)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Compute the power of every bin and frame, (batch, sample) -> (batch, n_fft // 2 + 1, frame)."""
        parts = nn.functional.conv1d(
            waveforms.unsqueeze(1), self.kernels, stride=self.hop_length, padding=self.reach
        ).square()
        return parts[:, : self.bins] + parts[:, self.bins :]
