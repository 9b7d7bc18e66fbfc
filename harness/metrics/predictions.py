"""What a model said about one split, with what was true and who was heard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from harness.metrics.intervals import ClusteredInterval, clustered_interval


@dataclass(frozen=True)
class Predictions:
    """Logits (window, 2), labels (window,) of 0 or 1 and clusters (window,) of one split, in its manifest's order."""

    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    clusters: Sequence[str]

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each window is classified as its label says, (window,); equal logits are class 0, as in argmax."""
        return np.asarray(self.logits.argmax(axis=1) == self.labels)

    def interval(self, side: Literal["two", "lower"] = "two") -> ClusteredInterval:
        """Share of correct windows with its 95 % clustered interval (balanced accuracy where classes are balanced)."""
        return clustered_interval(self.correct, self.clusters, side=side)
