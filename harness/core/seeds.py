"""Seeds derived by sha256: the same in every process, on every machine."""

from __future__ import annotations

import hashlib

from data.digests import digest_of


def derived_seed(*parts: int | str) -> int:
    """A 31-bit seed from the sha256 of the parts: the same in every process, on every machine."""
    return int(digest_of(list(parts))[:8], 16) & 0x7FFF_FFFF


def epoch_seed(seed: int, epoch: int, purpose: str) -> int:
    """Seed of one epoch's draws: resuming needs no generator's state."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
