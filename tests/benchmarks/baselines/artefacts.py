"""What every other arm leaves behind beside its metrics: an ONNX file and a histogram of the labels, as their docs say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn


def export(model: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Write the network, features (batch, feature, frame) -> logits (batch, 2), by torch's default exporter.

    `example` has two rows or more: one would bake the batch into the graph.
    """
    torch.onnx.export(
        model.eval(), (example,), path, input_names=["features"], output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},), external_data=False, verbose=False,
    )  # fmt: skip


def label_histogram(labels: Mapping[str, torch.Tensor]) -> Figure:
    """Windows of each class in every split."""
    figure = Figure(figsize=(4.8, 3.2))
    axes = figure.subplots()
    for place, (split, values) in enumerate(labels.items()):
        counts = [int((values == label).sum()) for label in (0, 1)]
        axes.bar([place - 0.2, place + 0.2], counts, width=0.4, label=split)
    axes.legend()
    axes.set_ylabel("windows")
    return figure
