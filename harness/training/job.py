"""What a worker is given, and the classes of what it may fail of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

FailureKind = Literal["configuration", "diverged", "out_of_memory", "out_of_space", "infrastructure"]


@dataclass(frozen=True)
class Job:
    """One training to run: everything a worker needs, as plain values, so that it travels as JSON to any process.

    number : of the trial; config : a `TrialConfig` as JSON
    prepared, spool, cache : folders: of the prepared windows, of the trial's spool, of features shared by all trials
    seed : of first weights, order of batches, dropout and augmentation
    specification : the fields of the model's `Specification` that only the coordinator knows (run id, versions)
    """

    number: int
    config: dict[str, Any]
    prepared: str
    spool: str
    cache: str
    seed: int
    specification: dict[str, Any]
