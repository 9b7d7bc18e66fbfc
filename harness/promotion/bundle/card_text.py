"""How the parts of a card write numbers, intervals and tables; whatever is not known is left empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.metrics.few_clusters import few_clusters_note


def part(evidence: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """What stands under a key, empty where nothing does."""
    value = evidence.get(key)
    return value if isinstance(value, Mapping) else {}


def number(value: Any, digits: int = 3) -> str:
    """With so many digits behind the point."""
    return "" if value is None else f"{value:.{digits}f}"


def points(share: Any) -> str:
    """A change in accuracy in points; negative is worse."""
    return "" if share is None else f"{100 * share + 0.0:+.1f}"


def interval(of: Mapping[str, Any], key: str) -> str:
    """0.739 [0.687, 0.785] (1000 windows, K = 12)."""
    clusters = int(of.get("clusters", 0))
    return (
        f"{number(of.get(key))} [{number(of.get('low'))}, {number(of.get('high'))}] "
        f"({of.get('windows', '?')} windows, K = {clusters}{few_clusters_note(clusters)})"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    cells = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(one.replace("|", "\\|") for one in row) + " |" for row in cells]
