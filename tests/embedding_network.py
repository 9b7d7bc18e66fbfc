"""A small speaker-embedding network, trained and exported as the real ones are: two TDNN layers, statistics, D = 32."""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from models.front_ends.kaldi_fbank import RECIPES, KaldiFbank

DIM = 32


class Tdnn(nn.Module):
    """(batch, frame, 80) -> (batch, D)."""

    def __init__(self, dim: int = DIM) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(80, 48, 5, dilation=2), nn.ReLU(), nn.BatchNorm1d(48),
            nn.Conv1d(48, 64, 3), nn.ReLU(), nn.BatchNorm1d(64),
        )  # fmt: skip
        self.embedding = nn.Linear(128, dim)

    def forward(self, feats: torch.Tensor) -> torch.Tensor:
        frames = self.layers(feats.transpose(1, 2))
        mean = frames.mean(dim=2)
        deviation = (frames.square().mean(dim=2) - mean.square()).clamp(min=1e-5).sqrt()
        return self.embedding(torch.cat([mean, deviation], dim=1))


def voices(count: int, seed: int = 0, samples: int = 48_000) -> tuple[np.ndarray, np.ndarray]:
    """Windows (count, sample) float32 of four "speakers": harmonics of an own pitch, in an own band, with noise."""
    rng = np.random.default_rng(seed)
    speakers = np.arange(count) % 4
    time = np.arange(samples) / 16_000
    rows = np.zeros((count, samples), np.float32)
    for row, speaker in enumerate(speakers):
        pitch = 90 + 45 * speaker + rng.uniform(-5, 5)
        for harmonic in range(1, 13):
            level = np.exp(-(((harmonic * pitch - 500 - 500 * speaker) / 700) ** 2))
            rows[row] += level * np.sin(2 * np.pi * harmonic * pitch * time + rng.uniform(0, 6))
        rows[row] *= 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(2, 5) * time) ** 2
    rows *= 0.1 / np.sqrt((rows**2).mean(axis=1, keepdims=True))
    return (rows + rng.normal(scale=0.003, size=rows.shape)).astype(np.float32), speakers


def trained(recipe: str = "wespeaker", dim: int = DIM, seconds: float = 1.5, steps: int = 25) -> Tdnn:
    """Train on four voices, about a second of CPU time."""
    torch.manual_seed(0)
    windows, speakers = voices(32, samples=int(seconds * 16_000))
    feats = KaldiFbank(recipe)(torch.from_numpy(windows))
    feats = feats - feats.mean(dim=1, keepdim=True)
    network, head = Tdnn(dim), nn.Linear(dim, 4)
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(steps):
        pick = torch.randint(len(feats), (16,))
        loss = nn.functional.cross_entropy(head(network(feats[pick])), torch.from_numpy(speakers)[pick])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def export(
    network: nn.Module, path: Path, *, opset: int = 14, names: tuple[str, str] = ("feats", "embs"),
    batch: bool = True, frames: int = 148,
) -> str:  # fmt: skip
    """Write the file and give its sha256; `batch=False` bakes one window at a time in."""
    axes = {names[0]: {0: "B", 1: "T"}, names[1]: {0: "B"}} if batch else {names[0]: {1: "T"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), (torch.randn(2 if batch else 1, frames, 80),), path, dynamo=False, opset_version=opset,
            input_names=[names[0]], output_names=[names[1]], dynamic_axes=axes,
        )  # fmt: skip
    return sha256(path)


def outside(path: Path) -> str:
    """Move the tensors of a file into another one beside it, which is refused; its new sha256."""
    onnx.save(
        onnx.load(path), path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0
    )
    return sha256(path)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


__all__ = ["DIM", "RECIPES", "Tdnn", "export", "outside", "sha256", "trained", "voices"]
