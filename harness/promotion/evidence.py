"""evidence.json: everything a promotion was decided on, for programs; the card says the same to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from harness.config.files.policy_file import load_policy
from harness.config.policy import Policy
from harness.config.trial.trial_config import TrialConfig
from harness.metrics.by_subset import scores_by_subset
from harness.metrics.classification import expected_calibration_error, softmax
from harness.metrics.predictions import Predictions
from harness.promotion.bundle.files import MODEL, golden_of
from harness.promotion.bundle.machine import machine
from harness.promotion.bundle.model_variants import Variant
from harness.promotion.draft import Draft
from harness.promotion.frozen_test_set import FrozenTest, Opponent
from harness.promotion.guards.assessment import GOLDEN_WINDOWS, waveforms_of
from harness.promotion.guards.guard import Guard
from harness.selection.candidate import Candidate
from harness.study.choose_trial import Subject
from harness.study.confirmation.conclusion import Confirmation, Replicate
from harness.study.ensembles import OPTIMISM, EnsembleSummary
from harness.study.leaderboard import comparable_trials, expected_optimism, rank_of
from harness.tracking.run_header import external_tags, external_weights
from models.onnx_io.session import open_session, run_onnx

UNCONFIRMED = "unconfirmed: chosen by validation score, not retrained on fresh seeds"
# How far golden logits may be off on another machine. fp16 is computed otherwise on a GPU than between casts on a CPU;
# int8 may round a step elsewhere on another CPU: for those it is also twice what they differ from fp32.
GOLDEN_TOLERANCE = {"fp32": 1e-4, "fp16": 0.02, "int8": 0.1}


def evidence_of(
    draft: Draft,
    confirmation: Confirmation | None,
    policy: Policy,
    guards: Sequence[Guard],
    test: FrozenTest,
) -> dict[str, Any]:
    """The whole of evidence.json, in plain JSON types (floats may be NaN or infinite: writing makes them null).

    Parameters
    ----------
    confirmation : the one that speaks of the subject; written down only where the subject is a seed of it
    guards : every guard that was asked, before the test and after, in the order of the list of guards
    """
    candidate, specification = draft.candidate, draft.specification
    confirmed = confirmation if isinstance(candidate.subject, Replicate) else None
    fp32 = next(variant for variant in test.variants if variant.name == "fp32")
    return {
        **_identity(candidate, confirmed, test.opponent),
        **_data(candidate),
        **_test(candidate, test),
        "specification": specification.model_dump(mode="json"),
        "manifests": specification.manifest_digests,
        "label_map_digest": specification.label_map_digest,
        "policy": policy.model_dump(mode="json"),
        "policy_differences": policy.differences_from(load_policy("default")),
        "confirmation": confirmed.as_json() if confirmed else None,
        "champion": test.contest.as_json() if test.contest else None,
        # A baseline serves nobody: the winner is champion all the same, and its guard says what the search was worth.
        "alias": "champion" if test.wins else "challenger",
        "seen_champion": test.opponent.version if test.opponent else None,
        "mark": subject_tags(candidate.subject),
        "macs": candidate.macs,
        "parameters": _parameters(candidate),
        "machine": {**machine(), "load": fp32.latency.load if fp32.latency else None},
        "latency": asdict(fp32.latency) if fp32.latency else None,
        "variants": [_variant(variant) for variant in test.variants],
        "guards": [guard.as_json() for guard in guards],
    }


def golden_outputs(
    candidate: Candidate, folder: Path, variants: Sequence[Variant]
) -> tuple[Any, dict[str, Any]]:
    """What any runtime must repeat: windows, and the logits that each file that ships gives for them here.

    They are of the validation split: a bundle holds none of the frozen test.

    Returns
    -------
    windows : (window, 48000) float32 in [-1, 1), 8 of them
    logits : file name -> (window, 2) float32
    """
    windows = waveforms_of(candidate.shared, "val", GOLDEN_WINDOWS)
    files = [variant.file for variant in variants if variant.included]
    return windows, {file: run_onnx(open_session(folder / file), windows) for file in files}


def confirmation_stamp(subject: Subject, confirmation: Confirmation | None) -> str:
    """One line on what the choice rests on: a confirmation on fresh seeds, or the validation score alone."""
    if confirmation is None:
        return UNCONFIRMED
    (own,) = (one for one in confirmation.finalists if one.fingerprint == subject.fingerprint)
    spread, seeds = own.spread, confirmation.seeds
    assert spread is not None, "a finalist without a score on every seed does not ship"
    median = "lower median" if seeds % 2 == 0 else "median"
    choice = (
        ""
        if own is confirmation.winner
        else f"; asked for, the confirmation chose {confirmation.winner.label}"
    )
    return (
        f"confirmed: {own.label} has mean {spread.mean:.3f} (sd {spread.sd:.3f}) over {seeds} fresh seeds; the seed "
        f"with the {median} validation score ships{choice}"
    )


def _identity(
    candidate: Candidate, confirmation: Confirmation | None, opponent: Opponent | None
) -> dict[str, Any]:
    study, subject = candidate.study, candidate.subject
    others = comparable_trials(study, subject)
    ensemble = isinstance(subject, EnsembleSummary)
    external = external_weights(TrialConfig.from_record(member.config) for member in subject.members)
    # A confirmed seed was not chosen among trials, only as the median of a few: there is no curse to predict.
    rank = 1 if isinstance(subject, EnsembleSummary) or confirmation else rank_of(subject, others)
    luck = None if confirmation else expected_optimism(subject, len(others), rank)
    return {
        "study": study.name,
        "registered_name": candidate.registered_name,
        "stamp": confirmation_stamp(subject, confirmation),
        "confirmed": confirmation is not None,
        "promoted": datetime.now(UTC).isoformat(timespec="seconds"),
        "subject": subject.label,
        "configuration": subject.configuration,
        "score_is": "one look" if ensemble else "best trailing 3-epoch median",
        "trial": subject.as_json(),
        "rank": rank,
        "trials_compared": len(others),
        "optimism": luck,
        "run_id": candidate.run_id,
        "external_weights": external,
        "limits": [
            *([OPTIMISM] if ensemble else []),
            *(f"holds external weights: {one}" for one in external),
            *([opponent.incomparable] if opponent and opponent.incomparable else []),
            *(opponent.notes if opponent else ()),
        ],
    }


def subject_tags(subject: Subject) -> dict[str, str]:
    """Tags by which a promotion and a version name what they are made of: a trial (with its seed) or an ensemble."""
    external = external_tags(TrialConfig.from_record(member.config) for member in subject.members)
    if isinstance(subject, EnsembleSummary):
        return {"harness.ensemble": subject.name, **external}
    number = "baseline" if subject.number < 0 else str(subject.number)
    replicate = {"harness.replicate": str(subject.replicate)} if isinstance(subject, Replicate) else {}
    return {"harness.trial": number, **replicate, **external}


def _parameters(candidate: Candidate) -> int:
    """Trained parameters, of all members together."""
    configs = [TrialConfig.from_record(member.config) for member in candidate.subject.members]
    return sum(
        one.model.num_parameters(one.feature.num_features, num_frames=one.feature.num_frames())
        for one in configs
    )


def _data(candidate: Candidate) -> dict[str, Any]:
    prepared = candidate.shared
    windows = {split: len(part.manifest) for split, part in sorted(prepared.splits.items())}
    windows["train"] = sum(len(one.splits["train"].manifest) for one in candidate.prepared)
    subsets = "+".join(dict.fromkeys(one.config.subset for one in candidate.prepared))
    return {
        "data": {**candidate.data.model_dump(mode="json"), "subset": subsets},
        "split_rule": prepared.split_rule,
        "flags": list(dict.fromkeys(flag for one in candidate.prepared for flag in one.flags)),
        "windows": windows,
    }


def _test(candidate: Candidate, test: FrozenTest) -> dict[str, Any]:
    predictions = test.predictions
    return {
        "test": asdict(predictions.interval()),
        "test_by_subset": scores_by_subset(predictions.correct, candidate.shared.test.manifest),
        "test_by_cluster": by_cluster(predictions),
        "ece": expected_calibration_error(softmax(predictions.logits), predictions.labels),
        "test_openings": test.openings.by_study,
        "test_openings_by_all": test.openings.by_all,
    }


def by_cluster(predictions: Predictions) -> dict[str, dict[str, float]]:
    """Windows and accuracy (0 to 1) of each cluster (a speaker, a group of speakers, a meeting series), by its name."""
    clusters, correct = np.asarray(predictions.clusters), predictions.correct
    found: Mapping[str, Any] = {
        str(name): correct[clusters == name] for name in sorted(set(clusters.tolist()))
    }
    return {name: {"windows": len(right), "accuracy": float(right.mean())} for name, right in found.items()}


def _variant(variant: Variant) -> dict[str, Any]:
    tolerance = GOLDEN_TOLERANCE[variant.name]
    if variant.file != MODEL:
        tolerance = max(tolerance, 2 * (variant.max_logit_difference or 0.0))
    golden = golden_of(variant.file) if variant.included else None
    return {**variant.as_json(), "golden": golden, "golden_tolerance": tolerance}
