"""Which configurations are confirmed: the best complete trials, or the one that is named, and the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness.baseline import baseline_of
from harness.choosing import choose, expected_luck, subject_named, trial_of_run
from harness.confirmation_record import Arm
from harness.ensemble_record import EnsembleSummary
from harness.parameters import Scalar
from harness.record import Record
from harness.run_page import run_name
from harness.server import TrackingServer
from harness.serving_guards import promotable_guard
from harness.study import Study, TrialSummary
from harness.tracking import Tracking, connect
from harness.trial_config import TrialConfig


class ConfirmationError(ValueError):
    """What cannot be confirmed as it was asked for."""


def arms_of(
    study: Study, record: Record, run: str | None, count: int, baseline: Mapping[str, Scalar] | None
) -> tuple[list[Arm], list[str]]:
    """What is trained on fresh seeds, best score first, the baseline among it; and a line for each that is left out.

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
    compared = sum(one.state in ("complete", "pruned") for one in study.trials())
    arms = [
        Arm(
            trial.name, TrialConfig.model_validate(trial.config), trial.values, trial.number, trial.score,
            expected_luck(trial, compared),
        )
        for trial in trials[:count]
    ]  # fmt: skip
    return with_baseline(study, arms, baseline), notes


def with_baseline(study: Study, arms: list[Arm], given: Mapping[str, Scalar] | None) -> list[Arm]:
    """The arms with the baseline marked where it is one of them, else added."""
    values, config = baseline_of(study.space, given)
    if _val_windows(study, config) != _val_windows(
        study, arms[0].config
    ):  # scores compare on the same windows only
        config = config.model_copy(update={"data": arms[0].config.data})
    if any(arm.fingerprint == config.fingerprint() for arm in arms):
        return [replace(arm, is_baseline=arm.fingerprint == config.fingerprint()) for arm in arms]
    name = f"baseline {run_name(0, values, study.space.searched).partition(' ')[2]}"
    return [*arms, Arm(name, config, values, is_baseline=True)]


def _best(study: Study, count: int) -> list[TrialSummary]:
    """The complete trials from best to worst, as far as `count` of them can be confirmed."""
    choose(study, None)  # refuses where they do not compare
    complete = [one for one in study.trials() if one.state == "complete" and one.score is not None]
    ranked = sorted(complete, key=lambda one: (-(one.score or 0.0), one.number))
    distinct = list({one.fingerprint: one for one in reversed(ranked)}.values())[::-1]
    able = [one for one in distinct if _cannot(one) is None][:count]
    last = distinct.index(able[-1]) + 1 if able else len(distinct)
    return distinct[:last]


def _named(study: Study, record: Record, run: str) -> TrialSummary:
    subject = subject_named(study, run)
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
        return choose(study, trial_of_run(tracking, run))


def _cannot(trial: TrialSummary) -> str | None:
    """Why a trial is no finalist: it could not be promoted, or its front end lacks its file here."""
    guard = promotable_guard(trial.outcome)
    if not guard.ok:
        return f"it cannot be promoted ({trial.outcome.get('promotable')})"
    feature = TrialConfig.model_validate(trial.config).feature
    return feature.problem() if feature.external else None


def _val_windows(study: Study, config: TrialConfig) -> str:
    return study.manifests_of(config.data.digest())["val"]
