"""Digests and ranks: the only sources of identity and of 'random' order in this package.

The builtin ``hash`` differs between processes for strings, which once cost a project 30 hours.
"""

from __future__ import annotations

import hashlib
import json


def canonical_json(value: object) -> str:
    """Return ``value`` as JSON whose text depends on its content only: keys sorted, no spaces; NaN is a ValueError.

    Equal content means equal text: 1 and 1.0 are not equal here, a tuple and a list are.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: object) -> str:
    """Return the sha256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode(errors="surrogatepass")).hexdigest()


def rank(*parts: str | int) -> str:
    """Return a sort key (hex sha256) that is as good as random over inputs, and equal in every process and machine.

    To sort by it is to shuffle without a generator: adding an item moves no other. A number ranks as its text does.
    """
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()
