"""Putting a foreign ONNX network into a graph that torch exported.

The exporter leaves one placeholder node where the network belongs::

    waveform -> fbank -> [harness.Network sha256=...] -> head -> logits

which is replaced by the network's own nodes, their names prefixed, tied on by two ``Identity`` nodes that
every runtime removes. Several placeholders (an ensemble's) may stand in one graph.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import compose, version_converter

from models.errors import ModelFailedError, one_line

DOMAIN, OPERATION = "harness", "Network"


class ExportError(ModelFailedError):
    """A network that does not fit its specification, or a graph that does not keep the contract."""


def inline_networks(model: onnx.ModelProto, networks: Mapping[str, onnx.ModelProto]) -> onnx.ModelProto:
    """Replace every placeholder by the network of its sha256; a graph without any stays as it is.

    Raises
    ------
    ExportError
        A network cannot be brought to the graph's opset, or the whole is no valid graph.
    """
    if not any(_is_placeholder(node) for node in model.graph.node):
        return model
    version = _opset(model)
    converted = {sha256: _at_opset(network, version) for sha256, network in networks.items()}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for index, node in enumerate(nodes):
        if _is_placeholder(node):
            network = converted[_attribute(node, "sha256")]
            _splice(model, node, network, f"network{index}/")
        else:
            model.graph.node.append(node)
    used = [entry for entry in model.opset_import if entry.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(used)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker and the shape inference have types of their own
        raise ExportError(
            f"the graph with the embedding network in it is not valid: {one_line(error)[:300]}"
        ) from error
    return model


def _is_placeholder(node: onnx.NodeProto) -> bool:
    return bool(node.domain == DOMAIN and node.op_type == OPERATION)


def _opset(model: onnx.ModelProto) -> int:
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _at_opset(network: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """Convert a copy, without what only described it: types of inner values are inferred anew."""
    found = _opset(network)
    copied = onnx.ModelProto()
    copied.CopyFrom(network)
    del copied.graph.value_info[:]
    if found == version:
        return copied
    try:
        return version_converter.convert_version(copied, version)
    except Exception as error:
        raise ExportError(
            f"the embedding network cannot be brought from opset {found} to {version}: {one_line(error)[:300]}"
        ) from error


def _splice(model: onnx.ModelProto, node: onnx.NodeProto, network: onnx.ModelProto, prefix: str) -> None:
    """Append the network's nodes, initializers, functions and opsets in the place of a placeholder."""
    if network.functions:
        raise ExportError("the embedding network has functions of its own: export it without them")
    inner = compose.add_prefix(network, prefix).graph
    constants = {tensor.name for tensor in inner.initializer}
    (entry,) = (value.name for value in inner.input if value.name not in constants)
    (leaving,) = (value.name for value in inner.output if value.name == prefix + _attribute(node, "output"))
    graph = model.graph
    graph.node.append(onnx.helper.make_node("Identity", [node.input[0]], [entry], name=f"{prefix}in"))
    graph.node.extend(inner.node)
    graph.node.append(onnx.helper.make_node("Identity", [leaving], [node.output[0]], name=f"{prefix}out"))
    graph.initializer.extend(inner.initializer)
    graph.sparse_initializer.extend(inner.sparse_initializer)
    known = {entry.domain: entry.version for entry in model.opset_import}
    for opset in network.opset_import:
        domain = "" if opset.domain == "ai.onnx" else opset.domain
        if domain not in known:
            model.opset_import.append(opset)
    model.ir_version = max(model.ir_version, network.ir_version)


def _attribute(node: onnx.NodeProto, name: str) -> str:
    return str(onnx.helper.get_node_attr_value(node, name).decode())
