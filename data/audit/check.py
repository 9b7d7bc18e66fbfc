"""One finding of the data gate: refused where a score would be wrong, warned of where it only claims less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["refuse", "warn"]


@dataclass(frozen=True)
class Check:
    """What was checked, what was measured (plain JSON), its bound, and one line for a person."""

    name: str
    ok: bool
    measured: Any
    bound: str
    message: str
    level: Level = "refuse"
