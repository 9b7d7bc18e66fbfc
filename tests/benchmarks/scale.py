"""How much is measured: the full form fits into 40 minutes on two cores, the quick one into some three."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

# In the environment of the quick form, which measures nothing: baselines export as before dynamo, in a tenth of the time.
TRACED = "BENCH_TRACED"


@dataclass(frozen=True)
class Scale:
    """Sizes that several benchmarks share; each has more of its own, by `quick`.

    quick : every arm once, small: shows that all of it runs; its numbers are no measurement
    rounds : interleaved rounds; slow_rounds : where a round takes minutes
    limit_s : after which one benchmark is ended
    """

    quick: bool
    rounds: int
    slow_rounds: int
    limit_s: float

    @property
    def notes(self) -> tuple[str, ...]:
        """What a row says about its scale."""
        return ("quick: one small run of each arm, no measurement",) if self.quick else ()

    def of(self, full: T, quick: T) -> T:
        """Choose a size."""
        return quick if self.quick else full


FULL = Scale(quick=False, rounds=7, slow_rounds=3, limit_s=1800)
QUICK = Scale(quick=True, rounds=1, slow_rounds=1, limit_s=300)
