"""The histogram of the labels that every other arm leaves behind, beside its ONNX file, as their docs say."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib.figure import Figure


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
