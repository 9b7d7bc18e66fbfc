"""Which case a complete trial or an ensemble is in as to promotions. What is said of each, `promotion_status` knows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from harness.study.decisions import Decision, decisions_of
from harness.study.ensembles import EnsembleSummary
from harness.study.leaderboard import comparable_trials
from harness.study.study import Study
from harness.study.trials import TrialSummary, best_of, unexportable_reason

if TYPE_CHECKING:
    from harness.study.confirmation.conclusion import Confirmation, Finalist


class Case(Enum):
    """Why something is promoted or not; where several hold, the first of them is the answer.

    Attributes
    ----------
    DECIDED : promotions decided on it
    UNEXPORTABLE : every promotion would refuse it, for it cannot be exported as one ONNX file
    CONFIRMATION_LOST : the confirmation on fresh seeds chose another
    CONFIRMATION_WON : the confirmation chose it, and nobody has promoted it yet
    BEST : without a confirmation it is the best trial by validation score, and nobody has promoted it yet
    OUTSCORED : the best trial scores more
    UNNAMED : it scores more than the best trial, so it is an ensemble: promotions take one only where it is named
    TIED : the best trial scores the same, and came first
    """

    DECIDED = auto()
    UNEXPORTABLE = auto()
    CONFIRMATION_LOST = auto()
    CONFIRMATION_WON = auto()
    BEST = auto()
    OUTSCORED = auto()
    UNNAMED = auto()
    TIED = auto()


class Loss(Enum):
    """Why a finalist did not win its confirmation.

    Attributes
    ----------
    UNFIT : it may not ship
    BEYOND_ERROR : its mean lies more than one standard error below the best's
    DEARER : it is within one standard error of the best, as the winner is, and costs more or ranks lower
    """

    UNFIT = auto()
    BEYOND_ERROR = auto()
    DEARER = auto()


class Taken(Enum):
    """Why the last promotion took what it took."""

    CONFIRMED = auto()
    BEST = auto()
    NAMED = auto()


@dataclass(frozen=True)
class PromotionFacts:
    """What a study knows of a complete trial or an ensemble that bears on its promotion.

    Attributes
    ----------
    others : the complete and pruned trials that were judged on the same validation windows, itself among them
    best : the complete one of the highest score; of equals the first
    every, own : decisions of promotions, oldest first: all of the study, and those on it
    confirmation : the study's own, if it has a winner
    refusal : why it cannot be exported; empty where it can
    """

    study: Study
    subject: TrialSummary | EnsembleSummary
    others: list[TrialSummary]
    best: TrialSummary
    every: list[Decision]
    own: tuple[Decision, ...]
    confirmation: Confirmation | None
    refusal: str

    @property
    def is_best(self) -> bool:
        """Whether it is the best trial; an ensemble never is."""
        return self.subject.label == self.best.label

    @property
    def behind(self) -> float:
        """By how much the best trial's score is higher than its own; negative of an ensemble that scores more."""
        return (self.best.score or 0.0) - (self.subject.score or 0.0)


def promotion_facts(study: Study, subject: TrialSummary | EnsembleSummary) -> PromotionFacts:
    """Gather them, from Optuna's journal alone."""
    from harness.study.confirmation.conclusion import confirmation_of

    others = comparable_trials(study, subject)
    best = best_of([trial for trial in others if trial.state == "complete"]) or subject.members[0]
    every = decisions_of(study)
    own = tuple(one for one in every if one.is_about(subject.label, subject.fingerprint))
    refusal = _cannot_be_exported(subject)
    return PromotionFacts(study, subject, others, best, every, own, confirmation_of(study), refusal)


def case_of(facts: PromotionFacts) -> Case:
    """The first case that holds."""
    if facts.own:
        return Case.DECIDED
    if facts.refusal:
        return Case.UNEXPORTABLE
    if facts.confirmation is not None:
        won = facts.confirmation.winner.fingerprint == facts.subject.fingerprint
        return Case.CONFIRMATION_WON if won else Case.CONFIRMATION_LOST
    if facts.is_best:
        return Case.BEST
    if facts.behind > 0:
        return Case.OUTSCORED
    return Case.UNNAMED if facts.behind < 0 else Case.TIED


def baseline_case(confirmation: Confirmation, own: tuple[Decision, ...]) -> Case:
    """The case of a confirmed baseline that is no trial: it has no score in the sweep to be held against others."""
    if own:
        return Case.DECIDED
    won = confirmation.winner is confirmation.baseline
    return Case.CONFIRMATION_WON if won else Case.CONFIRMATION_LOST


def loss_of(confirmation: Confirmation, finalist: Finalist) -> Loss | None:
    """Why a finalist did not win; None where it did, or where it or the best has no score on every seed."""
    if finalist.unfit:
        return Loss.UNFIT
    won = finalist.fingerprint == confirmation.winner.fingerprint
    spread, best = finalist.spread, confirmation.best.spread
    if won or not spread or not best:
        return None
    return Loss.BEYOND_ERROR if spread.mean < best.mean - best.se else Loss.DEARER


def taken_as(facts: PromotionFacts, decision: Decision) -> Taken:
    """Why a promotion of the study took what it took."""
    winner = None if facts.confirmation is None else facts.confirmation.winner
    if winner is not None and decision.is_about(winner.label, winner.fingerprint):
        return Taken.CONFIRMED
    return Taken.BEST if decision.is_about(facts.best.label, facts.best.fingerprint) else Taken.NAMED


def _cannot_be_exported(subject: TrialSummary | EnsembleSummary) -> str:
    """Why a promotion would refuse it before anything else."""
    said = [(one.label, unexportable_reason(one.outcome)) for one in subject.members]
    reasons = [f"{label}: {text.removeprefix('no: ')}" for label, text in said if text is not None]
    return f"it cannot be exported as one ONNX file ({'; '.join(reasons)})" if reasons else ""
