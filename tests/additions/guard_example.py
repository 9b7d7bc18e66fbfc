"""A guard in one file: a model that calls nearly all of one validation subset 1 and of another 0 has heard the subset.

    HARNESS_PLUGINS=guard_example harness promote STUDY --policy mine.yaml

where mine.yaml may say `guards: {max_share_drift: 0.1}`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.config.policy import Bound
from harness.promotion.guards.facts import CandidateFacts
from harness.promotion.guards.rule import Finding, guard

MAX_DRIFT = Bound(
    "max_share_drift",
    0.3,
    "Share of windows called 1: largest less smallest over the validation subsets, at most.",
    ge=0,
    le=0.5,
)


@guard(
    CandidateFacts,
    "share drift between subsets",
    "integrity",
    bounds=[MAX_DRIFT],
    advice="It tells the subsets apart instead of the classes: train on all of them.",
)
def share_drift(seen: CandidateFacts) -> Iterator[Finding]:
    """Share of windows called 1, compared between the subsets of the validation windows, each of which is balanced."""
    subsets = np.array(seen.prepared[0].splits["val"].manifest.subsets())
    called_1 = seen.val.logits.argmax(axis=1)
    shares = {str(name): float(called_1[subsets == name].mean()) for name in np.unique(subsets)}
    drift, bound = max(shares.values()) - min(shares.values()), seen.policy.bound(MAX_DRIFT)
    told = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
    yield Finding(drift <= bound, f"{drift:.3f} ({told})", f"<= {bound}")
