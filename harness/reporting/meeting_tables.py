"""Results of `harness evaluate` in a report: one table a protocol, each number as it may be read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.metrics.few_clusters import few_clusters_note
from harness.tracking.run_files import RunFiles

# Tags and metrics of a run: evaluate/<protocol digest>/<name>.
PREFIX = "evaluate/"
# What is read first stands first; metrics of other versions follow by name.
SCORES = ("f1", "precision", "recall", "detection_error_rate")
INTERVAL = ("low", "high", "clusters")
ORDER = (*SCORES, *INTERVAL, "ideal_f1", "all_positive_f1")
TEXTS = ("digest", "protocol", "flags")

Evaluations = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class MeetingTable:
    """Runs under one protocol.

    Attributes
    ----------
    digest : of the protocol, its first 8 characters
    metrics : names of the columns
    rows : a run's label, its numbers as text by column, and the flags that qualify them
    """

    digest: str
    protocol: str
    metrics: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...], str], ...]

    @property
    def opened_test(self) -> bool:
        """Whether meetings of the test part were scored; read out of the protocol's sentence."""
        return re.search(r" on \S+ test \(", self.protocol) is not None


def evaluations_of(files: RunFiles) -> dict[str, list[dict[str, Any]]]:
    """Results by protocol digest, one mapping a run: `{"run": label, "values": {metric: number or text}}`.

    Numbers under different protocols do not compare, so they never share a table.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for label, results in files.results(PREFIX).items():
        by_protocol: dict[str, dict[str, Any]] = {}
        for name, value in results.items():
            protocol, _, metric = name.removeprefix(PREFIX).partition("/")
            if metric:
                by_protocol.setdefault(protocol, {})[metric] = value
        for protocol, values in by_protocol.items():
            found.setdefault(protocol, []).append({"run": label, "values": values})
    return dict(sorted(found.items()))


def tables_of(evaluations: Evaluations) -> list[MeetingTable]:
    """One table a protocol, in the order given."""
    return [_table(digest, rows) for digest, rows in evaluations.items()]


def _table(digest: str, rows: Sequence[Mapping[str, Any]]) -> MeetingTable:
    known = {name for row in rows for name in row["values"]} - set(TEXTS)
    metrics = (*(name for name in ORDER if name in known), *sorted(known - set(ORDER)))
    shown = tuple(
        (
            row["run"],
            tuple(_number(name, row["values"].get(name)) for name in metrics),
            row["values"].get("flags", ""),
        )
        for row in rows
    )
    protocol = next((row["values"]["protocol"] for row in rows if "protocol" in row["values"]), "")
    return MeetingTable(digest, protocol, metrics, shown)


def _number(name: str, value: float | str | None) -> str:
    if value is None:
        return "–"
    if name == "clusters":
        return f"{int(value)}{few_clusters_note(int(value))}"
    return f"{value:.3f}" if isinstance(value, float | int) else value
