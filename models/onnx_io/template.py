"""A traced graph that waits for weights: its bytes, cut where each weight belongs.

A tensor's values stand in a serialized model as they do in memory, so another network of the same shape is written
without touching the graph::

    between[0]  weights[names[0]]  between[1]  weights[names[1]]  ...  between[-1]  metadata
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import torch

from models.onnx_io.compose import ExportError


@dataclass(frozen=True)
class Template:
    """A serialized model without the values of the tensors ``names``, which lie between ``between``; under 1 MB."""

    names: tuple[str, ...]
    between: tuple[bytes, ...]

    @classmethod
    def cut(cls, model: onnx.ModelProto, names: Collection[str]) -> Template:
        """Cut the tensors ``names`` out of a model, whose values they lose: bytes to be found by take their place.

        Raises
        ------
        ExportError
            Such bytes stand elsewhere too.
        """
        del model.metadata_props[:]
        marks = np.random.default_rng(0)
        for tensor in model.graph.initializer:
            if tensor.name in names:
                tensor.raw_data = marks.bytes(len(tensor.raw_data))
        content = model.SerializeToString()
        places = {}
        for tensor in model.graph.initializer:
            if tensor.name in names:
                if content.count(tensor.raw_data) != 1:
                    raise ExportError(
                        f"the values of {tensor.name} cannot be told from others in the ONNX graph"
                    )
                start = content.index(tensor.raw_data)
                places[start] = (tensor.name, start + len(tensor.raw_data))
        starts = sorted(places)
        ends = [places[start][1] for start in starts]
        between = tuple(content[a:b] for a, b in zip([0, *ends], [*starts, len(content)], strict=True))
        return cls(tuple(places[start][0] for start in starts), between)

    def filled(
        self, weights: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
    ) -> list[bytes | memoryview]:
        """Return the bytes of a model with these weights (float32, on the CPU) in pieces; nothing is copied."""
        parts: list[bytes | memoryview] = [self.between[0]]
        for name, after in zip(self.names, self.between[1:], strict=True):
            parts += [weights[name].contiguous().numpy().data.cast("B"), after]
        entries = [onnx.StringStringEntryProto(key=key, value=text) for key, text in metadata.items()]
        # A message that follows another is merged into it: these entries may stand at the end.
        return [*parts, onnx.ModelProto(metadata_props=entries).SerializeToString()]
