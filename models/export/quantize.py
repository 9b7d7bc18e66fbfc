"""Smaller files of the same model: fp16 for a GPU, int8 for a CPU.

::

    waveform --- front end --------------- network -------- last layer --- logits
    float32      float32                   fp16 | int8      fp16 | float32     float32

Only the network is converted. The front end's powers span 1e-10 to 1e4: half precision knows nothing under
6e-8, and 256 even steps hold none of what the logarithm brings out. Measured on a learned mfcc_delta model
(.8925 on 400 test windows): with the front end in fp16 the logits are off by .16 instead of .005, with its
convolution and products in int8 accuracy falls to .61, without them it is .895.

Input, output, their names, the free batch and the metadata stay as they are; one entry is added, `precision`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from models.errors import ModelError, one_line
from models.files import write_atomic
from models.onnx_io.files import parse_onnx, read_onnx
from models.onnx_io.runtime import session_of
from models.window import WINDOW_SAMPLES

PRECISION = "precision"  # the metadata entry; `variant` is taken, by the task's
PROBE_BATCHES = (1, 3)
CALIBRATION_BATCH = 8
QUANTIZED = ("Add", "Conv", "Gemm", "MatMul", "MaxPool", "Relu")
SCOPES = ("/cnn/", "/networks.")  # what torch calls the nodes of Pipeline.cnn and of Ensemble.networks


class QuantizeError(ModelError):
    """A graph that cannot be converted, with the reason."""


def export_fp16(source: Path, path: Path) -> None:
    """Write a model whose network computes in half precision (fp16); about half the size of ``source``.

    Weights and values between layers are rounded to 11 bits of mantissa; input and logits stay float32.

    Raises
    ------
    QuantizeError
        If the graph holds no network of this package, or does not survive the conversion.
    """
    model = _read(source)
    try:
        converted = _with_half_network(model)
    except OSError:  # a full disk is no fault of the graph
        raise
    except Exception as error:  # the converter raises whatever it trips over
        raise _failed(source, "fp16", error) from error
    _write(converted, model, "fp16", path)


def export_int8(source: Path, calibration: npt.NDArray[np.float32], path: Path) -> None:
    """Write a model whose network computes in 8 bits (static QDQ); a quarter of the weights' size.

    Activations are uint8, their ranges the smallest and largest value seen in ``calibration``; weights are
    int8, one scale a channel, of 7 bits: two products of 8 x 8 bits overflow the 16-bit sums of CPUs without
    VNNI, so that the same file would give other logits there. The last layer stays float32: its output are the
    logits, and calibrated on training windows they would be clipped where others are surer.

    Parameters
    ----------
    calibration
        Real training windows, (window, sample) float32 in [-1, 1].

    Raises
    ------
    QuantizeError
        If there are no such windows, or the graph cannot be converted.
    OSError
        If the disk does not take what the quantiser writes.
    """
    if calibration.ndim != 2 or calibration.shape[1] != WINDOW_SAMPLES or calibration.dtype != np.float32:
        raise QuantizeError(
            f"calibration windows are {calibration.dtype} {calibration.shape}: "
            f"give float32 (window, {WINDOW_SAMPLES})"
        )
    if not len(calibration) or not np.isfinite(calibration).all():
        raise QuantizeError("int8 is calibrated on training windows: give at least one, all of them finite")
    model = _read(source)
    try:
        converted = _quantized(model, calibration)
    except OSError:  # a full disk is no fault of the graph: it works in a temporary folder
        raise
    except Exception as error:  # the quantiser raises whatever it trips over
        raise _failed(source, "int8", error) from error
    _write(converted, model, "int8", path)


def _read(source: Path) -> onnx.ModelProto:
    model = read_onnx(source)
    if not any(node.op_type in ("Conv", "Gemm") and _in_network(node) for node in model.graph.node):
        raise QuantizeError(f"{source} holds no network that this package exported")
    _separate_merged_weights(model.graph)
    return model


def _separate_merged_weights(graph: onnx.GraphProto) -> None:
    """Give every layer its own weights: the exporter stores equal ones (zero biases) once, behind `Identity`."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    merged = [node for node in graph.node if node.op_type == "Identity" and node.input[0] in stored]
    for node in merged:
        tensor = graph.initializer.add()
        tensor.CopyFrom(stored[node.input[0]])
        tensor.name = node.output[0]
        graph.node.remove(node)


def _failed(source: Path, precision: str, error: Exception) -> QuantizeError:
    return QuantizeError(f"{source.name} cannot be converted to {precision}: {one_line(error)[:200]}")


def _in_network(node: onnx.NodeProto) -> bool:
    return bool(node.name.startswith(SCOPES))


def _with_half_network(model: onnx.ModelProto) -> onnx.ModelProto:
    """Cut the network out, convert it, and put it back.

    Converted in place, with the front end's nodes excepted, every value between those would be rounded to
    half precision and back: the converter puts its casts around each excepted node.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    network = [node for node in model.graph.node if _in_network(node)]
    around = [node for node in model.graph.node if not _in_network(node)]
    entering, leaving = _borders(model, network, around)
    needed = {name for node in network for name in node.input}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    inner = onnx.helper.make_model(
        onnx.helper.make_graph(network, "network", _floats(entering), _floats(leaving), weights),
        opset_imports=model.opset_import,
    )
    half = convert_float_to_float16(inner, keep_io_types=True, disable_shape_infer=True).graph
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    others = [tensor for tensor in model.graph.initializer if tensor.name not in needed]
    for field, content in (("node", [*around, *half.node]), ("initializer", [*others, *half.initializer])):
        whole.graph.ClearField(field)
        getattr(whole.graph, field).extend(content)
    del whole.graph.value_info[:]
    sorted_model = ONNXModel(whole)
    sorted_model.topological_sort()
    return sorted_model.model


def _borders(
    model: onnx.ModelProto, network: list[onnx.NodeProto], around: list[onnx.NodeProto]
) -> tuple[list[str], list[str]]:
    """Name what enters the network and what leaves it, in the graph's order."""
    used = {name for node in network for name in node.input}
    wanted = {name for node in around for name in node.input} | {value.name for value in model.graph.output}
    outside = [
        *(value.name for value in model.graph.input),
        *(name for node in around for name in node.output),
    ]
    inside = [name for node in network for name in node.output]
    return [name for name in outside if name in used], [name for name in inside if name in wanted]


def _floats(names: list[str]) -> list[onnx.ValueInfoProto]:
    return [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names]


def _quantized(model: onnx.ModelProto, calibration: npt.NDArray[np.float32]) -> onnx.ModelProto:
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # no stubs
        def __init__(self) -> None:
            self.batches = _batches(model.graph.input[0].name, calibration)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.batches, None)

    network = [node for node in model.graph.node if _in_network(node)]
    around = [node for node in model.graph.node if not _in_network(node)]
    _, leaving = _borders(model, network, around)
    named = [node.name for node in network if not set(node.output) & set(leaving)]
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    # Says that the graph needs no clean-up before (BatchNorms are folded): else the root logger is set up.
    prepared.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with tempfile.TemporaryDirectory(prefix="quantize-") as folder:
        given, taken = Path(folder) / "given.onnx", Path(folder) / "taken.onnx"
        given.write_bytes(prepared.SerializeToString())
        quantization.quantize_static(
            given,
            taken,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            nodes_to_quantize=named,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        return read_onnx(taken)


def _batches(name: str, windows: npt.NDArray[np.float32]) -> Iterator[dict[str, Any]]:
    for start in range(0, len(windows), CALIBRATION_BATCH):
        yield {name: windows[start : start + CALIBRATION_BATCH]}


def _write(converted: onnx.ModelProto, source: onnx.ModelProto, precision: str, path: Path) -> None:
    """Restore what the converters rewrote, assert the contract, write."""
    converted.producer_name, converted.producer_version = source.producer_name, source.producer_version
    converted.graph.name = source.graph.name
    del converted.metadata_props[:]
    converted.metadata_props.extend(source.metadata_props)
    converted.metadata_props.add(key=PRECISION, value=precision)
    content = converted.SerializeToString(deterministic=True)
    try:
        _check(parse_onnx(content, f"the {precision} graph"), source, content)
    except QuantizeError:
        raise
    except Exception as error:  # the checker and onnxruntime have types of their own
        raise _failed(path, precision, error) from error
    write_atomic(path, content)


def _check(converted: onnx.ModelProto, source: onnx.ModelProto, content: bytes) -> None:
    onnx.checker.check_model(converted, full_check=True)
    for side in ("input", "output"):
        before, after = (list(getattr(model.graph, side)) for model in (source, converted))
        if before != after or not all(value.type.tensor_type.shape.dim[0].dim_param for value in after):
            raise QuantizeError(f"the {side} of the graph is no longer float32 with a free batch dimension")
    session = session_of(content)
    (given,), (result,) = session.get_inputs(), session.get_outputs()
    windows = 0.1 * np.random.default_rng(0).standard_normal((max(PROBE_BATCHES), WINDOW_SAMPLES))
    for batch in PROBE_BATCHES:
        (logits,) = session.run(None, {given.name: windows[:batch].astype(np.float32)})
        if logits.shape != (batch, result.shape[1]) or logits.dtype != np.float32:
            raise QuantizeError(f"the graph gives {logits.dtype} {logits.shape} for a batch of {batch}")
