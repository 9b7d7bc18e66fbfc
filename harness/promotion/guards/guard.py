"""Guard, and whether a policy refuses it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.config.policy import Policy

Level = Literal["integrity", "quality", "advice"]


@dataclass(frozen=True)
class Guard:
    """One question about a model, its answer and what to do about it."""

    name: str
    level: Level
    ok: bool
    measured: str
    bound: str
    advice: str

    def __str__(self) -> str:
        if self.ok:
            return f"{self.name}: {self.measured} (wanted {self.bound})"
        return f"{self.name}: {self.measured}, wanted {self.bound}. {self.advice}"

    def as_json(self) -> dict[str, Any]:
        """The fields of evidence.json."""
        return asdict(self)


def refuses(policy: Policy, guard: Guard) -> bool:
    """Whether this guard stops the promotion; advice never does."""
    binding = guard.level == "integrity" or (
        guard.level == "quality" and policy.quality.on_failure == "refuse"
    )
    return binding and not guard.ok
