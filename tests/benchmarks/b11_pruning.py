"""B11: epochs that a full sweep trains / epochs under a rule that keeps a winner equal to the best; nothing trains.

The rule is chosen on blends of the recorded curves and judged on the curves themselves, in many orders: which trial
comes when is what a rule depends on. Equal is a winner whose score lies within one standard error of the best: the
validation windows cannot tell the two apart. How often it is the very same trial stands in the row's notes, beside the
same rule on values that were not smoothed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.config.search_rules import Pruner
from tests.benchmarks.replay import RECORDED, Curves, Recorded, Replayed, replay
from tests.benchmarks.result import Result, judged
from tests.benchmarks.rounds import CannotRun, Estimate
from tests.benchmarks.scale import Scale

KEPT = 0.9
DEFAULT = "median, warm-up 3"
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
    """A rule over many sweeps. speedup: of all epochs together; kept, same: share with an equal, with the same winner."""

    speedup: Estimate
    kept: float
    same: float
    regret: float

    def as_json(self) -> dict[str, Any]:
        """Plain values for results.json."""
        speedup = [self.speedup.value, self.speedup.low, self.speedup.high]
        return {"speedup": speedup, "kept": self.kept, "same": self.same, "mean_regret": self.regret}

    def __str__(self) -> str:
        return (
            f"{self.speedup.value:.2f}x, an equal winner in {self.kept:.0%}, the very same in {self.same:.0%} "
            f"(mean loss of score {self.regret:.4f})"
        )


def run(scale: Scale, place: Path) -> list[Result]:
    """Choose a rule on some sweeps, judge it on others."""
    del place
    if not RECORDED.is_file():
        raise CannotRun(f"{RECORDED.name} is not there: python -m tests.benchmarks.record_curves FOLDER")
    known = Recorded.read()
    equal = known.standard_error()
    trials, choosing, judging = scale.of((60, 20, 80), (20, 3, 5))
    found = {
        name: judge(rule, [known.blended(trials, seed) for seed in range(choosing)], equal)
        for name, rule in RULES.items()
    }
    chosen = best_of(found)
    orders = [known.shuffled(seed) for seed in range(judging)]
    smoothed = judge(RULES[chosen], orders, equal)
    raw = judge(RULES[chosen], orders, equal, smoothed=False)
    default = judge(RULES[DEFAULT], orders, equal)
    enough = smoothed.kept >= KEPT
    value = smoothed.speedup if enough else 1.0  # a rule that loses winners saves nothing
    count, epochs = known.curves.shape
    notes = (
        f"{chosen}: {smoothed}, in {judging} orders of {count} recorded trials of {epochs} epochs; equal: within "
        f"{equal:.4f}, a standard error of {known.windows} windows",
        f"on {choosing} sweeps of {trials} blends of them, by which it was chosen of {len(RULES)}: {found[chosen]}",
        f"shown single epochs instead of medians of three: {raw}",
        f"a sweep file's default, {DEFAULT}, in the same orders: {default}",
        "Optuna counts epochs from 0: r = 3 judges first after the fourth; the interval is of the orders of these "
        "trials, another set may differ by more",
        *(() if enough else (f"fewer than {KEPT:.0%} kept: counted as no saving",)),
        *scale.notes,
    )  # fmt: skip
    details = {
        "chosen": chosen,
        "rules": {name: one.as_json() for name, one in found.items()},
        "smoothed": smoothed.as_json(),
        "raw": raw.as_json(),
        "default": default.as_json(),
    }
    what = "epochs of a full sweep / epochs of a pruned one, an equal winner kept in >= 90 %"
    return [judged("B11", what, value, unit="x", target=">= 3", beyond=">= 5", notes=notes, details=details)]


def judge(rule: Pruner, sweeps: Iterable[Curves], equal: float, *, smoothed: bool = True) -> Judged:
    """Replay sweeps under a rule."""
    names = (f"sweep-{number}" for number in itertools.count())  # hyperband's brackets are drawn by the name
    found = [
        replay(one, rule, name=name, smoothed=smoothed) for one, name in zip(sweeps, names, strict=False)
    ]
    regrets = np.array([one.regret for one in found])
    kept, same = float(np.mean(regrets <= equal)), float(np.mean(regrets == 0))
    return Judged(speedup_of(found), kept, same, float(regrets.mean()))


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
