"""What is said of a complete trial or an ensemble: its rank, its confirmation, what promotions decided.

Which case it is in, `promotion_case` decides; here are the sentences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.metrics.few_clusters import few_clusters_note
from harness.reporting.explain.promotion_case import (
    Case,
    Loss,
    PromotionFacts,
    Taken,
    baseline_case,
    case_of,
    loss_of,
    promotion_facts,
    taken_as,
)
from harness.study.decisions import Decision, decisions_of
from harness.study.ensembles import EnsembleSummary
from harness.study.leaderboard import expected_optimism, rank_of
from harness.study.study import Study
from harness.study.trials import TrialSummary

if TYPE_CHECKING:
    from harness.study.confirmation.conclusion import Confirmation, Finalist

_TAKEN = {
    Taken.CONFIRMED: "the confirmation's winner",
    Taken.BEST: "the best by validation score",
    Taken.NAMED: "named with --run",
}


@dataclass(frozen=True)
class PromotionStatus:
    """One sentence on whether it was promoted, the details, and the decisions on it."""

    why: str
    details: tuple[str, ...]
    decisions: tuple[Decision, ...]


def promotion_status(study: Study, subject: TrialSummary | EnsembleSummary) -> PromotionStatus:
    """Answer for a complete trial or an ensemble, from Optuna's journal alone; it never asks MLflow."""
    facts = promotion_facts(study, subject)
    confirmation = facts.confirmation
    details = [_score_line(facts), *_against_best(facts)]
    if confirmation is not None:
        details += _confirmation_lines(confirmation, subject)
        details += [confirmation.staleness_note] if confirmation.staleness_note else []
    details += _alone_lines(study, subject)
    details += [line for one in facts.own for line in _decision_lines(one)]
    if not facts.own:
        details.append(_taken_instead(facts))
    details.append(facts.refusal or "it can be exported as one ONNX file")
    return PromotionStatus(_sentence(facts), tuple(details), facts.own)


def baseline_promotion_status(study: Study, confirmation: Confirmation) -> PromotionStatus:
    """Answer for a confirmed baseline that is no trial: fresh seeds are all that has judged it."""
    baseline = confirmation.baseline
    own = tuple(one for one in decisions_of(study) if one.is_about(baseline.label, baseline.fingerprint))
    details = [
        *_confirmation_lines(confirmation, baseline),
        *(line for one in own for line in _decision_lines(one)),
    ]
    return PromotionStatus(_baseline_sentence(study, confirmation, own), tuple(details), own)


# The one sentence


def _sentence(facts: PromotionFacts) -> str:
    label, best, lost = facts.subject.label, facts.best.label, f"{facts.subject.label} was not promoted"
    match case_of(facts):
        case Case.DECIDED:
            return str(facts.own[-1])
        case Case.UNEXPORTABLE:
            return f"{lost}: {facts.refusal}"
        case Case.CONFIRMATION_LOST:
            return f"{lost}: {_chosen_instead(facts)}"
        case Case.CONFIRMATION_WON:
            return f"{label} is the confirmation's winner; {_not_yet(facts.study)}"
        case Case.BEST:
            return f"{label} is the best by validation score; {_not_yet(facts.study)}"
        case Case.OUTSCORED:
            return f"{lost}: {best} scores {facts.behind:.3f} more, and nobody named this one"
        case Case.UNNAMED:
            return f"{lost}: nobody named it, and promotions take a trial by themselves"
        case Case.TIED:
            return f"{lost}: {best} scores the same and came first"


def _chosen_instead(facts: PromotionFacts) -> str:
    assert facts.confirmation is not None, "a confirmation chose another"
    rank = _rank_among(facts.confirmation, facts.subject)
    place = f"it ranks {rank} there" if rank else "it was no finalist"
    return f"the confirmation on fresh seeds chose {facts.confirmation.winner.label}, {place}"


def _baseline_sentence(study: Study, confirmation: Confirmation, own: tuple[Decision, ...]) -> str:
    case = baseline_case(confirmation, own)
    if case is Case.DECIDED:
        return str(own[-1])
    if case is Case.CONFIRMATION_WON:
        return f"the baseline is the confirmation's winner; {_not_yet(study)}"
    rank = _rank_among(confirmation, confirmation.baseline)
    place = f"the baseline ranks {rank} there" if rank else "the baseline was not ranked"
    winner = confirmation.winner.label
    return f"the baseline was not promoted: the confirmation on fresh seeds chose {winner}, {place}"


def _not_yet(study: Study) -> str:
    return f"nobody has promoted it yet: harness promote {study.name}"


# Its score, and the best one's


def _score_line(facts: PromotionFacts) -> str:
    subject, interval = facts.subject, facts.subject.outcome["interval"]
    clusters = int(interval["clusters"])
    text = (
        f"validation score {subject.score or 0:.3f} [{interval['low']:.3f}, {interval['high']:.3f}] "
        f"(K = {clusters} clusters{few_clusters_note(clusters)})"
    )
    if isinstance(subject, EnsembleSummary):
        return f"{text}, {subject.configuration}"
    complete = [trial for trial in facts.others if trial.state == "complete"]
    rank = rank_of(subject, facts.others)
    peak = int(subject.outcome["best_epoch"]) + 1
    return f"{text} at epoch {peak} of {subject.epochs}; rank {rank} of {len(complete)} complete on these windows"


def _against_best(facts: PromotionFacts) -> list[str]:
    """How it compares with the best trial, and how much of either score may be luck."""
    luck = expected_optimism(facts.best, max(1, len(facts.others)))
    if facts.is_best:
        looks, rank = f"the best of {len(facts.others)} trials", "predicted optimism at its rank"
        return [] if luck is None else [f"as {looks}, {luck:.3f} of its score may be luck ({rank})"]
    if isinstance(facts.subject, EnsembleSummary):
        return [_distance_line(facts, luck)]
    rank_there = rank_of(facts.subject, facts.others)
    own = expected_optimism(facts.subject, len(facts.others), rank_there)
    lines = [] if own is None else [f"predicted optimism at its rank: {own:.3f}"]
    return [_distance_line(facts, luck), *lines, _parameters_line(facts.study, facts.subject, facts.best)]


def _distance_line(facts: PromotionFacts, luck: float | None) -> str:
    """How far its score is from the best one's, held against the luck that is expected in that."""
    behind, best = facts.behind, facts.best.label
    line = f"{best} scores {abs(behind):.3f} {'more' if behind >= 0 else 'less'}"
    if luck is None or behind < 0:
        return line
    told = "the distance is more than that"
    if behind <= luck:
        report = f"window by window: harness report {facts.study.name}"
        told = f"they cannot be told apart by these scores; {report}"
    looks = f"as the best of {len(facts.others)} trials"
    return f"{line}; {looks}, {luck:.3f} of its score may be luck (predicted optimism): {told}"


def _parameters_line(study: Study, trial: TrialSummary, best: TrialSummary) -> str:
    rows = [(name, trial.values.get(name), best.values.get(name)) for name in study.space.parameters]
    differing = [
        f"{name} {_shown(ours)} ({_shown(theirs)} there)" for name, ours, theirs in rows if ours != theirs
    ]
    return f"it differs from {best.label} in {', '.join(differing) or 'nothing that is searched'}"


def _shown(value: object) -> str:
    return "unset" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


# Confirmation


def _confirmation_lines(
    confirmation: Confirmation, subject: TrialSummary | EnsembleSummary | Finalist
) -> list[str]:
    """Its score on fresh seeds and what it lacked: a higher mean, or fewer operations at the same score."""
    own = next((one for one in confirmation.finalists if one.fingerprint == subject.fingerprint), None)
    if own is None:
        return ["it was no finalist of the confirmation on fresh seeds", confirmation.conclusion]
    rank = _rank_among(confirmation, subject)
    lines = [f"confirmation, {f'rank {rank}: ' if rank else ''}{own.line()}"]
    loss = loss_of(confirmation, own)
    lines += [] if loss is None else [f"it lost: {_loss_text(loss, confirmation, own)}"]
    return [*lines, confirmation.conclusion]


def _loss_text(loss: Loss, confirmation: Confirmation, own: Finalist) -> str:
    winner, best = confirmation.winner, confirmation.best
    match loss:
        case Loss.UNFIT:
            return f"it cannot ship, {own.unfit}"
        case Loss.BEYOND_ERROR:
            assert own.spread is not None
            assert best.spread is not None
            mean, se = best.spread.mean, best.spread.se
            return (
                f"its mean, {own.spread.mean:.3f}, is more than one standard error below {best.title}'s "
                f"({mean:.3f} - {se:.3f} = {mean - se:.3f})"
            )
        case Loss.DEARER:
            return (
                f"{winner.title} is within one standard error of the best as well, and cheaper or ranked higher "
                f"({winner.macs / 1e6:.1f} M MACs, this one {own.macs / 1e6:.1f})"
            )


def _alone_lines(study: Study, subject: TrialSummary | EnsembleSummary) -> list[str]:
    """What fresh seeds said when it was named; an ensemble cannot be."""
    from harness.study.confirmation.conclusion import confirmation_of, confirmation_progress

    if isinstance(subject, EnsembleSummary):
        return []
    found = confirmation_of(study, subject.number)
    lines = [] if found is None else [f"confirmed alone: {found.winner.line()}", found.conclusion]
    return [*lines, *confirmation_progress(study, subject.number)]


def _rank_among(confirmation: Confirmation, subject: TrialSummary | EnsembleSummary | Finalist) -> str:
    """Its place, as in `2 of 3`; empty where it has none."""
    ranked = [one.fingerprint for one in confirmation.finalists if one.ranked]
    own = subject.fingerprint
    return f"{ranked.index(own) + 1} of {len(ranked)}" if own in ranked else ""


# Decisions


def _decision_lines(decision: Decision) -> list[str]:
    guards = [
        f"  {one['name']}: {one['measured']}, bound {one['bound']}. {one['advice']}"
        for one in decision.guards
    ]
    return [str(decision), *guards]


def _taken_instead(facts: PromotionFacts) -> str:
    promoted = [one for one in facts.every if one.verdict == "promoted"]
    if not promoted:
        return f"no promotion of {facts.study.name} has asked for it, and none has succeeded"
    taken = promoted[-1]
    return f"no promotion has asked for it; {taken}: {_TAKEN[taken_as(facts, taken)]}"
