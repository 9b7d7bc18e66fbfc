"""Guards of the exported file on the device that it is meant for."""

from __future__ import annotations

from collections.abc import Iterator

from harness.promotion.guards.facts import CandidateFacts
from harness.promotion.guards.rule import Finding, guard

FASTER = (
    "a smaller width is cheaper, and a spectral front end (mfcc, log_mel) about 50 times cheaper than the raw "
    "waveform, which takes 107 to 140 ms on one CPU core"
)
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
ADVICE = f"Measure again on an idle machine; {FASTER}."


@guard(
    CandidateFacts,
    "serving provider",
    "quality",
    bounds=["latency.device"],
    advice="Promote on a machine that has the target device, or name the one that it will serve on in the policy's "
    "latency.device.",
)
def provider(seen: CandidateFacts) -> Iterator[Finding]:
    """Whether the file was timed on the policy's device, and if not, why it could not be."""
    wanted = PROVIDERS[seen.policy.latency.device]
    used = seen.latency if isinstance(seen.latency, str) else seen.latency.provider
    yield Finding(used == wanted, used, wanted)


@guard(
    CandidateFacts,
    "latency P99, batch 1",
    "quality",
    bounds=["latency.device", "latency.max_p99_ms"],
    advice=ADVICE,
)
def speed(seen: CandidateFacts) -> Iterator[Finding]:
    """Time of one window from waveform to logits on the exported file; binds on the target device alone."""
    bound, latency = seen.policy.latency, seen.latency
    wanted = f"< {bound.max_p99_ms:g} ms on {bound.device}"
    if isinstance(latency, str) or latency.provider != PROVIDERS[bound.device]:
        advice = "It says nothing until it is timed on the device that it will serve on."
        yield Finding(False, f"not measured on {bound.device}", wanted, advice)
        return
    better = [
        f"{file} takes {one.p99_ms:.1f} ms"
        for file, one in seen.faster.items()
        if one.within(bound.max_p99_ms)
    ]
    measured = f"{latency.p99_ms:.1f} ms on {latency.provider}"
    advice = f"{ADVICE} Of this bundle, {' and '.join(better)}." if better else ADVICE
    yield Finding(latency.within(bound.max_p99_ms), measured, wanted, advice)
