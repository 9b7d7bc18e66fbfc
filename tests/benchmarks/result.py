"""One row of the benchmark's table: what was measured, beside what was aimed at."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.rounds import Estimate

_TARGET = re.compile(r"(>=|<=|==)\s*([0-9.]+)")


@dataclass(frozen=True)
class Result:
    """A row.

    id : "B1", or "B2 naive" where a benchmark has several; what : in words, numerator / denominator
    unit : "x", "ms", ...; target, beyond : ">= 0.95", in the unit, or "" where nothing was aimed at
    holds : whether the value reaches the target; None where nothing was measured or aimed at
    notes : for the reader of the table; details : numbers and words behind it, kept in results.json
    """

    id: str
    what: str
    value: float | None
    interval: tuple[float, float] | None
    unit: str
    target: str
    beyond: str
    holds: bool | None
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


def judged(
    id: str,
    what: str,
    value: Estimate | float,
    *,
    unit: str,
    target: str = "",
    beyond: str = "",
    notes: Iterable[str] = (),
    details: Mapping[str, Any] | None = None,
) -> Result:
    """Hold a value against its target; an `Estimate` brings its interval."""
    found, interval = (value.value, (value.low, value.high)) if isinstance(value, Estimate) else (value, None)
    if interval is not None and not all(map(math.isfinite, interval)):
        interval = None  # of a single round
    holds = reaches(found, target) if target else None
    return Result(
        id, what, float(found), interval, unit, target, beyond, holds, tuple(notes), dict(details or {})
    )


def not_measured(
    id: str,
    what: str,
    reason: str,
    *,
    unit: str = "",
    target: str = "",
    beyond: str = "",
    details: Mapping[str, Any] | None = None,
) -> Result:
    """A row without a value, that says why."""
    return Result(
        id, what, None, None, unit, target, beyond, None, (f"not measured: {reason}",), dict(details or {})
    )


def reaches(value: float, target: str) -> bool:
    """Whether a value keeps ">= 0.95", "<= 60 ms" or "== 1"; NaN keeps nothing.

    Raises
    ------
    ValueError
        If the target is none of these.
    """
    match = _TARGET.match(target)
    if match is None:
        raise ValueError(f"target {target!r}: give one of '>= 1', '<= 1', '== 1'")
    sign, bound = match[1], float(match[2])
    return {">=": value >= bound, "<=": value <= bound, "==": value == bound}[sign]
