"""A candidate under a policy: every guard, those that need no test windows first, and the refusal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from data.audit.audit import audit
from data.audit.check import Check
from data.tasks import TASKS
from harness.config.trial_config import TrialConfig
from harness.core.errors import RefusedError
from harness.metrics.predictions import Predictions
from harness.promotion.guards.guard import Guard, refuses
from harness.promotion.guards.prediction_guards import frozen_guards, gap_guard, prediction_guards
from harness.promotion.guards.serving_guards import (
    cluster_guard,
    confirmation_guard,
    label_map_guard,
    parity_guard,
    promotable_guard,
    provider_guard,
    speed_guard,
    study_control_guards,
)
from harness.selection.choose_finalists import confirmable_trials
from harness.study.controls import controls_of
from harness.study.ensembles import EnsembleSummary
from models.onnx_io.session import open_session, run_onnx

if TYPE_CHECKING:
    from data.parts import Split
    from data.preparation.prepare import Prepared
    from harness.config.policy import Policy
    from harness.promotion.bundle.latency import Latency
    from harness.selection.candidate import Candidate
    from harness.study.confirmation.conclusion import Confirmation
    from harness.study.study import Study

PARITY_WINDOWS = 256
GOLDEN_WINDOWS = 8
OTHERWISE = "The confirmation chose it: mend that, or name another with --run."


class GuardRefusedError(RefusedError):
    """A policy refused; `guards` holds every guard that was asked, `opened` whether the test was.

    `chosen` says that a confirmation chose the subject, and nobody named it.
    """

    def __init__(
        self, study: str, subject: str, guards: Sequence[Guard], policy: Policy, *, opened: bool = False,
        chosen: bool = False, fingerprint: str = "",
    ) -> None:  # fmt: skip
        self.study, self.subject, self.policy, self.opened = study, subject, policy, opened
        self.guards, self.fingerprint = list(guards), fingerprint
        self.refused = [guard for guard in guards if refuses(policy, guard)]
        changed = "nothing but the test's ledger was changed" if opened else "nothing was changed"
        head = f"{subject} of {study} is refused under policy {policy.name}; {changed}"
        tail = [OTHERWISE] if chosen else []
        super().__init__("\n".join([head, *(f"  {guard}" for guard in self.refused), *tail]))


def require(
    study: str, subject: str, guards: Sequence[Guard], policy: Policy, *, opened: bool = False,
    chosen: bool = False, fingerprint: str = "",
) -> None:  # fmt: skip
    """Raise GuardRefusedError where the policy refuses any of the guards."""
    if any(refuses(policy, guard) for guard in guards):
        raise GuardRefusedError(
            study, subject, guards, policy, opened=opened, chosen=chosen, fingerprint=fingerprint
        )


@dataclass(frozen=True)
class ParityCheck:
    """Whether the exported file says what torch says, and golden examples of what it says.

    waveforms : (window, 48000) float32, real validation windows
    logits : (window, 2) float32, of the exported file
    """

    guard: Guard
    waveforms: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]


def pre_test_guards(
    candidate: Candidate,
    model: Path,
    latency: Latency | str,
    policy: Policy,
    *,
    confirmation: Confirmation | None,
    parity: ParityCheck | None = None,
    faster: Mapping[str, Latency] | None = None,
) -> list[Guard]:
    """Every guard that needs no test window; the test stays closed where one of them refuses.

    Parameters
    ----------
    model : the exported file
    latency : of that file on the policy's device, or why it could not be measured there
    confirmation : the one whose seed the subject is; None where it is none
    parity : what `compare` found, where it was asked already
    faster : latencies of other files of the model, to recommend one that is within the bound
    """
    parity = parity or compare(candidate, model, policy)
    return [
        *(promotable_guard(member.outcome) for member in candidate.subject.members),
        *data_guards(candidate.prepared),
        *(_label_guard(candidate, one) for one in candidate.prepared),
        *_learning_guards(candidate, policy),
        parity.guard,
        cluster_guard(len(set(candidate.shared.test.manifest.clusters())), policy),
        *study_control_guards(controls_of(candidate.study)),
        provider_guard(latency, policy.latency),
        speed_guard(latency, policy.latency, faster),
        *([_confirmation_guard(candidate, confirmation, policy)] if policy.confirmation.required else []),
    ]


def _confirmation_guard(candidate: Candidate, confirmation: Confirmation | None, policy: Policy) -> Guard:
    ensemble = isinstance(candidate.subject, EnsembleSummary)
    return confirmation_guard(
        confirmation, policy.confirmation, confirmable_trials(candidate.study), ensemble=ensemble
    )


def post_test_guards(candidate: Candidate, test: Predictions, policy: Policy) -> list[Guard]:
    """What the opened test says of the candidate."""
    data = candidate.data
    return frozen_guards(test, policy, negative_control=TASKS[data.task].negative_control(data.variant))


def compare(candidate: Candidate, model: Path, policy: Policy) -> ParityCheck:
    """Hold the exported file against torch on real validation windows, 256 or all where there are fewer."""
    import torch

    waveforms = waveforms_of(candidate.shared, "val", PARITY_WINDOWS)
    module = candidate.module()
    with torch.no_grad():
        parts = [module(torch.from_numpy(waveforms[i : i + 32])) for i in range(0, len(waveforms), 32)]
    reference = torch.cat(parts).numpy()
    logits = run_onnx(open_session(model), waveforms)
    difference = float(np.abs(logits - reference).max())
    same = bool((logits.argmax(axis=1) == reference.argmax(axis=1)).all())
    guard = parity_guard(difference, same, len(waveforms), policy.integrity.max_logit_difference)
    return ParityCheck(guard, waveforms[:GOLDEN_WINDOWS], logits[:GOLDEN_WINDOWS])


def waveforms_of(prepared: Prepared, split: Split, count: int | None = None) -> npt.NDArray[np.float32]:
    """All windows of a split, or `count` from end to end (a split is in speaker order): (window, 48000) in [-1, 1)."""
    windows = prepared.splits[split].windows()
    if count is not None and count < len(windows):
        windows = windows[np.linspace(0, len(windows) - 1, count).astype(int)]
    return windows.astype(np.float32) / np.float32(32768)


def data_guards(prepared: Iterable[Prepared]) -> list[Guard]:
    """The data gate once more, on the windows as they are now."""
    checks = [check for one in prepared for check in audit(one).checks if check.level == "refuse"]
    return [_of_check(check) for check in checks]


def study_guards(study: Study, prepared: Sequence[Prepared], policy: Policy) -> list[Guard]:
    """What is known before anything more is trained: the data, the clusters of the test, the controls."""
    clusters = len(set(prepared[0].test.manifest.clusters()))
    return [
        *data_guards(prepared),
        cluster_guard(clusters, policy),
        *study_control_guards(controls_of(study)),
    ]


def _of_check(check: Check) -> Guard:
    advice = f"{check.message[:1].upper()}{check.message[1:]}."
    if check.name.startswith("label share"):
        advice += " The gate let only balanced windows pass: restore the corpus, or prepare the data again."
    return Guard(check.name, "integrity", check.ok, _plain(check.measured), check.bound, advice)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        nested = any(isinstance(inner, dict) for inner in value.values())
        return ("; " if nested else ", ").join(
            f"{key}: {_plain(inner)}" if nested else f"{inner} {key}" for key, inner in value.items()
        )
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    return text[:12] if len(text) == 64 else text  # a digest


def _label_guard(candidate: Candidate, prepared: Prepared) -> Guard:
    """The label map of the training, wherever it was recorded, against that of now, and the labels against both."""
    return label_map_guard(
        dict(_recorded_maps(candidate, prepared)), prepared.label_map.digest, _relabelled(prepared)
    )


def _recorded_maps(candidate: Candidate, prepared: Prepared) -> Iterator[tuple[str, str]]:
    """What the worker saw, told in the outcome, and what the study's data gate saw."""
    for member in candidate.subject.members:
        config = TrialConfig.model_validate(member.config).data
        if "label_map" in member.outcome and config.digest() == prepared.config.digest():
            yield f"when {member.label} was trained", str(member.outcome["label_map"])
    own = prepared.config.model_dump(mode="json")
    for one in candidate.study.optuna_study.user_attrs.get("audits", []):
        if one.get("config") == own and "label_map_digest" in one:
            yield "at the study's data gate", str(one["label_map_digest"])


def _relabelled(prepared: Prepared) -> int:
    """Windows whose label is not their speaker's class; of other tasks labels come from who speaks when."""
    if prepared.config.task != "pseudo":
        return 0
    classes = prepared.label_map.classes
    windows = (window for part in prepared.splits.values() for window in part.manifest.windows)
    return sum(window.label != classes.get(window.speaker) for window in windows)


def _learning_guards(candidate: Candidate, policy: Policy) -> list[Guard]:
    """What the run's own predictions say, taken on the weights that are promoted."""
    with np.load(candidate.folder / "predictions.npz", allow_pickle=False) as stored:
        train, val = (
            Predictions(stored[f"{s}_logits"], stored[f"{s}_labels"], list(stored[f"{s}_clusters"]))
            for s in ("train", "val")
        )
    accuracies = [list(member.outcome["val_accuracy"]) for member in candidate.subject.members]
    return [*prediction_guards(train, val, *accuracies, policy=policy), gap_guard(train, val, policy)]
