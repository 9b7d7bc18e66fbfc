"""Running an exported model in onnxruntime, and holding it against torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.onnx_io.files import parse_onnx, read_bytes
from models.onnx_io.runtime import session_of
from models.window import WINDOW_SAMPLES

if TYPE_CHECKING:
    import onnxruntime

PARITY_BOUND = 1e-4  # on logits


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


def run_onnx(
    session: onnxruntime.InferenceSession, windows: npt.NDArray[np.float32], batch_size: int = 32
) -> npt.NDArray[np.float32]:
    """Compute logits, (window, 48000) float32 in [-1, 1] -> (window, class) float32, ``batch_size`` windows at once.

    Raises
    ------
    ValueError
        Windows of another shape or type.
    """
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
    """How far ONNX is from the reference on the same windows.

    Attributes
    ----------
    max_abs_difference : largest over all logits, 0 for no windows
    same_argmax : whether both call every window the same class
    """

    max_abs_difference: float
    same_argmax: bool
    windows: int

    @property
    def ok(self) -> bool:
        """Whether every class agrees and no logit is off by more than 1e-4; neither NaN nor no windows is ok."""
        return self.windows > 0 and self.same_argmax and self.max_abs_difference <= PARITY_BOUND


def parity(
    session: onnxruntime.InferenceSession,
    reference_logits: npt.NDArray[np.float32],
    windows: npt.NDArray[np.float32],
) -> Parity:
    """Compare ONNX with reference logits, (window, class), of the same windows, (window, 48000) float32.

    Raises
    ------
    ValueError
        The two have logits of other shapes.
    """
    logits = run_onnx(session, windows)
    if logits.shape != reference_logits.shape:
        raise ValueError(
            f"ONNX gives logits {logits.shape} for these windows, the reference has {reference_logits.shape}"
        )
    difference = float(np.abs(logits - reference_logits).max()) if len(logits) else 0.0
    same = bool((logits.argmax(axis=1) == reference_logits.argmax(axis=1)).all())
    return Parity(difference, same, len(logits))
