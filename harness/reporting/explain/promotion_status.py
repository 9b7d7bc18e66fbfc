"""Where a complete trial or an ensemble of a study stands: its rank, its confirmation, what promotions decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.metrics.few_clusters import few_clusters_note
from harness.study.decisions import Decision, decisions_of
from harness.study.ensembles import EnsembleSummary
from harness.study.leaderboard import comparable_trials, expected_optimism, rank_of
from harness.study.study import Study
from harness.study.trials import TrialSummary, best_of, unexportable_reason

if TYPE_CHECKING:
    from harness.study.confirmation.conclusion import Confirmation, Finalist


@dataclass(frozen=True)
class PromotionStatus:
    """One sentence on whether it was promoted, the details, and the decisions on it."""

    why: str
    details: tuple[str, ...]
    decisions: tuple[Decision, ...]


def promotion_status(study: Study, subject: TrialSummary | EnsembleSummary) -> PromotionStatus:
    """Answer for what is complete, from Optuna's journal alone."""
    others = comparable_trials(study, subject)
    best = best_of([trial for trial in others if trial.state == "complete"]) or subject.members[0]
    every = decisions_of(study)
    own = tuple(one for one in every if one.is_about(subject.label, subject.fingerprint))
    confirmation = _confirmation_of(study)
    details = [_score_line(subject, others), *_against_best(study, subject, best, others)]
    if confirmation is not None:
        details += _confirmation_lines(confirmation, subject)
        details += [confirmation.staleness_note] if confirmation.staleness_note else []
    details += _alone_lines(study, subject)
    details += [line for one in own for line in _decision_lines(one)]
    if not own:
        details.append(_taken_instead(study, every, best, confirmation))
    refusal = _cannot_be_exported(subject)
    details.append(refusal or "it can be exported as one ONNX file")
    return PromotionStatus(_sentence(study, subject, best, own, confirmation, refusal), tuple(details), own)


def _sentence(
    study: Study, subject: TrialSummary | EnsembleSummary, best: TrialSummary, own: tuple[Decision, ...],
    confirmation: Confirmation | None, refusal: str,
) -> str:  # fmt: skip
    if own:
        return str(own[-1])
    if refusal:
        return f"{subject.label} was not promoted: {refusal}"
    if confirmation is not None and confirmation.winner.fingerprint != subject.fingerprint:
        winner = confirmation.winner.label
        rank = _rank_among(confirmation, subject)
        place = f"it ranks {rank} there" if rank else "it was no finalist"
        return f"{subject.label} was not promoted: the confirmation on fresh seeds chose {winner}, {place}"
    if confirmation is not None or subject.label == best.label:
        what = "the confirmation's winner" if confirmation else "the best by validation score"
        return f"{subject.label} is {what}; nobody has promoted it yet: harness promote {study.name}"
    more = (best.score or 0.0) - (subject.score or 0.0)
    if more > 0:
        return f"{subject.label} was not promoted: {best.label} scores {more:.3f} more, and nobody named this one"
    if more < 0:
        return f"{subject.label} was not promoted: nobody named it, and promotions take a trial by themselves"
    return f"{subject.label} was not promoted: {best.label} scores the same and came first"


def _score_line(subject: TrialSummary | EnsembleSummary, others: list[TrialSummary]) -> str:
    interval = subject.outcome["interval"]
    clusters = int(interval["clusters"])
    text = (
        f"validation score {subject.score or 0:.3f} [{interval['low']:.3f}, {interval['high']:.3f}] "
        f"(K = {clusters} clusters{few_clusters_note(clusters)})"
    )
    if isinstance(subject, EnsembleSummary):
        return f"{text}, {subject.configuration}"
    complete = [trial for trial in others if trial.state == "complete"]
    rank = rank_of(subject, others)
    peak = int(subject.outcome["best_epoch"]) + 1
    return f"{text} at epoch {peak} of {subject.epochs}; rank {rank} of {len(complete)} complete on these windows"


def _against_best(
    study: Study, subject: TrialSummary | EnsembleSummary, best: TrialSummary, others: list[TrialSummary]
) -> list[str]:
    luck = expected_optimism(best, max(1, len(others)))
    looks = f"the best of {len(others)} trials"
    if subject.label == best.label:
        rank = "predicted optimism at its rank"
        return [] if luck is None else [f"as {looks}, {luck:.3f} of its score may be luck ({rank})"]
    more = (best.score or 0.0) - (subject.score or 0.0)
    line = f"{best.label} scores {abs(more):.3f} {'more' if more >= 0 else 'less'}"
    if luck is not None and more >= 0:
        told = (
            f"they cannot be told apart by these scores; window by window: harness report {study.name}"
            if more <= luck
            else "the distance is more than that"
        )
        line += f"; as {looks}, {luck:.3f} of its score may be luck (predicted optimism): {told}"
    if isinstance(subject, EnsembleSummary):
        return [line]
    own = expected_optimism(subject, len(others), rank_of(subject, others))
    lines = [line] if own is None else [line, f"predicted optimism at its rank: {own:.3f}"]
    names = [
        name for name in study.space.parameters if subject.values.get(name) != best.values.get(name)
    ]  # fmt: skip
    differing = [
        f"{name} {_shown(subject.values.get(name))} ({_shown(best.values.get(name))} there)" for name in names
    ]
    return [*lines, f"it differs from {best.label} in {', '.join(differing) or 'nothing that is searched'}"]


def _shown(value: object) -> str:
    return "unset" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


# Confirmation


def _confirmation_of(study: Study) -> Confirmation | None:
    from harness.study.confirmation.conclusion import confirmation_of

    return confirmation_of(study)


def _alone_lines(study: Study, subject: TrialSummary | EnsembleSummary) -> list[str]:
    """What fresh seeds said when it was named."""
    from harness.study.confirmation.conclusion import confirmation_of, confirmation_progress

    if isinstance(subject, EnsembleSummary):
        return []
    found = confirmation_of(study, subject.number)
    lines = [] if found is None else [f"confirmed alone: {found.winner.line()}", found.conclusion]
    return [*lines, *confirmation_progress(study, subject.number)]


def _rank_among(confirmation: Confirmation, subject: TrialSummary | EnsembleSummary | Finalist) -> str:
    ranked = [one.fingerprint for one in confirmation.finalists if one.ranked]
    own = subject.fingerprint
    return f"{ranked.index(own) + 1} of {len(ranked)}" if own in ranked else ""


def baseline_promotion_status(study: Study, confirmation: Confirmation) -> PromotionStatus:
    """Answer for a confirmed baseline that is no trial."""
    baseline, winner = confirmation.baseline, confirmation.winner
    own = tuple(one for one in decisions_of(study) if one.is_about(baseline.label, baseline.fingerprint))
    details = [
        *_confirmation_lines(confirmation, baseline),
        *(line for one in own for line in _decision_lines(one)),
    ]
    if own:
        return PromotionStatus(str(own[-1]), tuple(details), own)
    why = (
        f"the baseline is the confirmation's winner; nobody has promoted it yet: harness promote {study.name}"
    )
    if winner is not baseline:
        rank = _rank_among(confirmation, baseline)
        place = f"the baseline ranks {rank} there" if rank else "the baseline was not ranked"
        why = f"the baseline was not promoted: the confirmation on fresh seeds chose {winner.label}, {place}"
    return PromotionStatus(why, tuple(details), own)


def _confirmation_lines(
    confirmation: Confirmation, subject: TrialSummary | EnsembleSummary | Finalist
) -> list[str]:
    """Its score on fresh seeds and what it lacked: a higher mean, or fewer operations at the same score."""
    own = next((one for one in confirmation.finalists if one.fingerprint == subject.fingerprint), None)
    if own is None:
        return ["it was no finalist of the confirmation on fresh seeds", confirmation.conclusion]
    rank = _rank_among(confirmation, subject)
    lines = [f"confirmation, {f'rank {rank}: ' if rank else ''}{own.line()}"]
    first, winner = confirmation.best, confirmation.winner
    if own.unfit:
        lines.append(f"it lost: it cannot ship, {own.unfit}")
    elif own.fingerprint != winner.fingerprint and own.spread and first.spread:
        reach = first.spread.mean - first.spread.se
        if own.spread.mean < reach:
            lines.append(
                f"it lost: its mean, {own.spread.mean:.3f}, is more than one standard error below {first.title}'s "
                f"({first.spread.mean:.3f} - {first.spread.se:.3f} = {reach:.3f})"
            )
        else:
            lines.append(
                f"it lost: {winner.title} is within one standard error of the best as well, and cheaper or ranked "
                f"higher ({winner.macs / 1e6:.1f} M MACs, this one {own.macs / 1e6:.1f})"
            )
    return [*lines, confirmation.conclusion]


# Decisions


def _decision_lines(decision: Decision) -> list[str]:
    guards = [
        f"  {one['name']}: {one['measured']}, bound {one['bound']}. {one['advice']}"
        for one in decision.guards
    ]
    return [str(decision), *guards]


def _taken_instead(
    study: Study, every: list[Decision], best: TrialSummary, confirmation: Confirmation | None
) -> str:
    promoted = [one for one in every if one.verdict == "promoted"]
    if not promoted:
        return f"no promotion of {study.name} has asked for it, and none has succeeded"
    taken = promoted[-1]
    if confirmation is not None and taken.is_about(
        confirmation.winner.label, confirmation.winner.fingerprint
    ):
        reason = "the confirmation's winner"
    elif taken.is_about(best.label, best.fingerprint):
        reason = "the best by validation score"
    else:
        reason = "named with --run"
    return f"no promotion has asked for it; {taken}: {reason}"


def _cannot_be_exported(subject: TrialSummary | EnsembleSummary) -> str:
    """Why a promotion would refuse it before anything else."""
    said = [(one.label, unexportable_reason(one.outcome)) for one in subject.members]
    reasons = [f"{label}: {text.removeprefix('no: ')}" for label, text in said if text is not None]
    return f"it cannot be exported as one ONNX file ({'; '.join(reasons)})" if reasons else ""
