"""B12 on a device: the one graph in onnxruntime's CUDA provider, host to host, beside one CPU thread."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.export.export import export_onnx
from models.front_ends.config import FrontEnd, MfccDelta, Waveform
from models.networks.config import CnnConfig
from models.onnx_io.runtime import ProviderError
from models.onnx_io.session import open_session, parity, run_onnx
from tests.benchmarks.networks import network, noise, stated
from tests.benchmarks.result import Result, judged, not_measured

BATCH = 32


def run_inference(device: torch.device, *, tiny: bool) -> list[Result]:
    """P99 and throughput of two networks; a row says why where the provider does not run."""
    config = CnnConfig(width=0.0625) if tiny else CnnConfig()
    front_ends: dict[str, FrontEnd] = {"mfcc_delta": MfccDelta(), "waveform": Waveform()}
    return [_row(name, one, config, device, tiny=tiny) for name, one in front_ends.items()]


def _row(name: str, front_end: FrontEnd, config: CnnConfig, device: torch.device, *, tiny: bool) -> Result:
    row, what = f"B12 GPU {name}", f"P99, batch 1, waveform to logits, onnxruntime on {device.type}, {name}"
    beyond = "1" if name == "mfcc_delta" else ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(front_end, network(front_end, 0, config), stated(front_end, config), path)
        try:
            session = open_session(path, device.type)
        except ProviderError as error:
            return not_measured(row, what, str(error), unit="ms", beyond=beyond)
        windows = noise(2 if tiny else BATCH)
        held = parity(session, run_onnx(open_session(path), windows), windows)
    if not held.ok:
        raise RuntimeError(f"{name}: logits on {device.type} are off by {held.max_abs_difference:.2g}")
    times = _call_times(session, windows[:1], 3 if tiny else 1_000)
    together = float(np.median(_call_times(session, windows, 2 if tiny else 50)))
    p50, p99 = (1000 * float(np.percentile(times, q)) for q in (50, 99))
    return judged(
        row, what, p99, unit="ms", beyond=beyond,
        notes=(
            f"P50 {p50:.3g} ms; {len(windows) / together:,.0f} windows/s at batch {len(windows)}; "
            f"logits within {held.max_abs_difference:.1g} of the CPU's",
        ),
        details={"p50_ms": p50, "provider": session.get_providers()[0], "calls": len(times)},
    )  # fmt: skip


def _call_times(session: Any, windows: np.ndarray, calls: int) -> list[float]:
    """Seconds of each call, copies to the device and back included; the first 20 do not count."""
    name = session.get_inputs()[0].name
    times = []
    for _ in range(calls + min(20, calls)):
        start = time.perf_counter()
        session.run(None, {name: windows})
        times.append(time.perf_counter() - start)
    return times[-calls:]
