"""Guard, and whether a policy refuses it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.config.policy import Policy

Level = Literal["integrity", "quality", "advice"]


@dataclass(frozen=True)
class Guard:
    """One question about a model, its answer and what to do about it.

    Attributes
    ----------
    level : integrity refuses under any policy, quality as `quality.on_failure` says, advice is only said
    measured, bound : what was found and what was wanted, as text with units
    advice : what to do where it fails; it stands there where it does not, too
    """

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
        """One entry of `guards` in evidence.json."""
        return asdict(self)


def refuses(policy: Policy, guard: Guard) -> bool:
    """Whether this guard stops the promotion; advice never does."""
    binding = guard.level == "integrity" or (
        guard.level == "quality" and policy.quality.on_failure == "refuse"
    )
    return binding and not guard.ok
