"""Running an exported model in onnxruntime, and holding it against torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.front_ends import WINDOW_SAMPLES
from models.onnx_files import parse_onnx, read_bytes

if TYPE_CHECKING:
    import onnxruntime

PARITY_BOUND = 1e-4  # on logits
PROVIDERS: dict[str, list[Any]] = {
    "cpu": ["CPUExecutionProvider"],
    # TF32 keeps 10 bits of mantissa: its logits miss the parity bound.
    "cuda": [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"],
}


class ProviderError(ValueError):
    """A device that onnxruntime cannot run on here."""


def open_session(path: Path, device: str = "cpu") -> onnxruntime.InferenceSession:
    """Open a model on one CPU thread, or on the GPU.

    Raises
    ------
    OnnxFileError
        If it is no ONNX model or keeps data in other files.
    ProviderError
        If the device is unknown, or the session would silently run elsewhere.
    """
    content = read_bytes(path)
    parse_onnx(content, str(path))
    return session_of(content, device)


def session_of(model: bytes, device: str = "cpu") -> onnxruntime.InferenceSession:
    """Open a serialized model that was parsed before (see ``open_session``)."""
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
    wanted = PROVIDERS[device]
    first = wanted[0] if isinstance(wanted[0], str) else wanted[0][0]
    available = onnxruntime.get_available_providers()
    if first not in available:
        raise ProviderError(f"this onnxruntime has no {first}; it has {', '.join(available)}: use device cpu")
    session = onnxruntime.InferenceSession(model, options, providers=wanted)
    actual = session.get_providers()[0]
    if actual != first:
        raise ProviderError(
            f"onnxruntime fell back to {actual}: {first} is installed but does not run here "
            "(driver or CUDA libraries); use device cpu"
        )
    return session


def run_onnx(
    session: onnxruntime.InferenceSession, windows: npt.NDArray[np.float32], batch_size: int = 32
) -> npt.NDArray[np.float32]:
    """Compute logits, (window, sample) float32 in [-1, 1] -> (window, class)."""
    if windows.ndim != 2 or windows.shape[1] != WINDOW_SAMPLES or windows.dtype != np.float32:
        raise ValueError(
            f"windows are {windows.dtype} {windows.shape}: give float32 (window, {WINDOW_SAMPLES}), "
            "int16 samples divided by 32768"
        )
    name = session.get_inputs()[0].name
    starts = range(0, len(windows), batch_size)
    parts = [session.run(None, {name: windows[i : i + batch_size]})[0] for i in starts]
    if not parts:
        return np.empty((0, session.get_outputs()[0].shape[1]), dtype=np.float32)
    return np.concatenate(parts)


@dataclass(frozen=True)
class Parity:
    """How far ONNX is from the reference on the same windows."""

    max_abs_difference: float
    same_argmax: bool
    windows: int

    @property
    def ok(self) -> bool:
        """Whether every class agrees and no logit is off by more than 1e-4 (NaN is not ok)."""
        return self.windows > 0 and self.same_argmax and self.max_abs_difference <= PARITY_BOUND


def parity(
    session: onnxruntime.InferenceSession,
    reference_logits: npt.NDArray[np.float32],
    windows: npt.NDArray[np.float32],
) -> Parity:
    """Compare ONNX with reference logits, (window, class), of the same windows."""
    logits = run_onnx(session, windows)
    if logits.shape != reference_logits.shape:
        raise ValueError(
            f"ONNX gives logits {logits.shape} for these windows, the reference has {reference_logits.shape}"
        )
    difference = float(np.abs(logits - reference_logits).max()) if len(logits) else 0.0
    same = bool((logits.argmax(axis=1) == reference_logits.argmax(axis=1)).all())
    return Parity(difference, same, len(logits))
