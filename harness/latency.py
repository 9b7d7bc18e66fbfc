"""Latency of an exported file as a server would feel it: one window, one thread, waveform to logits."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.front_ends import WINDOW_SAMPLES
from models.onnx_session import open_session

WARM_UP = 5
MAX_CALLS = 200
MAX_SECONDS = 5.0


@dataclass(frozen=True)
class Latency:
    """Milliseconds; `cold_ms` is opening the file and answering once."""

    cold_ms: float
    p50_ms: float
    p99_ms: float
    calls: int
    provider: str


def measure(path: Path, device: str = "cpu") -> Latency:
    """Latency of batch 1 on the provider that the session really uses."""
    waveform = (0.1 * np.random.default_rng(0).standard_normal((1, WINDOW_SAMPLES))).astype(np.float32)
    start = time.perf_counter()
    session = open_session(path, device)
    feed = {session.get_inputs()[0].name: waveform}
    session.run(None, feed)
    cold = time.perf_counter() - start
    for _ in range(WARM_UP):
        session.run(None, feed)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < MAX_CALLS and time.perf_counter() - began < MAX_SECONDS:
        start = time.perf_counter()
        session.run(None, feed)
        times.append(1000 * (time.perf_counter() - start))
    p50, p99 = (float(np.percentile(times, q)) for q in (50, 99))
    return Latency(1000 * cold, p50, p99, len(times), str(session.get_providers()[0]))
