"""Rivals, rank, predicted optimism."""

from __future__ import annotations

from collections.abc import Sequence

from harness.metrics.intervals import optimism
from harness.study.ensembles import EnsembleSummary
from harness.study.study import NOT_RECORDED, Study, manifests_of
from harness.study.trials import TrialSummary


def comparable_trials(study: Study, subject: TrialSummary | EnsembleSummary) -> list[TrialSummary]:
    """The complete and pruned trials that were judged on the same validation windows; each was a look at them."""
    digest = manifests_of(study, subject.members[0]).get("val", NOT_RECORDED)
    return [
        trial for trial in study.trials()
        if trial.state in ("complete", "pruned") and manifests_of(study, trial).get("val", NOT_RECORDED) == digest
    ]  # fmt: skip


def rank_of(trial: TrialSummary, among: Sequence[TrialSummary]) -> int:
    """Place of a trial among the complete ones of its rivals by score, from 1; of equals the first is ahead."""
    own = (-(trial.score or 0.0), trial.number)
    return 1 + sum((-(one.score or 0.0), one.number) < own for one in among if one.state == "complete")


def expected_optimism(trial: TrialSummary | EnsembleSummary, trials: int, rank: int = 1) -> float | None:
    """How much of the score of who ranks so among so many is expected to be luck: its predicted optimism.

    None where every window is right, or none is.
    """
    value, n_eff = trial.outcome["at_best"]["val/balanced_accuracy"], trial.outcome["interval"]["n_eff"]
    if not 0 < value < 1:
        return None  # no variance is seen, which is not to say that there is none
    return optimism(value, n_eff, trials, trial.epochs, trial.outcome["lag1"], rank)
