"""How the parts of a card write numbers, intervals and tables; whatever is not known is left empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.metrics.few_clusters import few_clusters_note


def part(evidence: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under a key; empty where there is none, so that what follows can be asked of it all the same."""
    value = evidence.get(key)
    return value if isinstance(value, Mapping) else {}


def number(value: Any, digits: int = 3) -> str:
    """A number with so many digits behind the point; empty where it is not known."""
    return "" if value is None else f"{value:.{digits}f}"


def points(share: Any) -> str:
    """A change in accuracy in points (1 point = 0.01), signed: -0.026 -> -2.6, worse; empty where it is not known."""
    return "" if share is None else f"{100 * share + 0.0:+.1f}"


def interval(of: Mapping[str, Any], key: str) -> str:
    """As 0.739 [0.687, 0.785] (1000 windows, K = 12), with a remark where the clusters are few.

    Parameters
    ----------
    of : an interval of evidence.json: low, high, windows, clusters, and its value under `key`
    """
    clusters = int(of.get("clusters", 0))
    return (
        f"{number(of.get(key))} [{number(of.get('low'))}, {number(of.get('high'))}] "
        f"({of.get('windows', '?')} windows, K = {clusters}{few_clusters_note(clusters)})"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; a `|` in a cell is escaped."""
    cells = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(one.replace("|", "\\|") for one in row) + " |" for row in cells]
