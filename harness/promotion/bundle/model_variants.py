"""The files that a model is shipped as: fp32 (canonical), fp16 for a GPU, int8 for a CPU.

::

    model.onnx --+--> model.fp16.onnx --+
                 +--> model.int8.onnx --+--> the test windows: parity, accuracy --> kept, or left out
                 +----------------------+

What a variant changes (its accuracy - that of fp32) has an interval over clusters, `paired_cluster_bootstrap`:

    left out   it loses more than is tolerated, by more than two windows, and the whole interval lies below 0; with
               fewer than 10 clusters an interval proves nothing, and the loss alone decides. Its file is removed.
    warning    it ships, but may lose more than is tolerated: the interval reaches so far, or so few windows flipped
               that chance explains the loss. Evidence, card and console say so.
    neither    shown to lose no more than is tolerated, or no test window gets another class
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.core.files import sha256_of
from harness.metrics.few_clusters import FEW_CLUSTERS, few_clusters_note
from harness.metrics.intervals import ClusteredInterval, clustered_interval
from harness.metrics.paired_comparison import Difference, paired_cluster_bootstrap
from harness.promotion.bundle.files import MODEL
from harness.promotion.bundle.latency import Latency, benchmark_latency
from models.export.quantize import QuantizeError, export_fp16, export_int8
from models.export.specification import Specification, network_macs
from models.onnx_io.runtime import ProviderError
from models.onnx_io.session import open_session, run_onnx

if TYPE_CHECKING:
    from harness.config.policy import VariantTolerances

Logits = npt.NDArray[np.float32]
CPU = "CPUExecutionProvider"

# What is done with every window is bounded by multiply-accumulates, not by seconds: the same model then gets
# the same int8 file and is scored on the same windows on any machine. Only raw waveforms come near.
CALIBRATION = (16, 128, 2e11)  # windows at least, at most; multiply-accumulates
SCORING = (64, 2_000, 1e12)
FLIPS = 2  # so many windows lost are no evidence: 2 of 78 are 2.6 points


@dataclass(frozen=True)
class Variant:
    """One file of the model, what it costs and what it loses.

    Attributes
    ----------
    name : fp32, fp16 or int8
    device : where it is meant to serve, cpu or cuda
    bytes, sha256 : of the file; 0 and "" where it could not be made
    reason : why it is left out; "" for one that is included
    warning : that it may lose more than is tolerated, though it is included; "" for one that is shown not to
    max_logit_difference, agreement : against fp32 on the test windows; agreement is the share of the same class
    accuracy : on the test windows (class-balanced: balanced accuracy), of `accuracy.windows` of them
    accuracy_loss : of fp32 minus its own, on the same windows
    accuracy_change : the same with the other sign, negative is worse, with its interval
    accuracy_provider : what the test windows were run on: fp16 on the CPU where no GPU is
    latency_note : why the latency was not measured
    """

    name: str
    file: str
    device: str
    bytes: int = 0
    sha256: str = ""
    included: bool = True
    reason: str = ""
    warning: str = ""
    max_logit_difference: float | None = None
    agreement: float | None = None
    accuracy: ClusteredInterval | None = None
    accuracy_loss: float | None = None
    accuracy_change: Difference | None = None
    accuracy_provider: str = ""
    latency: Latency | None = None
    latency_note: str = ""

    def as_json(self) -> dict[str, Any]:
        """One entry of `variants` in evidence.json, without its golden file and tolerance."""
        return asdict(self)


def measured(path: Path, device: str) -> Latency | str:
    """Latency of a file on a device, or why it cannot be measured there."""
    try:
        return benchmark_latency(lambda: open_session(path, device))
    except ProviderError as error:
        return str(error)


def make_variants(folder: Path, calibration: npt.NDArray[np.float32]) -> list[Variant]:
    """Write model.fp16.onnx and model.int8.onnx beside model.onnx, and measure the latency of all three.

    One that cannot be made is returned all the same, left out with the reason.

    Parameters
    ----------
    calibration : training windows (window, 48000) float32; int8 uses up to 128 of them, evenly spaced
    """
    source = folder / MODEL
    windows = calibration[_spaced(len(calibration), CALIBRATION, _macs(source))]
    makers: tuple[tuple[str, str, Callable[[Path], None]], ...] = (
        ("fp16", "cuda", lambda path: export_fp16(source, path)),
        ("int8", "cpu", lambda path: export_int8(source, windows, path)),
    )
    variants = [_described(Variant("fp32", MODEL, "cpu"), folder)]
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
    """Hold every variant against fp32 on the test windows; what is shown to lose too much is left out and removed.

    Parameters
    ----------
    waveforms : (window, 48000) float32 in [-1, 1)
    labels, clusters : (window,)
    tolerances : accuracy that each variant may lose, as a share of the windows
    canonical : logits (window, class) of model.onnx on all windows, where the CPU has computed them before
    """
    truth = np.asarray(labels)
    # Of each class as many, so that their accuracy is balanced as that of all windows is.
    macs = _macs(folder / MODEL)
    least, most, budget = SCORING
    classes = [np.flatnonzero(truth == label) for label in np.unique(truth)]
    share = (least // len(classes), most // len(classes), budget / len(classes))
    chosen = np.sort(np.concatenate([one[_spaced(len(one), share, macs)] for one in classes]))
    windows, truth = waveforms[chosen], truth[chosen]
    names = [clusters[i] for i in chosen]
    given = (canonical[chosen], CPU) if canonical is not None else _logits(folder / MODEL, "cpu", windows)
    tolerated: Mapping[str, float] = {"fp32": math.inf, **tolerances.model_dump()}
    scored: list[Variant] = []
    for variant in variants:
        if variant.included:
            canon = variant.file == MODEL
            logits, provider = given if canon else _logits(folder / variant.file, variant.device, windows)
            one = _held_against(given[0], logits, truth, names, variant, tolerated[variant.name])
            one = replace(one, accuracy_provider=provider)
            if not one.included and not canon:
                (folder / variant.file).unlink(missing_ok=True)
            scored.append(one)
        else:
            scored.append(variant)
    return scored


def _held_against(
    reference: Logits,
    logits: Logits,
    truth: npt.NDArray[Any],
    clusters: Sequence[str],
    variant: Variant,
    tolerated: float,
) -> Variant:
    unusable = int((~np.isfinite(logits)).any(axis=1).sum())
    if unusable:
        reason = f"{unusable} of {len(logits)} test windows give logits that are not finite"
        return replace(variant, included=False, reason=reason)
    classes, expected = logits.argmax(axis=1), reference.argmax(axis=1)
    change = paired_cluster_bootstrap(classes == truth, expected == truth, clusters)
    reason, warning = _judged(change, tolerated) if (classes != expected).any() else ("", "")
    return replace(
        variant,
        included=not reason,
        reason=reason,
        warning=warning,
        max_logit_difference=float(np.abs(logits - reference).max()),
        agreement=float((classes == expected).mean()),
        accuracy=clustered_interval(classes == truth, clusters),
        accuracy_loss=-change.value + 0.0,  # never -0.0
        accuracy_change=change,
    )


def _judged(change: Difference, tolerated: float) -> tuple[str, str]:
    """Why it is left out, and of what it is to be warned, as the module's text says; "" for neither."""
    few = change.clusters < FEW_CLUSTERS
    beyond = change.value < -tolerated - 1e-9  # the difference of two shares is rounded
    lost = round(-change.value * change.windows)
    value, low, high = (f"{100 * one:+.1f}" for one in (change.value, change.low, change.high))
    told = (
        f"{value} points of test balanced accuracy [{low}, {high}] "
        f"({change.windows} windows, K = {change.clusters}{few_clusters_note(change.clusters)}), "
        f"tolerated is {-100 * tolerated:+g}"
    )
    if beyond and lost > FLIPS and (few or change.high < 0):
        return told, ""
    return "", f"may lose more than is tolerated: {told}" if beyond or change.low < -tolerated else ""


def _described(variant: Variant, folder: Path) -> Variant:
    path = folder / variant.file
    found = measured(path, variant.device)
    latency, note = (None, found) if isinstance(found, str) else (found, "")
    return replace(
        variant, bytes=path.stat().st_size, sha256=sha256_of(path), latency=latency, latency_note=note
    )


def _logits(path: Path, device: str, windows: npt.NDArray[np.float32]) -> tuple[Logits, str]:
    """Logits and the provider that gave them: the variant's own device, else the CPU (fp16: between casts)."""
    try:
        session = open_session(path, device)
    except ProviderError:
        session = open_session(path, "cpu")
    return run_onnx(session, windows), str(session.get_providers()[0])


def _macs(model: Path) -> float:
    """Multiply-accumulates of a window in the networks; front ends are small beside those that matter."""
    stated = Specification.from_onnx(model)
    networks = stated.members or (stated,)
    return float(sum(network_macs(one.front_end or {}, one.architecture or {}) for one in networks))


def _spaced(count: int, bounds: tuple[int, int, float], macs: float) -> npt.NDArray[np.int64]:
    """Indices of as many windows as the bounds allow, evenly spaced."""
    least, most, budget = bounds
    chosen = min(count, max(least, min(most, int(budget / max(macs, 1.0)))))
    return np.arange(chosen) * count // max(chosen, 1)
