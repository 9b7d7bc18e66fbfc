"""Which trial is promoted: the one that is named, else the best of those that compare."""

from __future__ import annotations

import re

from harness.ensemble_record import EnsembleSummary, ensemble_named, ensembles_of
from harness.statistics import optimism
from harness.study import Study, StudyError, TrialSummary
from harness.tracking import Tracking
from harness.trial_config import TrialConfig

Subject = TrialSummary | EnsembleSummary

RUN_ID = re.compile(r"[0-9a-f]{32}")


def choose(study: Study, run: str | None) -> TrialSummary:
    """The trial of this number, else the best by score.

    Raises
    ------
    StudyError
        No such trial, a trial that did not complete, or trials that were judged on different windows.
    """
    complete = [trial for trial in study.trials() if trial.state == "complete"]
    if not complete:
        raise StudyError(
            f"study {study.name} has no complete trial to promote; see: harness status {study.name}"
        )
    if run is not None:
        named = [trial for trial in study.trials() if trial.number == int(run)]
        if not named:
            raise StudyError(f"study {study.name} has no trial {run}; it has 0 to {len(study.trials()) - 1}")
        if named[0].state != "complete":
            raise StudyError(
                f"trial {run} is {named[0].state} ({named[0].reason or 'no reason'}), not complete"
            )
        return named[0]
    manifests = study.optuna_study.user_attrs.get("manifests", {})
    digests = {manifests[_data_digest(trial)]["val"] for trial in complete}
    if len(digests) > 1:
        shown = ", ".join(sorted(digest[:12] for digest in digests))
        raise StudyError(
            f"the trials of {study.name} were judged on different validation windows ({shown}) and do not rank; "
            f"set data.evaluate_on, or name one with --run"
        )
    best = study.best()
    assert best is not None
    return best


def subject_named(study: Study, run: str | None) -> TrialSummary | EnsembleSummary | None:
    """The trial of this number, the ensemble of this name or run id, or the best trial where nothing is named.

    None where only MLflow can tell: an id that may be the run of a trial.

    Raises
    ------
    StudyError
        As `choose`, or no ensemble of this name.
    """
    if run is None or (run.isdecimal() and not RUN_ID.fullmatch(run)):
        return choose(study, run)
    found = ensemble_named(study, run)
    if found is None and not RUN_ID.fullmatch(run):
        raise StudyError(f"study {study.name} has no trial or ensemble {run!r}; {what_there_is(study)}")
    return found


def what_there_is(study: Study) -> str:
    """The trials and ensembles of a study, for whoever named another."""
    count, names = len(study.trials()), [one.name for one in ensembles_of(study)]
    trials = f"trials 0 to {count - 1}" if count > 1 else "trial 0" if count else "no trial yet"
    ensembles = f"the ensembles {', '.join(names)}" if names else "no ensemble"
    return f"it has {trials} and {ensembles}"


def trial_of_run(tracking: Tracking, run_id: str) -> str:
    """Number of the trial whose MLflow run has this id; StudyError where the study has no such run."""
    number = tracking.trial_of(run_id)
    if number is None:
        raise StudyError(
            f"study {tracking.study} has no trial with the run id {run_id!r}; give its number instead"
        )
    return number


def expected_luck(trial: TrialSummary | EnsembleSummary, trials: int) -> float | None:
    """How much of the best of so many looks is luck; None where every window is right, or none is."""
    value, n_eff = trial.outcome["at_best"]["val/balanced_accuracy"], trial.outcome["interval"]["n_eff"]
    if not 0 < value < 1:
        return None  # no variance is seen, which is not to say that there is none
    return optimism(value, n_eff, trials, trial.epochs, trial.outcome["lag1"])


def _data_digest(trial: TrialSummary) -> str:
    return TrialConfig.model_validate(trial.config).data.digest()
