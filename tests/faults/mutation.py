"""Valid files with something done to them, as strategies."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

WORDS = st.sampled_from([
    b"", b"0", b"-1", b"1e-3", b"1e999", b".nan", b"NaN", b"Infinity", b"null", b"true", b"yes", b"[]", b"{}", b"*a", b"&a ", b"!!x ",
    b"- ", b": ", b"|", b"\t", b"\0", b"\xff", b"\xef\xbb\xbf", b"\r", b'"', b"'", b"#", b"9" * 50, b"[" * 30, b"{a: ", b"<NA>", b";;", b"..",
])  # fmt: skip
_PIECES = WORDS | st.binary(max_size=6)
_WHERE = st.integers(0, 2**16)

Change = tuple[str, int, int, bytes]
CHANGES = st.lists(
    st.tuples(st.sampled_from(["put", "replace", "flip", "drop", "double", "swap", "end"]), _WHERE, _WHERE, _PIECES),
    min_size=1, max_size=4,
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


def changed(content: bytes, changes: list[Change], *, lines: bool) -> bytes:
    """Return `content` after the changes, each of a line (or of a byte)."""
    units = content.splitlines(keepends=True) if lines else [content[k : k + 1] for k in range(len(content))]
    for kind, first, second, piece in changes:
        if not units:
            break
        a, b = first % len(units), second % len(units)
        if kind == "put":
            units.insert(a, piece)
        elif kind == "replace":  # within a line: one of its words
            words = units[a].split(b" ")
            words[second % len(words)] = piece
            units[a] = b" ".join(words)
        elif kind == "flip" and units[a]:
            flipped = bytearray(units[a])
            flipped[second % len(flipped)] ^= 1 << (second % 8)
            units[a] = bytes(flipped)
        elif kind == "drop":
            del units[min(a, b) : min(a, b) + 1 + second % 4]
        elif kind == "double":
            units[a:a] = units[a : a + 1 + second % 4]
        elif kind == "swap":
            units[a], units[b] = units[b], units[a]
        else:
            del units[a:]
    return b"".join(units)


def mutated(*valid: bytes) -> st.SearchStrategy[bytes]:
    """Draw one of the valid contents, changed line by line or byte by byte."""
    return st.builds(
        lambda content, changes, lines: changed(content, changes, lines=lines),
        st.sampled_from(valid), CHANGES, st.booleans(),
    )  # fmt: skip


def bent(valid: bytes) -> st.SearchStrategy[bytes]:
    """Draw a JSON document in which one value is another, or missing: `valid` with its form broken."""
    return st.builds(
        lambda way, value, drop: _bent(json.loads(valid), way, value, drop=drop), _WAYS, JSON, st.booleans()
    )


_WAYS = st.lists(_WHERE, min_size=1, max_size=6)


def _bent(document: Any, way: list[int], value: Any, *, drop: bool) -> bytes:
    here, place = document, None
    for step in way:
        keys = (
            list(here) if isinstance(here, dict) else list(range(len(here))) if isinstance(here, list) else []
        )
        if not keys:
            break
        place = (here, keys[step % len(keys)])
        here = place[0][place[1]]
    if place is not None and drop:
        del place[0][place[1]]
    elif place is not None:
        place[0][place[1]] = value
    return json.dumps(document).encode()


Check = Callable[[bytes], None]
