"""A trial in a process of its own, the usual way, without its training: FOLDER URI WIDTH.

Imports, data, model, metrics by the fluent API, a label histogram by pyplot, `torch.onnx.export` and
`mlflow.onnx.log_model`, as their tutorials show them. The last line printed says what it took to draw.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import mlflow
import mlflow.onnx
import numpy as np
import numpy.typing as npt
import onnx
import torch

from models.networks.cnn import FastDiarizationModel
from models.networks.config import CnnConfig
from tests.benchmarks.baselines.exporter import export
from tests.benchmarks.bench_worker import fixed_logits


def main(folder: Path, uri: str, width: float) -> None:
    """Run the trial."""
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("naive")
    with mlflow.start_run() as run:
        mlflow.log_params({"learning_rate": 1e-3, "width": width, "epochs": 1, "batch_size": 32})
        features = torch.from_numpy(np.load(folder / "val.npy"))
        labels = {split: np.load(folder / f"{split}_labels.npy") for split in ("train", "val")}
        model = FastDiarizationModel(features.shape[1], CnnConfig(width=width), num_frames=features.shape[2])
        torch.optim.AdamW(model.parameters())
        logits = fixed_logits(len(features))
        truth = torch.from_numpy(labels["val"]).long()
        loss = float(torch.nn.functional.cross_entropy(logits, truth))
        accuracy = float((logits.argmax(dim=1) == truth).double().mean())
        mlflow.log_metric("val_loss", loss, step=0)
        mlflow.log_metric("val_accuracy", accuracy, step=0)
        figures_s = log_histogram(labels)
        size = log_onnx(model.eval(), features[:2], folder / "naive.onnx")
    print(json.dumps({"run_id": run.info.run_id, "figures_s": figures_s, "onnx_bytes": size}))


def log_histogram(labels: dict[str, npt.NDArray[np.int64]]) -> float:
    """Draw and log how often each class stands in each split; CPU seconds of drawing."""
    start = time.process_time()
    figure, axes = plt.subplots(figsize=(4.8, 3.2))
    for at, (split, values) in enumerate(labels.items()):
        axes.bar([at - 0.2, at + 0.2], np.bincount(values.astype(int), minlength=2), width=0.4, label=split)
    axes.set_xticks(range(len(labels)), list(labels))
    axes.legend()
    mlflow.log_figure(figure, "labels.png")
    plt.close(figure)
    return time.process_time() - start


def log_onnx(model: torch.nn.Module, example: torch.Tensor, path: Path) -> int:
    """Export the network, features in and logits out, and log it as a model; bytes of the ONNX file."""
    export(model, example, path)
    proto = onnx.load(path)
    onnx.checker.check_model(proto)
    mlflow.onnx.log_model(proto, name="model", save_as_external_data=False)
    return int(proto.ByteSize())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
