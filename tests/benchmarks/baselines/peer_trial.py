"""A trial as Ray Tune's and Hydra's users write it: features from memory, the plain loop, an ONNX file in MLflow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import torch

from models.networks.cnn import FastDiarizationModel
from models.networks.config import CnnConfig
from tests.benchmarks.baselines.artefacts import label_histogram
from tests.benchmarks.baselines.exporter import export
from tests.benchmarks.baselines.plain_training import Recipe, in_turn, resident, train

SPLITS = ("train", "val")
SCORE = "val/balanced_accuracy"


@dataclass(frozen=True)
class Cached:
    """Features (window, feature, frame) float32 and labels (window,) int64 of both splits, made once for all trials."""

    features: dict[str, torch.Tensor]
    labels: dict[str, torch.Tensor]

    @classmethod
    def load(cls, folder: Path) -> Cached:
        """Map what `save` wrote into memory."""

        def tensors(kind: str) -> dict[str, torch.Tensor]:
            paths = {split: folder / f"{split}_{kind}.npy" for split in SPLITS}
            return {split: torch.from_numpy(np.load(path, mmap_mode="c")) for split, path in paths.items()}

        return cls(tensors("features"), tensors("labels"))

    def save(self, folder: Path) -> None:
        """Write them as .npy files."""
        for split in SPLITS:
            np.save(folder / f"{split}_features.npy", self.features[split].numpy())
            np.save(folder / f"{split}_labels.npy", self.labels[split].numpy())


def training(
    cached: Cached, recipe: Recipe, width: float
) -> tuple[FastDiarizationModel, Iterator[dict[str, float]]]:
    """The bare loop: a network, and its epochs' metrics, which train it as they are asked for."""
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    num_features, num_frames = cached.features["train"].shape[1:]
    model = FastDiarizationModel(num_features, CnnConfig(width=width), num_frames=num_frames)
    epochs = train(
        model, recipe, len(cached.labels["train"]),
        resident(cached.features["train"], cached.labels["train"], recipe),
        lambda: in_turn(cached.features["val"], cached.labels["val"], recipe.batch_size),
    )  # fmt: skip
    return model, epochs


def leave_behind(model: FastDiarizationModel, cached: Cached, folder: Path) -> None:
    """Give the active MLflow run the ONNX file of a trained network and the labels' histogram."""
    began = time.perf_counter()
    export(model, torch.randn(2, *cached.features["train"].shape[1:]), folder / "model.onnx")
    mlflow.log_metric("export_s", time.perf_counter() - began)
    mlflow.log_figure(label_histogram(cached.labels), "labels.png")
    mlflow.log_artifact(str(folder / "model.onnx"))
