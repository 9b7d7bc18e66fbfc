"""Seeds derived by sha256: the same in every process, on every machine; `hash` is not, nor is a generator's state.

    derived_seed   31 bits   once a study, trial or protocol   fits the 32 bits that NumPy and Optuna take
    epoch_seed     63 bits   once an epoch and purpose         torch generators, whose stream every epoch begins anew

They hash different texts, and both stay as they are: stored numbers depend on them.
"""

from __future__ import annotations

import hashlib

from data.digests import digest_of


def derived_seed(*parts: int | str) -> int:
    """A seed in [0, 2^31) for one use, which the parts name: `derived_seed("training", 0, replicate)`.

    It is the first 32 bits of the sha256 of the parts as canonical JSON, less the highest: `1` and `"1"` differ.
    """
    return int(digest_of(list(parts))[:8], 16) & 0x7FFF_FFFF


def epoch_seed(seed: int, epoch: int, purpose: str) -> int:
    """A seed in [0, 2^63) for what one epoch of a training draws for one purpose: its order, its dropout, its scores.

    It depends on the epoch's number and on nothing drawn before, so that a resumed training needs no generator's state.

    Parameters
    ----------
    seed : of the training, see `derived_seed`
    epoch : 0-based
    """
    digest = hashlib.sha256(f"{seed}/{epoch}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
