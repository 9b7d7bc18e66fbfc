"""A bare training loop over resident tensors: `python -m tests.benchmarks.baselines.bare_loop FOLDER`.

What one writes who wants the fastest training of this network on one core, and nothing else: the features in
memory, AdamW (fused), a cosine schedule, an evaluation each epoch. No logging, no files. It draws its batches and
its dropout from the seeds that the harness derives, so that the weights can be compared bit for bit.

FOLDER holds {train,val}.npy (window, feature, frame) float32 and {train,val}_labels.npy (window,). A line of JSON on
standard input is one training (`epochs`, `learning_rate`, `seed`, `width`, ...), answered by a line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from models.networks.cnn import FastDiarizationModel
from models.networks.config import CnnConfig


@dataclass(frozen=True)
class Windows:
    """Resident features (window, feature, frame) and labels (window,)."""

    features: torch.Tensor
    labels: torch.Tensor


def load(folder: Path, split: str) -> Windows:
    """Read a split into memory."""
    labels = torch.from_numpy(np.load(folder / f"{split}_labels.npy")).long()
    return Windows(torch.from_numpy(np.load(folder / f"{split}.npy")), labels)


def train(
    train: Windows,
    val: Windows,
    *,
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    warmup_share: float,
    batch_size: int,
    width: float,
    seed: int,
    scored: int,
) -> tuple[list[float], list[dict[str, torch.Tensor]]]:
    """Train one network; accuracy on the validation windows and a copy of the weights after each epoch.

    Parameters
    ----------
    scored : training windows that are scored after each epoch, beside all validation windows
    """
    torch.manual_seed(seed)
    _, rows, frames = train.features.shape
    model = FastDiarizationModel(rows, CnnConfig(width=width), num_frames=frames)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
    batch = min(batch_size, len(train.labels))
    steps = len(train.labels) // batch
    accuracies, states = [], []
    for epoch in range(epochs):
        torch.manual_seed(_seed(seed, epoch, "draws"))
        order = torch.randperm(
            len(train.labels), generator=torch.Generator().manual_seed(_seed(seed, epoch, "order"))
        )
        model.train()
        for step in range(steps):
            index = order[step * batch : (step + 1) * batch]
            rate = learning_rate * _schedule(epoch * steps + step, epochs * steps, warmup_share)
            optimizer.param_groups[0]["lr"] = rate
            loss = F.cross_entropy(model(train.features[index]), train.labels[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        evaluate(model, Windows(train.features[:scored], train.labels[:scored]), batch_size)
        accuracies.append(evaluate(model, val, batch_size))
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    return accuracies, states


def evaluate(model: torch.nn.Module, windows: Windows, batch_size: int) -> float:
    """Accuracy of a network on windows."""
    model.eval()
    with torch.inference_mode():
        parts = [model(part) for part in torch.split(windows.features, batch_size)]
    right: torch.Tensor = torch.cat(parts).argmax(dim=1) == windows.labels
    return float(right.double().mean())


def _schedule(step: int, steps: int, warmup_share: float) -> float:
    """Share of the top rate: a straight climb, then half a cosine."""
    warmup = round(warmup_share * steps)
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def _seed(seed: int, epoch: int, purpose: str) -> int:
    digest = hashlib.sha256(f"{seed}/{epoch}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def digest(state: dict[str, torch.Tensor]) -> str:
    """Hex sha256 of named tensors: their names, shapes and bytes."""
    found = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].contiguous()
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()


def answer(folder: Path, asked: dict[str, Any], windows: dict[str, Windows]) -> dict[str, Any]:
    """Train once and say what it took; digests are computed when the clock has stopped."""
    cpu, wall = time.process_time(), time.perf_counter()
    accuracies, states = train(windows["train"], windows["val"], **asked)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall_s": wall, "cpu_s": cpu, "accuracy": accuracies, "digests": [digest(one) for one in states]}


def main() -> None:
    """Train for each line that comes, in this warm process."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    windows = {split: load(folder, split) for split in ("train", "val")}
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(folder, json.loads(line), windows)), flush=True)


if __name__ == "__main__":
    main()
