"""Which configurations are confirmed: the best complete trials, or the one that is named, and the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness.config.baseline import baseline_of
from harness.config.parameters import Scalar
from harness.config.trial.trial_config import TrialConfig
from harness.core.errors import InputError
from harness.study.choose_trial import choose_trial, resolve_subject
from harness.study.confirmation.definition import ConfirmedConfig
from harness.study.ensembles import EnsembleSummary
from harness.study.leaderboard import comparable_trials, expected_optimism, rank_of
from harness.study.storage.record import Record
from harness.study.study import Study
from harness.study.trials import TrialSummary, unexportable_reason
from harness.tracking.experiment import Tracking, connect
from harness.tracking.run_files import trial_of_run
from harness.tracking.run_header import run_name
from harness.tracking.server.server import TrackingServer
from models.front_ends.build import why_unavailable


class ConfirmationError(InputError):
    """A confirmation that cannot be had as it was asked for; the message says why."""


def choose_finalists(
    study: Study, record: Record, run: str | None, count: int, baseline: Mapping[str, Scalar] | None
) -> tuple[list[ConfirmedConfig], list[str]]:
    """What is trained on fresh seeds, best score first, the baseline among it; and a line for each that is left out.

    Parameters
    ----------
    run : a trial's number or name, or a run id: the only finalist; None: the `count` best complete trials
    baseline : values that stand in for those of the sweep's `baseline:`

    Raises
    ------
    ConfirmationError
        An ensemble, or a trial that cannot be promoted, was named; or none is left.
    StudyError
        No such trial, none that is complete, or trials that were judged on different windows.
    """
    chosen, notes = (_best(study, count) if run is None else [_named(study, record, run)]), []
    trials = []
    for trial in chosen:
        reason = _cannot(trial)
        if reason is None:
            trials.append(trial)
        else:
            notes.append(f"{trial.label} is no finalist: {reason}")
    if not trials:
        raise ConfirmationError("; ".join(notes))
    if run is None and len(trials) < count:
        trials_there = "1 finalist" if len(trials) == 1 else f"{len(trials)} finalists"
        notes.append(
            f"{trials_there}, not {count}: the study has no more complete trials that can be promoted"
        )
    finalists = [_finalist(study, trial) for trial in trials[:count]]
    return with_baseline(study, finalists, baseline), notes


def with_baseline(
    study: Study, finalists: list[ConfirmedConfig], given: Mapping[str, Scalar] | None
) -> list[ConfirmedConfig]:
    """The finalists with the baseline marked where it is one of them, else added: as the trial that it is, if any.

    A baseline of other validation windows gets the first finalist's data: scores compare on the same windows only.
    """
    values, config = baseline_of(study.space, given)
    shared = finalists[0].config
    if _val_windows(study, config) != _val_windows(study, shared):
        config = config.model_copy(update={"data": shared.data})
    fingerprint = config.fingerprint()
    if any(one.fingerprint == fingerprint for one in finalists):
        return [replace(one, is_baseline=one.fingerprint == fingerprint) for one in finalists]
    same = [one for one in study.trials() if one.fingerprint == fingerprint]
    known = next((one for one in same if one.state != "duplicate"), None)
    if known is not None:
        return [*finalists, replace(_finalist(study, known), is_baseline=True, is_added=True)]
    name = f"baseline {run_name(0, values, study.space.searched).partition(' ')[2]}"
    return [*finalists, ConfirmedConfig(name, config, values, is_baseline=True, is_added=True)]


def _finalist(study: Study, trial: TrialSummary) -> ConfirmedConfig:
    """A trial's configuration; only a trial that is complete has a score to compare with."""
    config, score, luck = TrialConfig.from_record(trial.config), None, None
    if trial.state == "complete":
        others = comparable_trials(study, trial)
        score, luck = trial.score, expected_optimism(trial, len(others), rank_of(trial, others))
    return ConfirmedConfig(trial.name, config, trial.values, trial.number, score, luck)


def _best(study: Study, count: int) -> list[TrialSummary]:
    """The complete trials from best to worst, as far as `count` of them can be confirmed."""
    choose_trial(study, None, "confirm")  # refuses where they do not compare
    distinct = _distinct(study)
    able = [one for one in distinct if _cannot(one) is None][:count]
    last = distinct.index(able[-1]) + 1 if able else len(distinct)
    return distinct[:last]


def confirmable_trials(study: Study) -> list[TrialSummary]:
    """The complete trials that can be confirmed, one a configuration, best score first."""
    return [one for one in _distinct(study) if _cannot(one) is None]


def _distinct(study: Study) -> list[TrialSummary]:
    """The complete trials, best score first, of equal configurations the best one."""
    complete = [one for one in study.trials() if one.state == "complete" and one.score is not None]
    ranked = sorted(complete, key=lambda one: (-(one.score or 0.0), one.number))
    return list({one.fingerprint: one for one in reversed(ranked)}.values())[::-1]


def _named(study: Study, record: Record, run: str) -> TrialSummary:
    subject = resolve_subject(study, run, "confirm")
    if isinstance(subject, EnsembleSummary):
        numbers = ", ".join(str(member.number) for member in subject.members)
        raise ConfirmationError(
            f"{subject.label} cannot be confirmed: fresh seeds are for configurations, and it averages the weights of "
            f"trials {numbers}. Name one of them with --run"
        )
    if subject is not None:
        return subject
    with TrackingServer(record) as server:
        tracking = Tracking(connect(server.uri), study.name, identity=study.identity)
        return choose_trial(study, trial_of_run(tracking, run), "confirm")


def _cannot(trial: TrialSummary) -> str | None:
    """Why a trial is no finalist: it could not be promoted, or its front end lacks its file here."""
    reason = unexportable_reason(trial.outcome)
    if reason is not None:
        return f"it cannot be promoted ({reason})"
    feature = TrialConfig.from_record(trial.config).feature
    return why_unavailable(feature)


def _val_windows(study: Study, config: TrialConfig) -> str:
    return study.manifests_of(config.data.digest())["val"]
