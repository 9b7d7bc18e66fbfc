"""Latency of an exported file as a server would feel it: one thread, waveform to logits.

numpy and the standard library only: `harness verify` measures with it where nothing else is installed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

WINDOW_SAMPLES = 48_000
WARM_UP = 5
MAX_CALLS = 200
MAX_SECONDS = 5.0


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one window; `cold_ms` is opening the file and answering once."""

    cold_ms: float
    p50_ms: float
    p99_ms: float
    calls: int
    provider: str


def measure(open_session: Callable[[], Any]) -> Latency:
    """Latency of batch 1 on the provider that the session really uses."""
    waveform = (0.1 * np.random.default_rng(0).standard_normal((1, WINDOW_SAMPLES))).astype(np.float32)
    start = time.perf_counter()
    session = open_session()
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
