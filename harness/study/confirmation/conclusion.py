"""What fresh seeds say of a sweep's finalists: who wins, and which replicate ships."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.config.cost import window_macs
from harness.metrics.seed_ranking import Spread, ranking, spread_of, winner_of
from harness.study.confirmation.definition import (
    ConfirmationDefinition,
    ConfirmedConfig,
    Results,
    definition_of,
    results_of,
    save_definition,
    write_definition,
)
from harness.study.confirmation.finalist import Finalist as Finalist
from harness.study.confirmation.replicate import Replicate as Replicate
from harness.study.confirmation.replicate import replicate_of
from harness.study.study import Study


@dataclass(frozen=True)
class Confirmation:
    """Finalists and baseline on `seeds` fresh seeds each: the ranked ones from best to worst, then the others.

    The order and the winner are by `harness.metrics.seed_ranking`. One at least of the finalists may ship.

    named : whether somebody named the finalist: it is the only one beside the baseline, and wins whatever that scores
    by_rule : whom the rule of one standard error chooses; the winner where nobody was named
    since : scores of the trials that the sweep completed after the finalists were chosen
    """

    study: str
    seeds: int
    finalists: tuple[Finalist, ...]
    winner: Finalist
    by_rule: Finalist
    named: bool = False
    since: tuple[float, ...] = ()

    @property
    def best(self) -> Finalist:
        """The first that may ship; the winner is the cheapest within one standard error of it."""
        return next(finalist for finalist in self.finalists if not finalist.unfit)

    @property
    def shipped(self) -> Replicate:
        """The winner's replicate with the lower-median score: what is promoted."""
        return self.winner.shipped

    @property
    def baseline(self) -> Finalist:
        """The baseline, which may be one of the sweep's finalists."""
        return next(finalist for finalist in self.finalists if finalist.is_baseline)

    def replicate_of(self, trial: int) -> Replicate | None:
        """The seed that ships of a trial that was confirmed; None where it was not, or cannot be shipped."""
        able = [one for one in self.finalists if one.trial == trial and one.ranked and not one.unfit]
        return able[0].shipped if able else None

    @property
    def conclusion(self) -> str:
        """Who wins, why, and which seed ships, in one line; whoever may not ship is named with the reason."""
        best, winner, shipped = self.best, self.winner, self.shipped
        why = "the best lower bound"
        if self.named:
            why = "the trial that was named"
        elif winner is not best:
            why = f"the cheapest within one standard error ({best.se or 0:.3f}) of {best.title}"
        beats = self._beside_baseline()
        lower = "lower " if self.seeds % 2 == 0 else ""
        unfit = "".join(f"; {one.title} is not shipped: {one.unfit}" for one in self.finalists if one.unfit)
        return (
            f"{beats}winner: {winner.title} ({winner.name}), {why}; seed {shipped.replicate} ships, "
            f"the {lower}median with {shipped.score or 0:.3f}{unfit}"
        )

    def _beside_baseline(self) -> str:
        """Where the baseline is what the rule chooses: that, as strongly as the scores allow."""
        if not self.by_rule.is_baseline or (self.named and self.winner.is_baseline):
            return ""
        if self.named:
            return f"{self.winner.label} is not shown better than the baseline; "
        mean = self.baseline.mean or 0.0
        if all((one.mean or 0.0) <= mean for one in self.finalists if one.ranked and not one.unfit):
            return "nothing found beats the baseline; "
        return (
            f"no finalist is shown better than the {'' if self.winner is self.best else 'cheaper '}baseline; "
        )

    @property
    def staleness_note(self) -> str:
        """A line: the sweep has completed trials since; empty where it has not, or the finalist was named anyway."""
        if not self.since or self.named:
            return ""
        trials = "1 trial" if len(self.since) == 1 else f"{len(self.since)} trials"
        return f"{trials} since, the best {max(self.since):.3f}: confirm again: harness confirm {self.study}"

    def as_json(self) -> dict[str, Any]:
        """The fields that `--json` prints; `beats_baseline` is by the rule, whoever was named."""
        return {
            "study": self.study,
            "seeds": self.seeds,
            "finalists": [finalist.as_json() for finalist in self.finalists],
            "winner": self.winner.label,
            "shipped": self.shipped.as_json(),
            "baseline": self.baseline.label,
            "beats_baseline": not self.by_rule.is_baseline,
            "trials_since": len(self.since),
            "conclusion": self.conclusion,
        }

    def lines(self) -> list[str]:
        """What a terminal shows: a line each finalist, then the conclusion, then, if so, that the sweep has gone on."""
        head = f"confirmation on {self.seeds} fresh seeds, best lower bound first:"
        lines = [head, *(f"  {finalist.line()}" for finalist in self.finalists), self.conclusion]
        return [*lines, self.staleness_note] if self.staleness_note else lines


def conclude(
    study: str, seeds: int, finalists: Sequence[Finalist], *, named: bool = False, since: Sequence[float] = ()
) -> Confirmation | None:
    """Rank finalists and choose the winner among those that may ship; None where there is none.

    Parameters
    ----------
    seeds : replicates of each
    named : the first of the finalists is asked for, and wins unless it may not ship
    since : scores of the trials that the sweep completed after the finalists were chosen
    """
    able = [finalist for finalist in finalists if finalist.ranked]
    fit = [finalist for finalist in able if not finalist.unfit]
    if not fit:
        return None
    ranked = [able[index] for index in ranking(*_measured(able))]
    others = [finalist for finalist in finalists if not finalist.ranked]
    by_rule = fit[winner_of(*_measured(fit))]
    winner = finalists[0] if named else by_rule
    if not any(one is winner for one in fit):
        return None
    return Confirmation(study, seeds, (*ranked, *others), winner, by_rule, named, tuple(since))


def _measured(finalists: Sequence[Finalist]) -> tuple[list[Spread], list[int]]:
    """Spread and multiply-accumulates of each."""
    return [spread_of(finalist.scores) for finalist in finalists], [finalist.macs for finalist in finalists]


def confirmation_of(study: Study, run: int | None = None) -> Confirmation | None:
    """The study's own confirmation, or that of its trial `run` alone: the last that named a winner.

    None where there is none. One that is wider, narrower or interrupted replaces it when it has a winner itself.
    """
    latest = _concluded(study, definition_of(study, run))
    return latest or _concluded(study, definition_of(study, run, concluded=True))


def _concluded(study: Study, definition: ConfirmationDefinition | None) -> Confirmation | None:
    """What a definition came to; None where there is none, where trainings have not ended, and without a winner."""
    if definition is None or definition.unfinished_trainings(results_of(study)):
        return None
    known = definition.known
    since = [
        one.score
        for one in study.trials()
        if known is not None and one.state == "complete" and one.score is not None and one.number not in known
    ]
    return conclude(
        study.name, definition.seeds, finalists_of(study, definition), named=definition.named, since=since
    )


def start_confirmation(
    study: Study, arms: Sequence[ConfirmedConfig], seeds: int, *, named: bool = False
) -> ConfirmationDefinition:
    """Remember what is confirmed from now on, and the one before until this has a winner.

    Call it under the study's lock. Trainings that were done for the one before are not repeated: results are kept by
    fingerprint and seed.
    """
    definition = ConfirmationDefinition(tuple(arms), seeds, named)
    before = definition_of(study, definition.run)
    if before is not None and _concluded(study, before) is not None:
        write_definition(study, before, concluded=True)
    return save_definition(study, arms, seeds, named=named)


def finalists_of(study: Study, definition: ConfirmationDefinition) -> list[Finalist]:
    """The configurations of a confirmation whose trainings have all ended, each with its replicates, in its order.

    Raises
    ------
    KeyError
        A training has not ended.
    """
    results = results_of(study)
    return [_finalist(study, arm, definition.seeds, results) for arm in definition.arms]


def no_winner_reason(finalists: Sequence[Finalist], *, named: bool = False) -> str:
    """Why a confirmation that has ended has no winner; `named`: the first was asked for."""
    if named:
        return f"{finalists[0].label} cannot ship: {finalists[0].unfit or 'it has no score on every seed'}"
    if any(finalist.ranked for finalist in finalists):
        return "no configuration may ship: the median seed of each that has a score on every seed answers one class"
    return "no configuration has a score on every seed"


def confirmation_progress(study: Study, run: int | None = None) -> list[str]:
    """How far the last confirmation of the study, or of its trial `run` alone, has come: a line; none with a winner."""
    definition, results = definition_of(study, run), results_of(study)
    if definition is None or _concluded(study, definition) is not None:
        return []
    left, total = len(definition.unfinished_trainings(results)), len(definition.arms) * definition.seeds
    words = "" if run is None else f" --run {run} --seeds {definition.seeds}"
    command = f"harness confirm {study.name}{words}"
    what = f"{total - left} of {total} trainings done; {command} goes on"
    if not left:
        again = bool(definition.unfinished_trainings(results, again=True))
        what = no_winner_reason(finalists_of(study, definition), named=definition.named)
        if again:
            what += f"; {command} tries again what the machine spoilt"
        elif run is None:
            what += f"; try more: harness confirm {study.name} --finalists {len(definition.arms) + 1}"
    kept = "" if confirmation_of(study, run) is None else ", until then the one before holds"
    return [f"confirmation{'' if run is None else f' of trial {run} alone'}: {what}{kept}"]


def unfinished_confirmation(study: Study) -> ConfirmationDefinition | None:
    """The study's own confirmation if trainings of it have not ended, or are to be tried again."""
    definition = definition_of(study)
    return (
        definition if definition and definition.unfinished_trainings(results_of(study), again=True) else None
    )


def _finalist(study: Study, arm: ConfirmedConfig, seeds: int, results: Results) -> Finalist:
    replicates: list[Replicate] = []
    failed: list[str] = []
    for number in range(1, seeds + 1):
        result = results[arm.fingerprint, number]
        if result.reason:
            failed.append(f"seed {number}: {result.reason}")
        else:
            replicates.append(replicate_of(study, arm, number, result))
    return Finalist(
        label=arm.label,
        name=arm.name,
        config=arm.config,
        fingerprint=arm.fingerprint,
        macs=window_macs(arm.config),
        trial=arm.trial,
        sweep_score=arm.sweep_score,
        optimism=arm.optimism,
        is_baseline=arm.is_baseline,
        replicates=tuple(replicates),
        failed=tuple(failed),
        is_added=arm.is_added,
    )
