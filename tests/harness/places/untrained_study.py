"""A study whose trials are told, not trained: what a sweep would have left, for all that only reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from harness.config.sweep import Sweep
from harness.config.trial.trial_config import TrialConfig
from harness.study.confirmation.conclusion import Confirmation, Finalist, Replicate, conclude
from harness.study.storage.record import Record
from harness.study.study import Study, open_study

MFCC = {"feature": "mfcc", "width": 0.125}
WAVE = {"feature": "waveform", "width": 0.125}


def definition(**changes: Any) -> Sweep:
    base = {
        "name": "told",
        "data": {"train_windows": 240, "val_windows": 96, "test_windows": 96},
        "parameters": {"feature": ["waveform", "mfcc"], "width": [0.125, 0.25, 1.0]},
        "pruner": "none",
    }
    return Sweep.model_validate(base | changes)


def outcome(score: float, **changes: Any) -> dict[str, Any]:
    """As a worker's, of a training whose score is `score`."""
    return {
        "state": "complete", "score": score, "best_epoch": 0, "epochs": 3, "lag1": 0.0, "device": "cpu",
        "at_best": {"val/balanced_accuracy": score, "val/predicted_positive": 0.5}, "sha256": {},
        "interval": {"low": 0.4, "high": 0.9, "windows": 96, "clusters": 24, "icc": 0.0, "n_eff": 96.0},
        "promotable": "yes", **changes,
    }  # fmt: skip


def finished_study(
    record: Record, trials: Sequence[tuple[dict[str, Any], dict[str, Any]]], **changes: Any
) -> Study:
    """A study with complete trials of these values and outcomes; its lock is free again."""
    study = open_study(record, definition(**changes))
    study.check_manifests(
        {
            config.digest(): dict.fromkeys(("train", "val", "test"), "0" * 64)
            for config in study.space.data_configs()
        }
    )
    add_complete_trials(study, trials)
    study.release()
    return study


def add_complete_trials(study: Study, trials: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Add complete trials of these values and outcomes."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for number, (values, one) in enumerate(trials, len(study.trials())):
        config = study.space.config(values)
        attributes = {
            "name": f"{number:03d}", "values": values, "config": config.model_dump(mode="json"),
            "fingerprint": config.fingerprint(), "outcome": one,
        }  # fmt: skip
        study.optuna_study.add_trial(
            create_trial(state=TrialState.COMPLETE, value=one["score"], user_attrs=attributes)
        )


def confirm_trials(
    study: str, seeds: int, finalists: Sequence[tuple[int, str, float]], *, named: bool = False
) -> Confirmation:
    """Trials of these numbers, fingerprints and sweep scores on fresh seeds; the first is the baseline as well."""
    made = []
    for number, fingerprint, score in finalists:
        replicates = tuple(
            Replicate(number, "complete", "n", score, 1, "", {}, outcome(score), {}, fingerprint, seed, "k")
            for seed in range(1, seeds + 1)
        )
        made.append(
            Finalist(
                f"trial {number}",
                "n",
                TrialConfig(),
                fingerprint,
                1,
                number,
                score,
                0.01,
                not made,
                replicates,
            )
        )
    found = conclude(study, seeds, made, named=named)
    assert found is not None
    return found
