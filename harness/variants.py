"""The files that a model is shipped as: fp32 (canonical), fp16 for a GPU, int8 for a CPU.

::

    model.onnx --+--> model.fp16.onnx --+
                 +--> model.int8.onnx --+--> the test windows: parity, accuracy --> kept, or left out
                 +----------------------+

A variant that loses more test accuracy than is tolerated is left out, and its file removed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.latency import Latency, measure
from harness.spool import sha256_of
from harness.statistics import ClusteredInterval, clustered_interval
from models.architecture import CnnConfig
from models.front_ends import parse_front_end
from models.onnx_session import ProviderError, open_session, run_onnx
from models.quantize import QuantizeError, export_fp16, export_int8
from models.specification import Specification

if TYPE_CHECKING:
    import onnxruntime

    from harness.policy import VariantTolerances

Logits = npt.NDArray[np.float32]

CANONICAL = "model.onnx"
# What is done with every window is bounded by multiply-accumulates, not by seconds: the same model then gets
# the same int8 file and is scored on the same windows on any machine. Only raw waveforms come near.
CALIBRATION = (16, 128, 2e11)  # windows at least, at most; multiply-accumulates
SCORING = (64, 2_000, 1e12)


@dataclass(frozen=True)
class Variant:
    """One file of the model, what it costs and what it loses.

    Attributes
    ----------
    reason : why it is left out; "" for one that is included
    max_logit_difference, agreement : against fp32 on the test windows; agreement is the share of the same class
    accuracy : on the test windows (class-balanced: balanced accuracy), of `accuracy.windows` of them
    accuracy_loss : of fp32 minus its own, on the same windows
    latency_note : why the latency was not measured
    """

    name: str
    file: str
    device: str
    bytes: int = 0
    sha256: str = ""
    included: bool = True
    reason: str = ""
    max_logit_difference: float | None = None
    agreement: float | None = None
    accuracy: ClusteredInterval | None = None
    accuracy_loss: float | None = None
    latency: Latency | None = None
    latency_note: str = ""

    def as_json(self) -> dict[str, Any]:
        """The fields of evidence.json."""
        return asdict(self)


def measured(path: Path, device: str) -> Latency | str:
    """Latency of a file on a device, or why it cannot be measured there."""
    try:
        return measure(lambda: _session(path, device))
    except ProviderError as error:
        return str(error)


def make_variants(folder: Path, calibration: npt.NDArray[np.float32]) -> list[Variant]:
    """Write model.fp16.onnx and model.int8.onnx beside model.onnx, and measure all three.

    Parameters
    ----------
    calibration : training windows (window, 48000) float32; int8 uses up to 128 of them, evenly spaced
    """
    source = folder / CANONICAL
    windows = calibration[_spaced(len(calibration), CALIBRATION, _macs(source))]
    makers: tuple[tuple[str, str, Callable[[Path], None]], ...] = (
        ("fp16", "cuda", lambda path: export_fp16(source, path)),
        ("int8", "cpu", lambda path: export_int8(source, windows, path)),
    )
    variants = [_described(Variant("fp32", CANONICAL, "cpu"), folder)]
    for name, device, make in makers:
        variant = Variant(name, f"model.{name}.onnx", device)
        try:
            make(folder / variant.file)
        except QuantizeError as error:
            variants.append(replace(variant, included=False, reason=str(error)))
        else:
            variants.append(_described(variant, folder))
    return variants


def score_variants(
    variants: Sequence[Variant],
    folder: Path,
    waveforms: npt.NDArray[np.float32],
    labels: npt.ArrayLike,
    clusters: Sequence[str],
    tolerances: VariantTolerances,
    canonical: Logits | None = None,
) -> list[Variant]:
    """Hold every variant against fp32 on the test windows; what loses too much is left out, its file removed.

    Parameters
    ----------
    waveforms : (window, 48000) float32
    labels, clusters : (window,)
    canonical : logits (window, class) of model.onnx on all windows, where they are known
    """
    truth = np.asarray(labels)
    # Of each class as many, so that their accuracy is balanced as that of all windows is.
    macs = _macs(folder / CANONICAL)
    least, most, budget = SCORING
    classes = [np.flatnonzero(truth == label) for label in np.unique(truth)]
    share = (least // len(classes), most // len(classes), budget / len(classes))
    chosen = np.sort(np.concatenate([one[_spaced(len(one), share, macs)] for one in classes]))
    windows, truth = waveforms[chosen], truth[chosen]
    names = [clusters[i] for i in chosen]
    reference = canonical[chosen] if canonical is not None else _logits(folder / CANONICAL, "cpu", windows)
    tolerated: Mapping[str, float] = {"fp32": math.inf, **tolerances.model_dump()}
    scored: list[Variant] = []
    for variant in variants:
        if variant.included:
            known = reference if variant.file == CANONICAL else None
            logits = known if known is not None else _logits(folder / variant.file, variant.device, windows)
            one = _held_against(reference, logits, truth, names, variant, tolerated[variant.name])
            if not one.included and known is None:
                (folder / variant.file).unlink(missing_ok=True)
            scored.append(one)
        else:
            scored.append(variant)
    return scored


def _held_against(
    reference: Logits, logits: Logits, truth: npt.NDArray[Any], clusters: Sequence[str], variant: Variant,
    tolerated: float,
) -> Variant:  # fmt: skip
    unusable = int((~np.isfinite(logits)).any(axis=1).sum())
    if unusable:
        reason = f"{unusable} of {len(logits)} test windows give logits that are not finite"
        return replace(variant, included=False, reason=reason)
    classes, expected = logits.argmax(axis=1), reference.argmax(axis=1)
    loss = float((expected == truth).mean() - (classes == truth).mean())
    reason = ""
    if loss > tolerated + 1e-9:  # the difference of two shares is rounded
        reason = f"loses {_share(loss)} of test balanced accuracy, tolerated is {_share(tolerated)}"
    return replace(
        variant,
        included=not reason,
        reason=reason,
        max_logit_difference=float(np.abs(logits - reference).max()),
        agreement=float((classes == expected).mean()),
        accuracy=clustered_interval(classes == truth, clusters),
        accuracy_loss=loss,
    )


def _share(value: float) -> str:
    return f"{value:.3f}".rstrip("0").removeprefix("0").rstrip(".") or "0"


def _described(variant: Variant, folder: Path) -> Variant:
    path = folder / variant.file
    found = measured(path, variant.device)
    latency, note = (None, found) if isinstance(found, str) else (found, "")
    return replace(
        variant, bytes=path.stat().st_size, sha256=sha256_of(path), latency=latency, latency_note=note
    )


def _logits(path: Path, device: str, windows: npt.NDArray[np.float32]) -> Logits:
    """Logits on the variant's own device, else on the CPU, where fp16 is computed between casts."""
    try:
        session = _session(path, device)
    except ProviderError:
        session = _session(path, "cpu")
    return run_onnx(session, windows)


def _session(path: Path, device: str) -> onnxruntime.InferenceSession:
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():  # onnxruntime would say so too, in twenty red lines
            raise ProviderError("no GPU that CUDA can use is here: measure it where it will serve")
    return open_session(path, device)


def _macs(model: Path) -> float:
    """Multiply-accumulates of a window in the networks; front ends are small beside those that matter."""
    stated = Specification.from_onnx(model)
    total = 0
    for network in stated.members or (stated,):
        features = parse_front_end(network.front_end or {})
        cnn = CnnConfig.model_validate(network.architecture)
        total += cnn.macs(features.num_features, features.num_frames())
    return float(total)


def _spaced(count: int, bounds: tuple[int, int, float], macs: float) -> npt.NDArray[np.int64]:
    """Indices of as many windows as the bounds allow, evenly spaced."""
    least, most, budget = bounds
    chosen = min(count, max(least, min(most, int(budget / max(macs, 1.0)))))
    return np.arange(chosen) * count // max(chosen, 1)
