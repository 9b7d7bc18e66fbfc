"""How much the store of prepared data may take, and keeping it within that: `harness data gc`, and every launch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Container
from pathlib import Path

from data.store.eviction import StoredFolder, evict, inventory, select_for_eviction
from data.store.leases import lease_folders
from harness.core.errors import InputError
from harness.core.format import format_size

VARIABLE = "HARNESS_CACHE_SIZE"
# Bytes of each unit, decimal (SI) and binary (IEC); a text may write them in small letters.
_DECIMAL = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BINARY = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
UNITS = _DECIMAL | _BINARY
_SIZE = re.compile(r"(\d+(?:\.\d*)?)\s*([A-Za-z]*)")


class SizeError(InputError):
    """A text that is no size in bytes: it lacks the number, or its unit is none of `UNITS`."""


def parse_size(text: str) -> int:
    """Bytes that `20GB`, `1.5 TB`, `512MiB` or `0` mean; a number alone is bytes, part of a byte is dropped.

    Raises
    ------
    SizeError
        No number stands first, or what follows it is none of `UNITS`.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].upper() not in UNITS:
        raise SizeError(f"{text[:40]!r} is no size: write a number and B, KB, MB, GB or TB, such as 20GB")
    return int(float(match[1]) * UNITS[match[2].upper()])


def quota_from_environment() -> int | None:
    """Bytes that HARNESS_CACHE_SIZE allows; None where it is not set.

    Raises
    ------
    SizeError
        The variable holds no size.
    """
    told = os.environ.get(VARIABLE)
    if not told:
        return None
    try:
        return parse_size(told)
    except SizeError as error:
        raise SizeError(f"{VARIABLE}: {error}") from None


def lease_features(cache: Path, manifests: Container[str]) -> None:
    """Lease the stored features of the windows with these manifest digests until this process ends.

    Nobody evicts them meanwhile: a sweep's workers may come to them hours after its launch has found them.
    """
    from harness.training.feature_cache import SOURCE

    sources = (cache / "features").glob(f"[!.]*/{SOURCE}")
    lease_folders(
        cache, [one.parent for one in sources if json.loads(one.read_bytes())["manifest_digest"] in manifests]
    )


def keep_within_quota(cache: Path, say: Callable[[str], None]) -> list[StoredFolder]:
    """Delete what was used longest ago where the store takes more than HARNESS_CACHE_SIZE; without it, nothing.

    What a process uses or has leased stays, so the store may remain larger; `say` is told of that, and of what went.

    Returns
    -------
    the folders that were deleted

    Raises
    ------
    SizeError
        The variable holds no size.
    """
    most = quota_from_environment()
    if most is None:
        return []
    items = inventory(cache)
    gone = list(evict(cache, select_for_eviction(items, most)))
    left = sum(item.num_bytes for item in items) - sum(item.num_bytes for item in gone)
    if gone:
        freed = format_size(sum(item.num_bytes for item in gone))
        say(
            f"store: {len(gone)} folders used longest ago deleted, {freed}, to keep within {format_size(most)}"
        )
    if left > most:
        say(f"store: {format_size(left)} are in use, more than the {format_size(most)} of {VARIABLE}")
    return gone
