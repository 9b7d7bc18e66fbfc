"""A candidate's files, made aside before anybody knows whether they ship, and what the guards say of them so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.config.policy import Policy
from harness.promotion.bundle.files import MODEL
from harness.promotion.bundle.model_variants import Variant, make_variants, measured
from harness.promotion.guards.assessment import pre_test_guards, waveforms_of
from harness.promotion.guards.guard import Guard
from harness.selection.candidate import Candidate
from harness.study.confirmation.conclusion import Confirmation, Replicate
from models.export.specification import Specification

CALIBRATION_WINDOWS = 128


@dataclass(frozen=True)
class Draft:
    """A candidate exported into a folder that is no bundle yet: no evidence, no SHA256SUMS.

    Attributes
    ----------
    folder : holds model.onnx and the files of its variants
    variants : fp32 first; each with its latency, none scored on the test
    guards : the answers of every guard that needs no test window
    """

    candidate: Candidate
    specification: Specification
    folder: Path
    variants: list[Variant]
    guards: list[Guard]


def make_draft(
    candidate: Candidate,
    confirmation: Confirmation | None,
    policy: Policy,
    folder: Path,
    versions: Mapping[str, str],
) -> Draft:
    """Export the files into ``folder`` and ask every guard that needs no test window.

    Parameters
    ----------
    confirmation : the one that speaks of the subject; it counts only where the subject is a seed of it
    versions : of the code and the libraries, for the specification
    """
    specification = candidate.specification(dict(versions))
    model = folder / MODEL
    candidate.export(specification, model)
    variants = make_variants(folder, waveforms_of(candidate.shared, "train", CALIBRATION_WINDOWS))
    device = policy.latency.device
    known = variants[0].latency if device == "cpu" else None  # fp32 was timed there already
    guards = pre_test_guards(
        candidate,
        model,
        known or measured(model, device),
        policy,
        confirmation=confirmation if isinstance(candidate.subject, Replicate) else None,
        faster={one.file: one.latency for one in variants[1:] if one.latency and one.device == device},
    )
    return Draft(candidate, specification, folder, variants, guards)
