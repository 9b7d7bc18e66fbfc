"""A configuration on all its fresh seeds, as a confirmation ranks and shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.config.files.policy_file import load_policy
from harness.config.trial.trial_config import TrialConfig
from harness.metrics.seed_ranking import Spread, median_seed, spread_of
from harness.study.confirmation.replicate import Replicate


@dataclass(frozen=True)
class Finalist:
    """A configuration on all its fresh seeds; its numbers are None where it is not `ranked`.

    macs : multiply-accumulates of one window, by which the cheapest is told
    trial, sweep_score, optimism : its number and score in the sweep, and how much of that score was expected to be
        luck; None for a baseline that is no finalist
    is_added : whether it is here as the baseline alone, and no finalist by its score
    failed : why seeds have no score; who has any is listed, and not ranked
    """

    label: str
    name: str
    config: TrialConfig
    fingerprint: str
    macs: int
    trial: int | None
    sweep_score: float | None
    optimism: float | None
    is_baseline: bool
    replicates: tuple[Replicate, ...]
    failed: tuple[str, ...] = ()
    is_added: bool = False

    @property
    def ranked(self) -> bool:
        """Whether every seed has a score, and there are two or more: one has no deviation."""
        return not self.failed and len(self.replicates) > 1

    @property
    def scores(self) -> list[float]:
        """Validation scores in [0, 1], one a seed; without those that failed."""
        return [float(replicate.score or 0.0) for replicate in self.replicates]

    @property
    def spread(self) -> Spread | None:
        """The spread of the scores; None where it is not ranked."""
        return spread_of(self.scores) if self.ranked else None

    @property
    def mean(self) -> float | None:
        """Mean score over the n seeds."""
        return self.spread.mean if self.spread else None

    @property
    def sd(self) -> float | None:
        """Standard deviation between the seeds, with n - 1."""
        return self.spread.sd if self.spread else None

    @property
    def se(self) -> float | None:
        """Standard error of the mean, sd / sqrt(n)."""
        return self.spread.se if self.spread else None

    @property
    def low(self) -> float | None:
        """Lower bound of the mean, by which finalists are ranked: mean - t(.975, n - 1) se."""
        return self.spread.low if self.spread else None

    @property
    def shrink(self) -> float | None:
        """How far the mean lies below the score in the sweep, which was the best of many; negative: it grew."""
        return None if self.mean is None or self.sweep_score is None else self.sweep_score - self.mean

    @property
    def shipped(self) -> Replicate:
        """The replicate with the lower-median score: no score chose it, so its score flatters nobody."""
        return self.replicates[median_seed(self.scores)]

    @property
    def unfit(self) -> str:
        """Why what would ship of it would be refused: it answers one class; empty where nothing speaks against it."""
        at_best = self.shipped.outcome.get("at_best", {}) if self.ranked else {}
        bounds = load_policy("default").integrity  # no policy may loosen these
        rate = at_best.get("val/predicted_positive", 0.5)
        recalls = [at_best.get(f"val/recall_{label}", 1.0) for label in (0, 1)]
        if not bounds.min_positive_rate <= rate <= bounds.max_positive_rate:
            return f"its median seed answers one class (predicted-positive rate {rate:.3f})"
        if min(recalls) < bounds.min_recall:
            return f"its median seed answers one class (recalls {recalls[0]:.3f} and {recalls[1]:.3f})"
        return ""

    @property
    def title(self) -> str:
        """Its label, marked where it is the baseline as well."""
        return f"{self.label} (the baseline)" if self.is_baseline and self.trial is not None else self.label

    def as_json(self) -> dict[str, Any]:
        """The fields that `--json` prints."""
        names = ("mean", "sd", "se", "low", "shrink")
        return {
            "label": self.label,
            "name": self.name,
            "trial": self.trial,
            "baseline": self.is_baseline,
            "fingerprint": self.fingerprint,
            "macs": self.macs,
            "sweep_score": self.sweep_score,
            "predicted_optimism": self.optimism,
            **{name: getattr(self, name) for name in names},
            "failed": list(self.failed),
            "unfit": self.unfit,
            "replicates": [replicate.as_json() for replicate in self.replicates],
        }

    def line(self) -> str:
        """One line for a terminal: its mean and bound on the seeds, the sweep's score and the luck expected in it."""
        if self.spread is None:
            return f"{self.title}: not ranked: {'; '.join(self.failed)}"
        sweep = ""
        if self.shrink is not None:
            luck = "" if self.optimism is None else f" (predicted optimism at its rank {self.optimism:.3f})"
            moved = f"{'grew' if self.shrink < 0 else 'shrank'} by {abs(self.shrink):.3f}"
            sweep = f"; {self.sweep_score:.3f} in the sweep, {moved}{luck}"
        return (
            f"{self.title}: {self.spread.mean:.3f} (sd {self.spread.sd:.3f}, lower bound {self.spread.low:.3f}) "
            f"on {len(self.replicates)} seeds, {self.macs / 1e6:.1f} M MACs{sweep}"
            f"{f'; not shipped: {self.unfit}' if self.unfit else ''}"
        )
