"""Learning curves replayed through the project's pruners: what a rule would have cost, and whether it keeps the best.

A replay is a whole sweep: trial after trial, epoch after epoch, each shown to Optuna as the coordinator shows it
(`harness.coordinator`), with the value that the rule gets there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import curve_fit

from harness.search_rules import build_pruner
from harness.statistics import lower_median, trailing_median_score
from harness.sweep import Pruner
from harness.training_state import SCORE_WINDOW

Curves = npt.NDArray[np.float64]  # (trial, epoch)
RECORDED = Path(__file__).with_name("curves.json")


@dataclass(frozen=True)
class Replayed:
    """One sweep under a rule: epochs trained, of how many; whether its winner scores what the best of all scores."""

    epochs: int
    full: int
    kept: bool
    regret: float


def replay(curves: Curves, pruner: Pruner, *, name: str = "replay", smoothed: bool = True) -> Replayed:
    """Run the trials of ``curves`` under a rule. Not ``smoothed``: the rule is shown each epoch's own value."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rule = build_pruner(pruner, curves.shape[1])
    study = optuna.create_study(study_name=name, direction="maximize", pruner=rule)
    epochs, best = 0, 0.0
    for curve in curves.tolist():
        trial = study.ask()
        length, pruned = _train(trial, curve, pruner.warmup_epochs, smoothed=smoothed)
        epochs += length
        score = trailing_median_score(curve[:length], SCORE_WINDOW).value
        if pruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, score)
            best = max(best, score)
    highest = max(trailing_median_score(curve, SCORE_WINDOW).value for curve in curves.tolist())
    return Replayed(epochs, curves.size, best == highest, highest - best)


def _train(trial: Any, curve: Sequence[float], warmup: int, *, smoothed: bool) -> tuple[int, bool]:
    """Epochs that a trial got, and whether it was pruned then."""
    for epoch, value in enumerate(curve):
        shown = lower_median(curve[max(0, epoch + 1 - SCORE_WINDOW) : epoch + 1]) if smoothed else value
        trial.report(shown, epoch)
        if epoch + 1 >= warmup and epoch + 1 < len(curve) and trial.should_prune():
            return epoch + 1, True
    return len(curve), False


def recorded(path: Path = RECORDED) -> list[list[float]]:
    """Validation curves of really trained trials, balanced accuracy an epoch."""
    curves: list[list[float]] = json.loads(path.read_text("utf-8"))["curves"]
    return curves


@dataclass(frozen=True)
class Shape:
    """A curve: ``start + (top - start) (1 - exp(-(epoch + 1) / time)) - fall epoch + noise``."""

    start: float
    top: float
    time: float
    fall: float
    noise: float

    def mean(self, epochs: int) -> npt.NDArray[np.float64]:
        """The curve without its noise, (epoch,)."""
        epoch = np.arange(epochs, dtype=np.float64)
        return np.asarray(_shape(epoch, self.start, self.top, self.time, self.fall), dtype=np.float64)


def _shape(epoch: Any, start: float, top: float, time: float, fall: float) -> Any:
    return start + (top - start) * (1 - np.exp(-(epoch + 1) / time)) - fall * epoch


def fitted(curve: Sequence[float]) -> Shape:
    """The shape nearest to a recorded curve; its noise is what is left over."""
    values = np.asarray(curve)
    guess = (values[0], values.max(), 3.0, 0.0)
    bounds = ((0.2, 0.2, 0.3, -0.01), (1.0, 1.0, 40.0, 0.02))
    found, _ = curve_fit(_shape, np.arange(len(values)), values, np.clip(guess, *bounds), bounds=bounds)
    left = values - _shape(np.arange(len(values)), *found)
    start, top, time, fall = map(float, found)
    return Shape(start, top, time, fall, noise=float(left.std(ddof=min(4, len(values) - 1))))


def generated(shapes: Sequence[Shape], trials: int, epochs: int, seed: int) -> Curves:
    """A sweep of curves like the recorded ones: each a blend of two of them with fresh noise, in [0, 1]."""
    rng = np.random.default_rng(seed)
    curves = np.empty((trials, epochs))
    for row in range(trials):
        one, two = rng.choice(len(shapes), 2)
        share, a, b = rng.uniform(), shapes[one], shapes[two]
        noise = share * a.noise + (1 - share) * b.noise
        mean = share * a.mean(epochs) + (1 - share) * b.mean(epochs)
        curves[row] = np.clip(mean + noise * rng.standard_normal(epochs), 0.0, 1.0)
    return curves
