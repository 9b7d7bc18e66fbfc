"""A training's course: train and validation by epoch, and what it says by rules with numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.metrics.intervals import lower_median

WINDOW = 3  # epochs of the trailing median that scores are made of
FULL = WINDOW - 1  # index of the first epoch with a whole window: medians of fewer are no score
FEWEST_EPOCHS = 6  # below this a third of a training is no trend

RULES = {
    "constant predictor": "at the epoch of the score the model gives every validation window the same answer: its "
    "balanced accuracy is that of chance, and its course says nothing",
    "early plateau": "no trailing 3-epoch median after the first third of the epochs (at least 3) beats the best one "
    "within it by more than one standard error of the score, and it is no late overfitting",
    "late overfitting": "the last trailing 3-epoch median of validation lies more than one standard error below the "
    "best one, while the last trailing median of training lies above the one at that epoch",
}


@dataclass(frozen=True)
class CurveFinding:
    """A rule (a key of `RULES`) that a training falls under, with the numbers that say so."""

    rule: str
    numbers: str


@dataclass(frozen=True)
class LearningCurve:
    """Balanced accuracy in [0, 1] by epoch, on a fixed sample of the training windows and on validation.

    Training may be unknown (empty), in records of earlier versions. Epoch n stands at index n - 1.
    """

    train: tuple[float, ...]
    val: tuple[float, ...]

    @property
    def smoothed(self) -> tuple[float, ...]:
        """Trailing median of validation at each epoch; of the first ones over what there is."""
        return tuple(trailing_medians(self.val))

    def findings(self, n_eff: float, predicted_positive: float | None = None) -> tuple[CurveFinding, ...]:
        """The rule that holds, if any; of a course, none where there are fewer than `FEWEST_EPOCHS` epochs.

        One standard error is ``sqrt(p (1 - p) / n_eff)``, that of a share of n_eff independent windows, at the best
        trailing median p::

            val    .--*--.__        early plateau: nothing after the first third beats it by > 1 s.e.
                 /|     |  `--._    late overfitting: the end lies > 1 s.e. below *, while train still rose
               /  |     |
            first third       end

        Parameters
        ----------
        n_eff : effective windows of the validation set: as many independent ones would carry its evidence
        predicted_positive : share of them that the model answers with 1, at the epoch of the score
        """
        if predicted_positive in (0, 1):
            numbers = f"{predicted_positive:.0%} of the validation windows are answered with 1"
            return (CurveFinding("constant predictor", numbers),)
        medians = self.smoothed
        if len(medians) < FEWEST_EPOCHS:
            return ()
        first = medians.index(max(medians[FULL:]), FULL)
        peak = medians[first]
        error = math.sqrt(max(peak * (1 - peak), 0.0) / n_eff)
        found = self._overfitting(medians, first, error) or self._plateau(medians, error)
        return (found,) if found else ()

    def _plateau(self, medians: Sequence[float], error: float) -> CurveFinding | None:
        third = max(WINDOW, math.ceil(len(medians) / 3))
        early, late = max(medians[FULL:third]), max(medians[third:])
        if late > early + error:
            return None
        reached = f"{early:.3f} at epoch {medians.index(early, FULL) + 1} of {len(medians)}"
        numbers = f"{reached}, {late:.3f} at best after epoch {third} (s.e. {error:.3f})"
        return CurveFinding("early plateau", numbers)

    def _overfitting(self, medians: Sequence[float], first: int, error: float) -> CurveFinding | None:
        if len(self.train) != len(medians) or medians[-1] >= medians[first] - error:
            return None
        train = trailing_medians(self.train)
        if train[-1] <= train[first]:
            return None
        numbers = (
            f"validation {medians[first]:.3f} at epoch {first + 1}, {medians[-1]:.3f} at the end (s.e. {error:.3f}); "
            f"train {train[first]:.3f}, then {train[-1]:.3f}"
        )
        return CurveFinding("late overfitting", numbers)


def trailing_medians(values: Sequence[float]) -> list[float]:
    """Lower median of each epoch and the two before it, of fewer at the beginning: always a value that was seen."""
    return [lower_median(values[max(0, end - WINDOW) : end]) for end in range(1, len(values) + 1)]


def learning_curve_of(outcome: Mapping[str, Any]) -> LearningCurve | None:
    """The course that a trial's outcome tells of; None where it has no epoch."""
    curves = outcome.get("curves", {})
    val = curves.get("val") or outcome.get("val_accuracy") or ()  # balanced windows: the two are equal
    return LearningCurve(tuple(curves.get("train", ())), tuple(val)) if val else None
