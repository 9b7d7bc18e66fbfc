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
BATCH = 32  # of the throughput
WARM_UP = 5
MAX_CALLS = 200
MAX_SECONDS = 2.0  # of calls, at batch 1 and again at batch 32
MIN_CALLS = 3  # at batch 1; of batch 32 one call is enough


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one window; `cold_ms` is opening the file and answering once.

    ``windows_per_s`` is the throughput at batch 32.
    """

    cold_ms: float
    p50_ms: float
    p99_ms: float
    calls: int
    provider: str
    windows_per_s: float


def measure(open_session: Callable[[], Any]) -> Latency:
    """Latency and throughput on the provider that the session really uses; some 3 s, 10 s of a slow model."""
    waveforms = (0.1 * np.random.default_rng(0).standard_normal((BATCH, WINDOW_SAMPLES))).astype(np.float32)
    start = time.perf_counter()
    session = open_session()
    name = session.get_inputs()[0].name

    def answer(batch: int) -> float:
        start = time.perf_counter()
        session.run(None, {name: waveforms[:batch]})
        return time.perf_counter() - start

    answer(1)
    cold = time.perf_counter() - start
    single = _calls(lambda: answer(1), WARM_UP, MIN_CALLS)
    # A model so slow that one batch outlasts the limit needs no warm-up for its number to be right.
    several = _calls(lambda: answer(BATCH), int(BATCH * min(single) < MAX_SECONDS), 1)
    p50, p99 = (1000 * float(np.percentile(single, q)) for q in (50, 99))
    return Latency(
        1000 * cold, p50, p99, len(single), str(session.get_providers()[0]), BATCH / float(np.median(several))
    )


def _calls(call: Callable[[], float], warm_up: int, least: int) -> list[float]:
    """Seconds of as many calls as fit, after `warm_up` others."""
    for _ in range(warm_up):
        call()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < least or (len(times) < MAX_CALLS and time.perf_counter() - began < MAX_SECONDS):
        times.append(call())
    return times
