"""What a worker is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

FailureKind = Literal["configuration", "diverged", "out_of_memory", "out_of_space", "infrastructure"]


@dataclass(frozen=True)
class Job:
    """One trial to run: everything a worker needs, as plain values."""

    number: int
    config: dict[str, Any]
    prepared: str
    spool: str
    cache: str
    seed: int
    specification: dict[str, Any]
