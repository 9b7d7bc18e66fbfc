"""Latency of an exported file as a server would feel it: one thread, waveform to logits.

numpy and the standard library only: `harness verify` measures with it where nothing else is installed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.promotion.bundle.machine import load

WINDOW_SAMPLES = 48_000
BATCH = 32  # of the throughput
ROUNDS = 3  # at batch 1
WARM_UP = 5
MAX_CALLS = 200  # of a round
MAX_SECONDS = 2.0  # of calls, all rounds at batch 1 together, and again at batch 32


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one window of 3 s, from waveform to logits.

    Attributes
    ----------
    cold_ms : opening the file and answering once
    p50_ms, p99_ms : of the best of three rounds: the P99 of 200 calls is their third slowest, and one moment in which
        the machine did something else would decide about a model
    calls : at batch 1, of all rounds together
    provider : onnxruntime's, which really ran it
    windows_per_s : throughput at batch 32
    load : average of the last minute when it began; None where nobody counts it
    """

    cold_ms: float
    p50_ms: float
    p99_ms: float
    calls: int
    provider: str
    windows_per_s: float
    load: float | None = None

    def within(self, max_p99_ms: float) -> bool:
        """Whether it keeps a policy's bound; what takes exactly as long does not."""
        return self.p99_ms < max_p99_ms


def benchmark_latency(open_session: Callable[[], Any]) -> Latency:
    """Latency and throughput on the provider that the session really uses; some 3 s, 10 s of a slow model.

    Parameters
    ----------
    open_session : opens the onnxruntime session, which takes (batch, 48000) float32; called once, and timed
    """
    waveforms = (0.1 * np.random.default_rng(0).standard_normal((BATCH, WINDOW_SAMPLES))).astype(np.float32)
    busy = load()
    start = time.perf_counter()
    session = open_session()
    name = session.get_inputs()[0].name

    def answer(batch: int) -> float:
        start = time.perf_counter()
        session.run(None, {name: waveforms[:batch]})
        return time.perf_counter() - start

    answer(1)
    cold = time.perf_counter() - start
    rounds = [_calls(lambda: answer(1), 0 if i else WARM_UP, MAX_SECONDS / ROUNDS) for i in range(ROUNDS)]
    # A model so slow that one batch outlasts the limit needs no warm-up for its number to be right.
    several = _calls(lambda: answer(BATCH), int(BATCH * min(map(min, rounds)) < MAX_SECONDS), MAX_SECONDS)
    best = min(rounds, key=lambda times: float(np.percentile(times, 99)))
    p50, p99 = (1000 * float(np.percentile(best, q)) for q in (50, 99))
    provider, throughput = str(session.get_providers()[0]), BATCH / float(np.median(several))
    return Latency(1000 * cold, p50, p99, sum(map(len, rounds)), provider, throughput, busy)


def _calls(call: Callable[[], float], warm_up: int, limit: float) -> list[float]:
    """Seconds of as many calls as fit into `limit` seconds, one at least, after `warm_up` others."""
    for _ in range(warm_up):
        call()
    times: list[float] = []
    began = time.perf_counter()
    while not times or (len(times) < MAX_CALLS and time.perf_counter() - began < limit):
        times.append(call())
    return times
