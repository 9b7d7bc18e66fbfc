"""Which trial is promoted: the one that is named, else the best of those that compare."""

from __future__ import annotations

import re

from harness.config.trial.trial_config import TrialConfig
from harness.study.ensembles import EnsembleSummary, ensemble_named, ensembles_of
from harness.study.study import Study, StudyError
from harness.study.trials import TrialSummary

Subject = TrialSummary | EnsembleSummary

RUN_ID = re.compile(r"[0-9a-f]{32}")


def choose_trial(study: Study, run: str | None, to: str = "promote") -> TrialSummary:
    """The trial of this number, else the best by score; `to` completes the message that there is none `to promote`.

    Raises
    ------
    StudyError
        No such trial, a trial that did not complete, or trials that were judged on different windows.
    """
    complete = [trial for trial in study.trials() if trial.state == "complete"]
    if not complete:
        raise StudyError(f"study {study.name} has no complete trial to {to}{_why_none(study)}")
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


def resolve_subject(
    study: Study, run: str | None, to: str = "promote"
) -> TrialSummary | EnsembleSummary | None:
    """The trial of this number, the ensemble of this name or run id, or the best trial where nothing is named.

    None where only MLflow can tell: an id that may be the run of a trial.

    Raises
    ------
    StudyError
        As `choose_trial`, or no ensemble of this name.
    """
    if run is None or (run.isdecimal() and not RUN_ID.fullmatch(run)):
        return choose_trial(study, run, to)
    found = ensemble_named(study, run)
    if found is None and not RUN_ID.fullmatch(run):
        raise StudyError(f"study {study.name} has no trial or ensemble {run!r}; {available_subjects(study)}")
    return found


def available_subjects(study: Study) -> str:
    """What may be named instead, as the end of a message: `it has trials 0 to 3 and the ensembles top2`."""
    count, names = len(study.trials()), [one.name for one in ensembles_of(study)]
    trials = f"trials 0 to {count - 1}" if count > 1 else "trial 0" if count else "no trial yet"
    ensembles = f"the ensembles {', '.join(names)}" if names else "no ensemble"
    return f"it has {trials} and {ensembles}"


def _why_none(study: Study) -> str:
    """What became of the trials of a study of which none is complete, and what to do."""
    states = [one.state for one in study.trials()]
    see = f"see: harness status {study.name}"
    if "running" in states:
        return f": it is being swept now, or was interrupted; wait for it, or run its sweep again; {see}"
    if not states:
        return " yet: its sweep has just begun, or ended before its first trial; run it again"
    if "pruned" in states:
        pruned = "all" if set(states) == {"pruned"} else f"{states.count('pruned')} of {len(states)}"
        return (
            f": {pruned} were pruned; run it under another name with `pruner: none`, or with a larger warmup_epochs "
            f"of the pruner; {see}"
        )
    return f"; {see}"


def _data_digest(trial: TrialSummary) -> str:
    return TrialConfig.from_record(trial.config).data.digest()
