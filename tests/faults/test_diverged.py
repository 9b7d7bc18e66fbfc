"""Row 21: a training whose numbers are no numbers fails as `diverged`: never best, never a finalist, not tried again."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.selection.choose_finalists import ConfirmationError, choose_finalists
from harness.study.study import StudyError
from tests.faults.small_study import bare_record, ill, run, sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

# NaN, inf and -inf in the loss, in the logits of a judged network, in the score.
SHORT = (
    "loss nan",
    "loss inf",
    "loss -inf",
    "logits nan",
    "logits -inf",
    "score inf",
    "score -inf",
    "score nan",
)
FULL = (*SHORT, "logits inf")


@pytest.mark.row(21)
def test_what_diverged_is_failed_and_never_best(
    full: bool,
    demo_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    measured: Callable[..., None],
) -> None:
    illnesses = FULL if full else SHORT
    record = bare_record(tmp_path)
    ill(monkeypatch, tmp_path / "notes", *illnesses)
    study, said = run(record, demo_cache, sweep(len(illnesses) + 1, epochs=2))  # the last one is well

    *sick, well = sorted(study.trials(), key=lambda trial: float(trial.values["dropout"]))
    right = [trial for trial in sick if trial.state == "failed" and trial.reason.startswith("diverged: ")]
    frozen = study.optuna_study.get_trials(deepcopy=False)
    values = [value for trial in frozen for value in (trial.value, *trial.intermediate_values.values())]
    told = [value for value in values if value is not None and not math.isfinite(value)]
    best = study.best()
    promotable = 0
    for trial in sick:
        try:
            choose_finalists(study, record, str(trial.number), 1, None)
            promotable += 1
        except (ConfirmationError, StudyError):
            pass
    finalists = choose_finalists(study, record, None, len(frozen), None)[0]
    promotable += sum(not arm.is_added and arm.trial != well.number for arm in finalists)
    wrong = [
        f"{trial.values['dropout']}: {trial.state}, {trial.reason}" for trial in sick if trial not in right
    ]
    measured(
        f"{len(right)} of {len(illnesses)} failed as diverged{wrong or ''}, {len(told)} values told that are no numbers, "
        f"best {0 if best == well else 1} times wrong, {promotable} may be confirmed or promoted",
        holds=not wrong and not told and best == well and promotable == 0 and len(frozen) == len(illnesses) + 1
        and not any("going on" in line for line in said),
    )  # fmt: skip
