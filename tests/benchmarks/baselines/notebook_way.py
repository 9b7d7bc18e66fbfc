"""`python notebook_way.py JOB.json`: one trial as the notebooks ran it, in a process of its own.

A dataset whose `__iter__` decodes and featurises each window with librosa, in the training's own process; a Conv1d
network; fluent MLflow on an SQLite file; a figure of the labels and an ONNX export at the end. Nothing of this project
is imported but the plain loop beside it. With `loaders` the windows are featurised in that many processes instead.

JOB.json: train, val (rows of [path, first sample, label]), front_end (mfcc or log_mel), channels, dropout,
recipe, loaders, tracking_uri, experiment.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import librosa
import mlflow
import numpy as np
import soundfile
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, SequentialSampler

from tests.benchmarks.baselines.artefacts import label_histogram
from tests.benchmarks.baselines.exporter import export
from tests.benchmarks.baselines.plain_training import Batch, Recipe, order_of, train

SAMPLE_RATE = 16_000
WINDOW_SAMPLES = 48_000
FRAMES = 301
SPECTRUM: dict[str, Any] = {
    "n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 80, "pad_mode": "constant"
}  # fmt: skip
Row = tuple[str, int, int]


class Windows(Dataset[tuple[torch.Tensor, int]]):
    """Windows on disk, featurised one by one: (feature, frame) float32 and the label."""

    def __init__(self, rows: list[Row], front_end: str) -> None:
        self.rows, self.front_end = rows, front_end

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, start, label = self.rows[index]
        samples, _ = soundfile.read(path, frames=WINDOW_SAMPLES, start=start, dtype="float32")
        if self.front_end == "mfcc":
            rows = librosa.feature.mfcc(y=samples, sr=SAMPLE_RATE, n_mfcc=40, **SPECTRUM)
        else:
            mel = librosa.feature.melspectrogram(y=samples, sr=SAMPLE_RATE, **SPECTRUM)
            rows = librosa.power_to_db(mel)
        deviation = np.maximum(rows.std(axis=1, keepdims=True), 1e-2)
        features = ((rows - rows.mean(axis=1, keepdims=True)) / deviation).astype(np.float32)
        return torch.from_numpy(features), label


class Shuffled(Sampler[int]):
    """The order of an epoch's windows."""

    def __init__(self, windows: int, recipe: Recipe) -> None:
        self.windows, self.recipe, self.epoch = windows, recipe, 0

    def __iter__(self) -> Iterator[int]:
        return iter(order_of(self.epoch, self.windows, self.recipe).tolist())

    def __len__(self) -> int:
        return self.windows // self.recipe.batch_size * self.recipe.batch_size


class Stream(IterableDataset[tuple[torch.Tensor, int]]):
    """The same windows, one after the other in the order of a sampler."""

    def __init__(self, windows: Windows, order: Sampler[int]) -> None:
        self.windows, self.order = windows, order

    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        return (self.windows[index] for index in self.order)


class Block(nn.Module):
    """Two convolutions beside a shortcut, then pooling by two, (batch, channel, frame)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm1d(outputs)
        self.conv2 = nn.Conv1d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm1d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv1d(inputs, outputs, 1, bias=False), nn.BatchNorm1d(outputs))
        self.pool = nn.MaxPool1d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Halve the frames."""
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        pooled: torch.Tensor = self.pool(torch.relu(y + self.shortcut(x)))
        return pooled


class Network(nn.Module):
    """The notebooks' network, (batch, feature, frame) -> logits (batch, 2)."""

    def __init__(self, features: int, channels: list[int], dropout: float) -> None:
        super().__init__()
        pairs = zip([features, *channels[:-1]], channels, strict=True)
        self.blocks = nn.Sequential(*(Block(inputs, outputs) for inputs, outputs in pairs))
        hidden = channels[-1] // 2
        self.head = nn.Sequential(
            nn.Linear(channels[-1], hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 2)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Classify."""
        logits: torch.Tensor = self.head(self.blocks(features).mean(dim=2))
        return logits


def loader_of(windows: Windows, order: Sampler[int], batch_size: int, processes: int) -> DataLoader[Any]:
    """Batches of a split; without processes of its own the DataLoader asks `__iter__`."""
    if not processes:
        return DataLoader(Stream(windows, order), batch_size=batch_size)
    return DataLoader(
        windows, batch_size=batch_size, sampler=order, num_workers=processes, persistent_workers=True,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip


def main(job: dict[str, Any]) -> None:
    """Train, log and export."""
    torch.set_num_threads(1)
    recipe = Recipe(**job["recipe"])
    rows: dict[str, list[Row]] = {split: [tuple(row) for row in job[split]] for split in ("train", "val")}
    labels = {split: torch.tensor([label for *_, label in some]) for split, some in rows.items()}
    sampler = Shuffled(len(rows["train"]), recipe)
    datasets = {split: Windows(some, job["front_end"]) for split, some in rows.items()}
    num_features = len(
        datasets["train"][0][0]
    )  # loads librosa, before the loaders' processes are forked from here
    orders = {"train": sampler, "val": SequentialSampler(datasets["val"])}
    loaders = {
        split: loader_of(datasets[split], orders[split], recipe.batch_size, job["loaders"]) for split in rows
    }

    def batches(epoch: int) -> DataLoader[Batch]:
        sampler.epoch = epoch
        return loaders["train"]

    torch.manual_seed(recipe.seed)
    model = Network(num_features, job["channels"], job["dropout"])
    mlflow.set_tracking_uri(job["tracking_uri"])
    mlflow.set_experiment(job["experiment"])
    with mlflow.start_run(run_name=f"{job['front_end']} {recipe.learning_rate:g}"):
        mlflow.log_params({"feature": job["front_end"], **job["recipe"]})
        epochs = train(model, recipe, len(sampler), batches, lambda: loaders["val"])
        for epoch, metrics in enumerate(epochs):
            mlflow.log_metrics(metrics, step=epoch)
        mlflow.log_figure(label_histogram(labels), "labels.png")
        export(model, torch.randn(2, num_features, FRAMES), Path("model.onnx"))
        mlflow.log_artifact("model.onnx")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
