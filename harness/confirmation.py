"""What fresh seeds say of a sweep's finalists: who wins, and which replicate ships."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.confirmation_record import Arm, Results, definition_of, results_of
from harness.cost import window_macs
from harness.ranking import Spread, median_seed, ranking, spread_of, winner_of
from harness.replicate import Replicate as Replicate
from harness.replicate import replicate_of
from harness.study import Study
from harness.trial_config import TrialConfig


@dataclass(frozen=True)
class Finalist:
    """A configuration on all its fresh seeds.

    trial, sweep_score, optimism : its number and score in the sweep, and how much of that score was expected to be
        luck; None for a baseline that is no finalist
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

    @property
    def ranked(self) -> bool:
        """Whether every seed has a score."""
        return not self.failed and len(self.replicates) > 1

    @property
    def scores(self) -> list[float]:
        """Validation scores, a seed each."""
        return [float(replicate.score or 0.0) for replicate in self.replicates]

    @property
    def spread(self) -> Spread | None:
        """The spread of the scores; None where it is not ranked."""
        return spread_of(self.scores) if self.ranked else None

    @property
    def mean(self) -> float | None:
        """Mean score over the seeds."""
        return self.spread.mean if self.spread else None

    @property
    def sd(self) -> float | None:
        """Standard deviation between the seeds."""
        return self.spread.sd if self.spread else None

    @property
    def se(self) -> float | None:
        """Standard error of the mean."""
        return self.spread.se if self.spread else None

    @property
    def low(self) -> float | None:
        """Lower bound of the mean, by which finalists are ranked."""
        return self.spread.low if self.spread else None

    @property
    def shrink(self) -> float | None:
        """How far the mean lies below the score in the sweep."""
        return None if self.mean is None or self.sweep_score is None else self.sweep_score - self.mean

    @property
    def shipped(self) -> Replicate:
        """The replicate with the lower-median score."""
        return self.replicates[median_seed(self.scores)]

    @property
    def title(self) -> str:
        """Its label, marked where it is the baseline as well."""
        return f"{self.label} (the baseline)" if self.is_baseline and self.trial is not None else self.label

    def as_json(self) -> dict[str, Any]:
        """The fields that `--json` prints."""
        return {
            "label": self.label, "name": self.name, "trial": self.trial, "baseline": self.is_baseline,
            "fingerprint": self.fingerprint, "macs": self.macs, "sweep_score": self.sweep_score,
            "predicted_optimism": self.optimism, "mean": self.mean, "sd": self.sd, "se": self.se, "low": self.low,
            "shrink": self.shrink, "failed": list(self.failed),
            "replicates": [replicate.as_json() for replicate in self.replicates],
        }  # fmt: skip

    def line(self) -> str:
        """One line for a terminal."""
        if self.spread is None:
            return f"{self.title}: not ranked: {'; '.join(self.failed)}"
        sweep = ""
        if self.shrink is not None:
            luck = "" if self.optimism is None else f", {self.optimism:.3f} expected of luck"
            moved = f"{'grew' if self.shrink < 0 else 'shrank'} by {abs(self.shrink):.3f}"
            sweep = f"; {self.sweep_score:.3f} in the sweep, {moved}{luck}"
        return (
            f"{self.title}: {self.spread.mean:.3f} (sd {self.spread.sd:.3f}, lower bound {self.spread.low:.3f}) "
            f"on {len(self.replicates)} seeds, {self.macs / 1e6:.1f} M MACs{sweep}"
        )


@dataclass(frozen=True)
class Confirmation:
    """Finalists and baseline on `seeds` fresh seeds each: the ranked ones from best to worst, then the others."""

    study: str
    seeds: int
    finalists: tuple[Finalist, ...]
    winner: Finalist

    @property
    def shipped(self) -> Replicate:
        """The winner's replicate with the lower-median score: what is promoted."""
        return self.winner.shipped

    @property
    def baseline(self) -> Finalist:
        """The baseline, which may be one of the sweep's finalists."""
        return next(finalist for finalist in self.finalists if finalist.is_baseline)

    @property
    def conclusion(self) -> str:
        """Who wins, why, and which seed ships."""
        best, winner, shipped = self.finalists[0], self.winner, self.shipped
        why = "the best lower bound"
        if winner is not best:
            why = f"the cheapest within one standard error ({best.se or 0:.3f}) of {best.title}"
        beats = "nothing found beats the baseline; " if winner.is_baseline else ""
        return (
            f"{beats}winner: {winner.title} ({winner.name}), {why}; seed {shipped.replicate} ships, "
            f"the median with {shipped.score or 0:.3f}"
        )

    def as_json(self) -> dict[str, Any]:
        """The fields that `--json` prints."""
        return {
            "study": self.study,
            "seeds": self.seeds,
            "finalists": [finalist.as_json() for finalist in self.finalists],
            "winner": self.winner.label,
            "shipped": self.shipped.as_json(),
            "baseline": self.baseline.label,
            "beats_baseline": not self.winner.is_baseline,
            "conclusion": self.conclusion,
        }

    def lines(self) -> list[str]:
        """What a terminal shows: a line each finalist, then the winner."""
        head = f"confirmation on {self.seeds} fresh seeds, best lower bound first:"
        return [head, *(f"  {finalist.line()}" for finalist in self.finalists), self.conclusion]


def concluded(study: str, seeds: int, finalists: Sequence[Finalist]) -> Confirmation | None:
    """Rank finalists and choose the winner; None where none has a score on every seed."""
    able = [finalist for finalist in finalists if finalist.ranked]
    if not able:
        return None
    spreads, macs = [spread_of(finalist.scores) for finalist in able], [finalist.macs for finalist in able]
    ranked = [able[index] for index in ranking(spreads, macs)]
    others = [finalist for finalist in finalists if not finalist.ranked]
    return Confirmation(study, seeds, (*ranked, *others), able[winner_of(spreads, macs)])


def confirmation_of(study: Study) -> Confirmation | None:
    """The study's confirmation; None where there is none, it is incomplete, or nothing in it can be ranked."""
    definition, results = definition_of(study), results_of(study)
    if definition is None or definition.left(results):
        return None
    finalists = [_finalist(study, arm, definition.seeds, results) for arm in definition.arms]
    return concluded(study.name, definition.seeds, finalists)


def progress_of(study: Study) -> list[str]:
    """Where a confirmation stands that is incomplete or ended without a winner: a line, or none."""
    definition, results = definition_of(study), results_of(study)
    if definition is None:
        return []
    left, total = len(definition.left(results)), len(definition.arms) * definition.seeds
    what = (
        f"{total - left} of {total} trainings done" if left else "no configuration has a score on every seed"
    )
    return [f"confirmation: {what}; harness confirm {study.name} goes on"]


def _finalist(study: Study, arm: Arm, seeds: int, results: Results) -> Finalist:
    replicates: list[Replicate] = []
    failed: list[str] = []
    for number in range(1, seeds + 1):
        result = results[arm.fingerprint, number]
        if result.reason:
            failed.append(f"seed {number}: {result.reason}")
        else:
            replicates.append(replicate_of(study, arm, number, result))
    return Finalist(
        arm.label, arm.name, arm.config, arm.fingerprint, window_macs(arm.config), arm.trial, arm.sweep_score,
        arm.optimism, arm.is_baseline, tuple(replicates), tuple(failed),
    )  # fmt: skip
