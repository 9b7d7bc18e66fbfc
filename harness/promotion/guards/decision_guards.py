"""Guards of the choice itself: the confirmation, the baseline, the champion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness.config.policy import ConfirmationRule
from harness.promotion.guards.facts import CandidateFacts, ContestFacts
from harness.promotion.guards.rule import Finding, guard
from harness.selection.choose_finalists import confirmable_trials
from harness.study.ensembles import EnsembleSummary

if TYPE_CHECKING:
    from harness.study.confirmation.conclusion import Confirmation
    from harness.study.trials import TrialSummary

BETTER = "better, or non-inferior and cheaper"
CONFIRM = "or promote with --confirm: what was trained on a fresh seed is not trained again."


@guard(
    CandidateFacts,
    "confirmed on fresh seeds",
    "quality",
    bounds=["confirmation.required", "confirmation.finalists", "confirmation.seeds"],
    advice=f"Run `harness confirm STUDY`, {CONFIRM}",
)
def fresh_seeds(seen: CandidateFacts) -> Iterator[Finding]:
    """Whether the subject was chosen on fresh seeds, on as much as the policy asks for; asked where it is required."""
    rule = seen.policy.confirmation
    if rule.required:
        ensemble = isinstance(seen.subject, EnsembleSummary)
        yield judge_confirmation(seen.confirmation, rule, confirmable_trials(seen.study), ensemble=ensemble)


def judge_confirmation(
    confirmation: Confirmation | None,
    rule: ConfirmationRule,
    able: Sequence[TrialSummary] = (),
    *,
    ensemble: bool = False,
) -> Finding:
    """Whether the subject was chosen on fresh seeds, and on as much as the policy asks for.

    It fails too where another trial by now scores more in the sweep than the last finalist: it was never asked.
    Of a confirmation for which somebody named the finalist only the seeds are counted: there was nothing to choose.

    Parameters
    ----------
    confirmation : the one whose seed the subject is; None where it is none
    able : the study's trials that could be finalists today, one a configuration
    ensemble : whether the subject is one
    """
    wanted = min(rule.finalists, len(able))
    bound = f">= {rule.seeds} seeds, >= {_many(wanted, 'finalist')}"
    if confirmation is None:
        return Finding(False, "no", bound, _unconfirmed(ensemble))
    finalists = [one for one in confirmation.finalists if one.trial is not None and not one.is_added]
    measured = f"{confirmation.seeds} seeds, {_many(len(finalists), 'finalist')}"
    ok, over = confirmation.seeds >= rule.seeds, []
    if confirmation.named:
        measured, bound = f"{confirmation.seeds} seeds of the trial that was named", f">= {rule.seeds} seeds"
    else:
        over = _overtaking(confirmation, able)
        ok = ok and len(finalists) >= wanted and not over
    if over:
        measured += f"; {over[0].label} is none of them, and scores {over[0].score:.3f} in the sweep"
        bound += ", no other trial above the last of them"
    command = (
        f"harness confirm {confirmation.study} --finalists {rule.finalists} --seeds {rule.seeds}"
        if not confirmation.named
        else f"harness confirm {confirmation.study} --run {finalists[0].trial} --seeds {rule.seeds}"
    )
    return Finding(ok, measured, bound, f"Run `{command}`, {CONFIRM}")


def _unconfirmed(ensemble: bool) -> str:
    if ensemble:
        return (
            "Fresh seeds are for configurations, and an ensemble averages weights that are there: confirm and promote "
            "one of its members, or name a policy with confirmation.required: false."
        )
    return (
        "The best of many trials owes part of its score to luck: run `harness confirm STUDY`, or promote with "
        "--confirm."
    )


def _overtaking(confirmation: Confirmation, able: Sequence[TrialSummary]) -> list[TrialSummary]:
    """Trials that are no finalists and score more in the sweep than the last of the finalists."""
    known = {one.fingerprint for one in confirmation.finalists}
    chosen = [one for one in confirmation.finalists if not one.is_added]
    last = min((one.sweep_score for one in chosen if one.sweep_score is not None), default=1.0)
    return [one for one in able if one.fingerprint not in known and (one.score or 0.0) > last]


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


CONTEST = ["quality.on_failure", "champion.margin", "champion.cheaper"]


@guard(
    ContestFacts,
    "against the champion",
    "quality",
    bounds=CONTEST[1:],
    advice="The champion stays. Keep this one as the challenger, or confirm and test on more speakers.",
)
def champion(seen: ContestFacts) -> Iterator[Finding]:
    """Whether it has shown to be better than the champion, or as good and cheaper."""
    if not seen.is_champion or isinstance(seen.comparison, str):
        return
    advice = ""
    if seen.comparison.verdict == "not comparable":
        advice = (
            "No test can decide between them. Under a policy whose quality guards warn this one is registered as the "
            "challenger; `harness rollback NAME --to VERSION` puts the alias on it by hand."
        )
    yield Finding(seen.comparison.wins, seen.comparison.text, BETTER, advice)


NOT_WORTH = "Nothing shows that the search was worth more than the baseline:"
SEARCH_ON = "search further or test on more speakers, or promote under a policy whose quality guards warn."


@guard(ContestFacts, "against the baseline", "quality", bounds=CONTEST, advice=f"{NOT_WORTH} {SEARCH_ON}")
def baseline(seen: ContestFacts) -> Iterator[Finding]:
    """Where there is no champion: whether it is better than the confirmed baseline, or as good and cheaper."""
    if seen.is_champion:
        return
    refuses = seen.policy.quality.on_failure == "refuse"
    advice = (
        f"{NOT_WORTH} {SEARCH_ON if refuses else 'it becomes champion all the same, since there is none.'}"
    )
    if isinstance(seen.comparison, str):
        yield Finding(False, f"cannot be compared: {seen.comparison}", BETTER, advice)
    else:
        yield Finding(seen.comparison.wins, seen.comparison.text, BETTER, advice)
