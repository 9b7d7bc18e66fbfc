"""Reading ONNX files that hold everything themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from models.errors import ModelError

# No model of ours has a tenth of it; a file is parsed in memory, twice.
MAX_BYTES = 1_000_000_000


class OnnxFileError(ModelError):
    """A file that is no ONNX model, or refers to data outside itself."""


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read and parse a file; errors are those of `read_bytes` and `parse_onnx`."""
    return parse_onnx(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """Read a file that must be there, and must not fill the memory.

    Raises
    ------
    OnnxFileError
        There is none, or it has more than 1 GB.
    """
    if not path.is_file():
        raise OnnxFileError(f"no ONNX file at {path}")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise OnnxFileError(
            f"{path} has {size / 1e9:.1f} GB, more than {MAX_BYTES / 1e9:.0f} GB: no model of ours"
        )
    return path.read_bytes()


def parse_onnx(content: bytes, name: str) -> onnx.ModelProto:
    """Parse a model; ``name`` is what errors call it.

    Raises
    ------
    OnnxFileError
        If it is no ONNX model, or any of its tensors lies in another file: such a path is chosen by
        whoever made the model, and the bytes there are covered by no digest.
    """
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise OnnxFileError(f"{name} is not an ONNX model, or is damaged: {error}") from error
    if not model.graph.node:
        raise OnnxFileError(f"{name} is not an ONNX model, or is empty: it has no graph")
    outside = sorted(tensor.name for tensor in _tensors(model) if _is_outside(tensor))
    if outside:
        raise OnnxFileError(
            f"{name} keeps {len(outside)} tensors in other files ({outside[0]!r} first), which is refused: "
            "save it as one file, without external data"
        )
    return model


def _is_outside(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Walk every stored tensor: initializers and constants of the graph, its subgraphs and functions."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)
    for training in model.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterator[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in [attribute.sparse_tensor, *attribute.sparse_tensors]:
                yield from (sparse.values, sparse.indices)
            for graph in [attribute.g, *attribute.graphs]:
                yield from _graph_tensors(graph)
