"""Learning curves replayed through the project's pruners: what a rule would have cost, and whether it keeps the best.

A replay is a whole sweep: trial after trial, epoch after epoch, each shown to Optuna as the coordinator shows it
(`harness.execution.coordinator`), with the value that the rule gets there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.config.search_rules import Pruner
from harness.metrics.intervals import lower_median, trailing_median_score
from harness.study.sampling.samplers import build_pruner
from harness.training.state import SCORE_WINDOW

Curves = npt.NDArray[np.float64]  # (trial, epoch)
RECORDED = Path(__file__).with_name("curves.json")


@dataclass(frozen=True)
class Replayed:
    """One sweep under a rule: epochs trained, of how many; how far its winner's score lies below the best of all."""

    epochs: int
    full: int
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
    return Replayed(epochs, curves.size, highest - best)


def _train(trial: Any, curve: Sequence[float], warmup: int, *, smoothed: bool) -> tuple[int, bool]:
    """Epochs that a trial got, and whether it was pruned then."""
    for epoch, value in enumerate(curve):
        shown = lower_median(curve[max(0, epoch + 1 - SCORE_WINDOW) : epoch + 1]) if smoothed else value
        trial.report(shown, epoch)
        if epoch + 1 >= warmup and epoch + 1 < len(curve) and trial.should_prune():
            return epoch + 1, True
    return len(curve), False


@dataclass(frozen=True)
class Recorded:
    """Learning curves of really trained trials.

    curves : (trial, epoch) balanced accuracy on the validation windows; windows : how many those are
    """

    curves: Curves
    windows: int

    @classmethod
    def read(cls, path: Path = RECORDED) -> Recorded:
        """Read what `record_curves` kept."""
        kept = json.loads(path.read_text("utf-8"))
        return cls(np.array(kept["curves"], dtype=np.float64), int(kept["sweep"]["data"]["val_windows"]))

    def standard_error(self) -> float:
        """Of the best trial's score, sqrt(p (1 - p) / n), as if its windows were independent, which makes it small."""
        best = max(trailing_median_score(curve, SCORE_WINDOW).value for curve in self.curves.tolist())
        return math.sqrt(best * (1 - best) / self.windows)

    def shuffled(self, seed: int) -> Curves:
        """The same trials in another order."""
        return np.random.default_rng(seed).permutation(self.curves)

    def blended(self, trials: int, seed: int) -> Curves:
        """Other trials like them: each a blend of two."""
        rng, count = np.random.default_rng(seed), len(self.curves)
        pairs = np.array([rng.choice(count, 2, replace=False) for _ in range(trials)])
        share = rng.uniform(size=(trials, 1))
        blends: Curves = share * self.curves[pairs[:, 0]] + (1 - share) * self.curves[pairs[:, 1]]
        return blends
