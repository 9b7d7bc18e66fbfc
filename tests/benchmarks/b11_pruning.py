"""B11: epochs that a full sweep trains / epochs under a rule that keeps the best trial; replayed, nothing trains.

The rule that is judged is chosen on sweeps that it is not judged on. Values that were not smoothed are shown beside.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.sweep import Pruner
from tests.benchmarks.replay import RECORDED, Replayed, Shape, fitted, generated, recorded, replay
from tests.benchmarks.result import Result, judged
from tests.benchmarks.rounds import CannotRun, Estimate
from tests.benchmarks.scale import Scale

KEPT = 0.9
EPOCHS = 30  # the notebooks'
RULES = {
    "median, warm-up 3": Pruner(type="median"),
    "median, warm-up 5": Pruner(type="median", warmup_epochs=5),
    "patient": Pruner(type="patient"),
    "hyperband, r = 3, eta = 3": Pruner(type="hyperband"),
    "halving, r = 3, eta = 3": Pruner(type="halving"),
    "halving, r = 4, eta = 3": Pruner(type="halving", warmup_epochs=4),
    "halving, r = 5, eta = 3": Pruner(type="halving", warmup_epochs=5),
    "halving, r = 6, eta = 3": Pruner(type="halving", warmup_epochs=6),
    "halving, r = 3, eta = 2": Pruner(type="halving", reduction_factor=2),
}


@dataclass(frozen=True)
class Judged:
    """A rule over many sweeps. speedup: of all epochs together; kept: share of sweeps with an equal winner."""

    speedup: Estimate
    kept: float
    regret: float

    def as_json(self) -> dict[str, Any]:
        """Plain values for results.json."""
        speedup = [self.speedup.value, self.speedup.low, self.speedup.high]
        return {"speedup": speedup, "kept": self.kept, "mean_regret": self.regret}


def run(scale: Scale, place: Path) -> list[Result]:
    """Choose a rule on some sweeps, judge it on others."""
    del place
    if not RECORDED.is_file():
        raise CannotRun(f"{RECORDED.name} is not there: python -m tests.benchmarks.record_curves FOLDER")
    shapes = [fitted(curve) for curve in recorded()]
    trials, choosing, judging = scale.of((60, 20, 80), (20, 3, 5))
    found = {name: judge(rule, shapes, trials, range(choosing)) for name, rule in RULES.items()}
    chosen = best_of(found)
    seeds = range(1000, 1000 + judging)
    smoothed = judge(RULES[chosen], shapes, trials, seeds)
    raw = judge(RULES[chosen], shapes, trials, seeds, smoothed=False)
    real = np.array(recorded())
    on_real = replay(real, RULES[chosen])
    enough = smoothed.kept >= KEPT
    value = smoothed.speedup if enough else 1.0  # a rule that loses winners saves nothing
    notes = (
        f"{chosen}: {smoothed.speedup.value:.2f}x, the best kept in {smoothed.kept:.0%} of {judging} sweeps of {trials} "
        f"trials x {EPOCHS} epochs (mean loss of score {smoothed.regret:.4f})",
        f"shown single epochs instead of medians of three: {raw.speedup.value:.2f}x, kept in {raw.kept:.0%}",
        f"on the {len(real)} recorded curves themselves: {on_real.full / on_real.epochs:.2f}x, "
        f"{'kept' if on_real.kept else f'lost {on_real.regret:.4f}'}",
        *(() if enough else (f"fewer than {KEPT:.0%} kept: counted as no saving",)),
        *scale.notes,
    )  # fmt: skip
    details = {
        "chosen": chosen,
        "rules": {name: one.as_json() for name, one in found.items()},
        "smoothed": smoothed.as_json(),
        "raw": raw.as_json(),
    }
    what = "epochs of a full sweep / epochs of a pruned one, at >= 90 % of best kept"
    return [judged("B11", what, value, unit="x", target=">= 3", beyond=">= 5", notes=notes, details=details)]


def judge(rule: Pruner, shapes: list[Shape], trials: int, seeds: range, *, smoothed: bool = True) -> Judged:
    """Replay a sweep for every seed, the same ones for every rule."""
    sweeps = [
        replay(generated(shapes, trials, EPOCHS, seed), rule, name=f"sweep-{seed}", smoothed=smoothed)
        for seed in seeds
    ]
    kept = float(np.mean([one.kept for one in sweeps]))
    return Judged(speedup_of(sweeps), kept, float(np.mean([one.regret for one in sweeps])))


def speedup_of(sweeps: list[Replayed]) -> Estimate:
    """Epochs of all full sweeps over those trained, with a bootstrap interval over the sweeps."""
    full, spent = np.array([one.full for one in sweeps]), np.array([one.epochs for one in sweeps])
    draws = np.random.default_rng(0).integers(len(sweeps), size=(2_000, len(sweeps)))
    ratios = full[draws].sum(axis=1) / spent[draws].sum(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Estimate(float(full.sum() / spent.sum()), float(low), float(high))


def best_of(found: dict[str, Judged]) -> str:
    """The rule that saves most of those that keep enough; where none does, the one that keeps most."""
    keeping = {name: one for name, one in found.items() if one.kept >= KEPT}
    if keeping:
        return max(keeping, key=lambda name: keeping[name].speedup.value)
    return max(found, key=lambda name: (found[name].kept, found[name].speedup.value))
