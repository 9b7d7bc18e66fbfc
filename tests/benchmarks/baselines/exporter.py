"""torch's exporter, as the baselines use it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.scale import TRACED

if TYPE_CHECKING:
    import torch
    from torch import nn


def export(model: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Write the network, features (batch, feature, frame) -> logits (batch, 2), by torch's default exporter.

    `example` has two rows or more: one would bake the batch into the graph.
    """
    import torch

    inputs, outputs = ["features"], ["logits"]
    if os.environ.get(TRACED):
        axes = {"features": {0: "batch"}, "logits": {0: "batch"}}
        torch.onnx.export(
            model.eval(), (example,), path, input_names=inputs, output_names=outputs, dynamic_axes=axes, dynamo=False
        )  # fmt: skip
        return
    torch.onnx.export(
        model.eval(), (example,), path, input_names=inputs, output_names=outputs,
        dynamic_shapes=({0: torch.export.Dim("batch")},), external_data=False, verbose=False,
    )  # fmt: skip
