"""Arms of a study that this machine cannot train: front ends whose file is missing or altered.

They are taken out before the first trial and said; the study keeps its definition. The sampler may still
ask for one (Optuna lets no study change its choices): such a trial is told as skipped, costs no budget and
trains nothing. A later launch looks again: once the file is back, the front end is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.config.trial.trial_config import TrialConfig
from harness.core.errors import RefusedError
from harness.study.storage.trial_attributes import json_attribute
from models.front_ends.build import why_unavailable

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from harness.config.search_space import SearchSpace
    from harness.study.study import Study

SKIPPED = "skipped"  # the state of a trial that was asked of such a front end


class FrontEndsMissingError(RefusedError):
    """No front end of the study can be computed here; no trial was started."""

    def __init__(self, reasons: list[str]) -> None:
        lines = "\n".join(f"  {reason}" for reason in reasons)
        super().__init__(
            f"every arm of this study needs a file that is not here; no trial was started\n{lines}"
        )


def skip_unavailable_front_ends(space: SearchSpace, message: Callable[[str], None]) -> None:
    """Open the file of every front end that has one; take out those that cannot be computed, with a line each.

    Raises
    ------
    FrontEndsMissingError
        Nothing is left.
    """
    for front_end in space.external_front_ends():
        reason = why_unavailable(front_end)
        if reason is not None:
            if reason not in space.skipped.values():  # sliding and whole windows lack the same file
                message(f"skipped: {front_end.kind} ({front_end.external_data}): {reason}")
            space.skipped[front_end] = reason
    if space.skipped and space.nothing_left():
        raise FrontEndsMissingError(list(dict.fromkeys(space.skipped.values())))


def skipped_front_ends(space: SearchSpace) -> list[dict[str, str]]:
    """What was taken out, for `--json` and the launch's run: feature, data (a name with a digest), path, reason."""
    return [
        {
            "feature": front_end.kind,
            "data": front_end.external_data or "",
            "path": str(getattr(front_end, "path", "")),
            "reason": reason,
        }
        for front_end, reason in space.skipped.items()
    ]


def skip_reason(study: Study, frozen: FrozenTrial) -> str | None:
    """Why nobody can go on with an interrupted trial; None where its arm was not taken out."""
    return study.space.reason_to_skip(TrialConfig.from_record(json_attribute(frozen.user_attrs, "config")))


def fail_skipped_trial(study: Study, frozen: FrozenTrial, reason: str) -> None:
    """End an interrupted trial of a skipped arm as failed, with the reason; Optuna lets none that waits be told."""
    from optuna.trial import TrialState

    trial_id = study.trial_id(frozen.number)
    if frozen.state == TrialState.WAITING:
        study.storage.set_trial_state_values(trial_id, TrialState.RUNNING)
    study.storage.set_trial_user_attr(trial_id, "reason", f"skipped: {reason}")
    study.optuna_study.tell(frozen.number, state=TrialState.FAIL)
