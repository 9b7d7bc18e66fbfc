"""A candidate under a policy: every guard, those that need no test windows first, and the refusal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from data.plugins import load_plugins
from harness.core.errors import RefusedError
from harness.metrics.predictions import Predictions
from harness.promotion.guards import (
    control_guards,
    decision_guards,
    origin_guards,
    prediction_guards,
    serving_guards,
)
from harness.promotion.guards.facts import CandidateFacts, Facts, FrozenTestFacts, Parity, StudyFacts
from harness.promotion.guards.guard import Guard, refuses
from harness.promotion.guards.rule import GUARDS, GuardRule
from models.onnx_io.session import open_session, run_onnx

if TYPE_CHECKING:
    from data.parts import Split
    from data.preparation.prepare import Prepared
    from harness.config.policy import Policy
    from harness.promotion.bundle.latency import Latency
    from harness.selection.candidate import Candidate
    from harness.study.confirmation.conclusion import Confirmation
    from harness.study.study import Study

# The order of evidence.json, in which guards of plug-ins come last, whatever was imported first.
OWN = [
    module.__name__
    for module in (origin_guards, prediction_guards, control_guards, serving_guards, decision_guards)
]
PARITY_WINDOWS = 256
GOLDEN_WINDOWS = 8
OTHERWISE = "The confirmation chose it: mend that, or name another with --run."


class GuardRefusedError(RefusedError):
    """A policy refused; the message says which guards failed, and whether anything was changed.

    Attributes
    ----------
    guards : every guard that was asked
    refused : those of them that failed and bind
    opened : whether the frozen test was, which the ledger of openings keeps

    Parameters
    ----------
    chosen : a confirmation chose the subject, and nobody named it: another one can be
    fingerprint : of the subject, by which `harness why` finds the refusal
    """

    def __init__(
        self,
        study: str,
        subject: str,
        guards: Sequence[Guard],
        policy: Policy,
        *,
        opened: bool = False,
        chosen: bool = False,
        fingerprint: str = "",
    ) -> None:
        self.study, self.subject, self.policy, self.opened = study, subject, policy, opened
        self.guards, self.fingerprint = list(guards), fingerprint
        self.refused = [guard for guard in guards if refuses(policy, guard)]
        changed = "nothing but the test's ledger was changed" if opened else "nothing was changed"
        head = f"{subject} of {study} is refused under policy {policy.name}; {changed}"
        tail = [OTHERWISE] if chosen else []
        super().__init__("\n".join([head, *(f"  {guard}" for guard in self.refused), *tail]))


def require_guards_pass(
    study: str,
    subject: str,
    guards: Sequence[Guard],
    policy: Policy,
    *,
    opened: bool = False,
    chosen: bool = False,
    fingerprint: str = "",
) -> None:
    """Raise GuardRefusedError, which explains the arguments, where the policy refuses any of the guards."""
    if any(refuses(policy, guard) for guard in guards):
        raise GuardRefusedError(
            study, subject, guards, policy, opened=opened, chosen=chosen, fingerprint=fingerprint
        )


def every_guard() -> list[GuardRule]:
    """The guards of the harness and then those of plug-ins, each in the order of their declaration."""
    load_plugins()

    def place(rule: GuardRule) -> int:
        module = rule.judge.__module__
        return OWN.index(module) if module in OWN else len(OWN)

    return sorted(GUARDS.values(), key=place)


def ask(seen: Facts) -> list[Guard]:
    """The answers of every guard that looks at such facts, or at a base class of them, in the order of the list."""
    return [one for rule in every_guard() if isinstance(seen, rule.facts) for one in rule.ask(seen)]


def study_guards(study: Study, prepared: Sequence[Prepared], policy: Policy) -> list[Guard]:
    """What is known before anything more is trained: the data, the clusters of the test, the controls."""
    return ask(StudyFacts(policy=policy, study=study, prepared=prepared))


def pre_test_guards(
    candidate: Candidate,
    model: Path,
    latency: Latency | str,
    policy: Policy,
    *,
    confirmation: Confirmation | None,
    parity: Parity | None = None,
    faster: Mapping[str, Latency] | None = None,
) -> list[Guard]:
    """Every guard that needs no test window; the test stays closed where one of them refuses.

    `parity` is what `compare` found, where it was asked already; the others are those of CandidateFacts.
    """
    return ask(
        CandidateFacts(
            policy=policy,
            subject=candidate.subject,
            study=candidate.study,
            prepared=candidate.prepared,
            candidate=candidate,
            model=model,
            parity=parity or check_parity(candidate, model),
            latency=latency,
            confirmation=confirmation,
            faster=faster or {},
        )
    )


def post_test_guards(candidate: Candidate, test: Predictions, policy: Policy) -> list[Guard]:
    """What the opened test says of the candidate: (window, class) logits against labels, once they are known."""
    return ask(FrozenTestFacts(policy=policy, candidate=candidate, test=test))


def check_parity(candidate: Candidate, model: Path) -> Parity:
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
    return Parity(difference, same, len(waveforms))


def waveforms_of(prepared: Prepared, split: Split, count: int | None = None) -> npt.NDArray[np.float32]:
    """All windows of a split, or `count` from end to end (a split is in speaker order): (window, 48000) in [-1, 1)."""
    windows = prepared.splits[split].windows()
    if count is not None and count < len(windows):
        windows = windows[np.linspace(0, len(windows) - 1, count).astype(int)]
    return windows.astype(np.float32) / np.float32(32768)
