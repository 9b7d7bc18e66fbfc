"""Where a trial stands among those it compares with, and how much of its score that place makes luck."""

from __future__ import annotations

from collections.abc import Sequence

from harness.metrics.intervals import optimism
from harness.study.ensembles import EnsembleSummary
from harness.study.study import NOT_RECORDED, Study, manifests_of
from harness.study.trials import TrialSummary


def comparable_trials(study: Study, subject: TrialSummary | EnsembleSummary) -> list[TrialSummary]:
    """The complete and pruned trials that were judged on the same validation windows; each was a look at them."""
    digest = _val_digest(study, subject.members[0])
    looked = [trial for trial in study.trials() if trial.state in ("complete", "pruned")]
    return [trial for trial in looked if _val_digest(study, trial) == digest]


def _val_digest(study: Study, trial: TrialSummary) -> str:
    return manifests_of(study, trial).get("val", NOT_RECORDED)


def rank_of(trial: TrialSummary, among: Sequence[TrialSummary]) -> int:
    """Place of a trial by score among the complete ones of `among`, from 1; of equals the first is ahead."""
    own = (-(trial.score or 0.0), trial.number)
    return 1 + sum((-(one.score or 0.0), one.number) < own for one in among if one.state == "complete")


def expected_optimism(trial: TrialSummary | EnsembleSummary, trials: int, rank: int = 1) -> float | None:
    """How much of a score is expected to be luck, as the `rank`-th best of so many trials: its predicted optimism.

    By `harness.metrics.intervals.optimism`, in units of balanced accuracy, from the trial's n_eff, epochs and lag-1
    correlation. None where every window is right, or none is: the binomial variance is 0 there.
    """
    value, n_eff = trial.outcome["at_best"]["val/balanced_accuracy"], trial.outcome["interval"]["n_eff"]
    if not 0 < value < 1:
        return None  # no variance is seen, which is not to say that there is none
    return optimism(value, n_eff, trials, trial.epochs, trial.outcome["lag1"], rank)
