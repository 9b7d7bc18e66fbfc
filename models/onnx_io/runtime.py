"""Opening a model in onnxruntime where nothing but onnxruntime is installed, from bytes that hold everything.

onnxruntime follows paths that stand inside a model (external data), relative to the working directory where
the model came as bytes. Such files are covered by no digest, so they are looked for before a session opens.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from models.errors import ModelError

if TYPE_CHECKING:
    import onnxruntime

PROVIDERS: dict[str, list[Any]] = {
    "cpu": ["CPUExecutionProvider"],
    # TF32 keeps 10 bits of mantissa: its logits miss the parity bound.
    "cuda": [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"],
}

# Field numbers of onnx.proto: message -> field -> message inside it, as far as tensors hang there.
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}  # fmt: skip
_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14  # of a Tensor
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protobuf


class ProviderError(ModelError):
    """A device that onnxruntime cannot run on here."""


class NotOnnxError(ModelError):
    """Bytes that are not an ONNX model."""


def session_of(model: bytes, device: str = "cpu") -> onnxruntime.InferenceSession:
    """Open a serialized model, free of external data, on one CPU thread or on the GPU.

    Raises
    ------
    ProviderError
        If the device is unknown, or the session would silently run elsewhere.
    """
    import onnxruntime

    if device not in PROVIDERS:
        raise ProviderError(f"unknown device {device!r}: give one of {', '.join(PROVIDERS)}")
    if device == "cuda" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # finds the CUDA libraries that came with torch
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")  # never guessed from the bytes
    wanted = PROVIDERS[device]
    first = wanted[0] if isinstance(wanted[0], str) else wanted[0][0]
    available = onnxruntime.get_available_providers()
    if first not in available:
        raise ProviderError(f"this onnxruntime has no {first}; it has {', '.join(available)}")
    if device == "cuda" and not _has_driver():  # onnxruntime says so too, in red lines past every logger
        raise ProviderError("no CUDA driver here, which CUDAExecutionProvider needs")
    session = onnxruntime.InferenceSession(model, options, providers=wanted)
    actual = session.get_providers()[0]
    if actual != first:
        raise ProviderError(
            f"onnxruntime fell back to {actual}: {first} is installed but does not run here "
            "(driver or CUDA libraries)"
        )
    return session


def _has_driver() -> bool:
    """Tell whether the CUDA driver's library can be loaded; assumed on other systems, where its name is another."""
    if sys.platform != "linux":
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def external_tensors(model: bytes) -> list[str]:
    """List the tensors of a serialized model whose values lie in other files, sorted by name, read without `onnx`.

    Raises
    ------
    NotOnnxError
        If the bytes are no ONNX model.
    """
    found: list[str] = []
    graphs = 0
    waiting = [("Model", memoryview(model))]
    while waiting:
        kind, message = waiting.pop()
        name, outside = "", False
        for field, wire, value in _fields(message):
            inner = _FIELDS[kind].get(field)
            if inner is not None and wire == _BYTES:
                waiting.append((inner, value))
                graphs += inner == "Graph"
            elif kind == "Tensor" and field == _NAME and wire == _BYTES:
                name = bytes(value).decode("utf-8", "replace")
            elif kind == "Tensor" and field in (_EXTERNAL_DATA, _DATA_LOCATION):
                outside |= field == _EXTERNAL_DATA or value != 0
        if outside:
            found.append(name)
    if not graphs:
        raise NotOnnxError("not an ONNX model: it has no graph")
    return sorted(found)


def _fields(message: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Yield (field number, wire type, value) of one protobuf message; a value is an int or bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        field, wire = tag >> 3, tag & 7
        if not 0 < field < 2**29:
            raise NotOnnxError(f"not an ONNX model, or damaged: field number {field} in it")
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield field, wire, value
            continue
        if wire == _BYTES:
            size, at = _varint(message, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise NotOnnxError(f"not an ONNX model, or damaged: wire type {wire} in it")
        if at + size > len(message):
            raise NotOnnxError("not an ONNX model, or cut short")
        yield field, wire, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the number that begins at `at`, seven bits a byte, and the place after it."""
    value = 0
    for i, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise NotOnnxError("not an ONNX model, or cut short")
