"""The frozen test: opened once a promotion, for everybody who stands on it that day.

ledger line (durable) -> candidate -> its variants -> the champion, else the confirmed baseline
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.config.policy import Policy
from harness.metrics.predictions import Predictions
from harness.promotion.bundle.files import MODEL
from harness.promotion.bundle.model_variants import Variant, score_variants
from harness.promotion.draft import Draft
from harness.promotion.guards.assessment import waveforms_of
from harness.promotion.registry.champion import (
    ChallengerComparison,
    Contestant,
    ContestWindows,
    compare_challenger,
    fetch_champion,
)
from harness.selection.candidate import Candidate
from harness.selection.ensemble_members import ONNX
from harness.study.confirmation.conclusion import Confirmation, Finalist, Replicate
from harness.study.ensembles import EnsembleSummary
from harness.study.storage.frozen_test_log import OpeningCounts, record_test_opening
from harness.study.storage.record import Record
from harness.tracking.artifacts import fetch
from harness.tracking.experiment import Tracking
from models.onnx_io.session import open_session, run_onnx


@dataclass(frozen=True)
class Opponent:
    """Whom the candidate must beat: the champion's file, or the confirmed baseline's.

    Attributes
    ----------
    model : its ONNX file, held against its digest
    macs : multiply-accumulates of one window; None where they are not known
    run_id : the MLflow run that trained it
    version : of the champion in the registry; None of a baseline
    notes : what a reader of the comparison must know
    incomparable : why its answers mean nothing on the candidate's windows; empty where they do
    """

    label: str
    model: Path
    macs: int | None
    run_id: str
    version: str | None = None
    notes: tuple[str, ...] = ()
    incomparable: str = ""

    @property
    def is_champion(self) -> bool:
        """Whether its alias is at stake; a baseline only shows what the search was worth."""
        return self.version is not None


@dataclass(frozen=True)
class FrozenTest:
    """What everybody said on the test windows, which were opened once for all of them.

    Attributes
    ----------
    predictions : the candidate's, of model.onnx on every test window
    variants : every file of the model, scored on the same windows; those that lose too much are left out
    opponent, contest : whom it met and how that ended; None where nobody was there to beat
    openings : how often these windows have been looked at, this time included
    """

    predictions: Predictions
    variants: tuple[Variant, ...]
    opponent: Opponent | None
    contest: ChallengerComparison | None
    openings: OpeningCounts

    @property
    def wins(self) -> bool:
        """Whether the candidate takes the alias `champion`: nobody holds it, or its holder was beaten."""
        return (
            self.opponent is None or not self.opponent.is_champion or bool(self.contest and self.contest.wins)
        )


def opponent_of(
    draft: Draft, confirmation: Confirmation | None, tracking: Tracking, folder: Path
) -> Opponent | str | None:
    """The champion of the candidate's name, else the baseline of its confirmation, or why that cannot be compared with.

    None where nobody is there to beat: no champion, and no confirmation or the candidate is its baseline.

    Parameters
    ----------
    folder : where the opponent's file is downloaded to; made here

    Raises
    ------
    ArtifactError
        The champion is not what was registered; nothing of it is loaded.
    """
    candidate = draft.candidate
    champion = fetch_champion(tracking, candidate.registered_name, folder)
    if champion is not None:
        values = draft.specification.model_dump(mode="json")
        return Opponent(
            label=champion.label,
            model=champion.model,
            macs=champion.macs,
            run_id=champion.registered.source_run,
            version=champion.version,
            notes=tuple(champion.notes_against(values)),
            incomparable=champion.incomparable_with(values),
        )
    if confirmation is None or confirmation.baseline.fingerprint == candidate.subject.fingerprint:
        return None
    return baseline_opponent(confirmation.baseline, tracking, folder)


def baseline_opponent(baseline: Finalist, tracking: Tracking, folder: Path) -> Opponent | str:
    """The confirmed baseline's median seed, fetched into ``folder``; or why it cannot be compared with, for a guard."""
    if not baseline.ranked:
        return f"not every seed of it has a score ({'; '.join(baseline.failed)})"
    if ONNX not in baseline.shipped.outcome["sha256"]:
        return f"its median seed has no ONNX file ({baseline.shipped.outcome.get('promotable', 'no reason recorded')})"
    run_id = tracking.find(baseline.shipped.key)
    if run_id is None:
        return f"MLflow has no run of {baseline.shipped.label}; harness confirm stores what is left"
    folder.mkdir(parents=True, exist_ok=True)
    model = fetch(tracking.client, run_id, ONNX, baseline.shipped.outcome["sha256"][ONNX], folder)
    return Opponent(f"the baseline ({baseline.shipped.label})", model, baseline.macs, run_id)


def open_frozen_test(
    draft: Draft, opponent: Opponent | None, policy: Policy, record: Record, started: str
) -> FrozenTest:
    """Write the opening down, then score candidate, variants and opponent on the same windows.

    Parameters
    ----------
    started : when the promotion began, ISO 8601, for the ledger
    """
    candidate, manifest = draft.candidate, draft.candidate.shared.test.manifest
    labels, clusters = manifest.labels(), manifest.clusters()
    ours = open_session(draft.folder / MODEL)  # what cannot be opened must not cost an opening of the test
    theirs = open_session(opponent.model) if opponent is not None else None
    openings = record_test_opening(
        record.root,
        candidate.study.name,
        _ledger_mark(candidate),
        manifest.digest,
        subject=candidate.subject.label,
        policy=policy.name,
        promotion=started,
    )
    windows = waveforms_of(candidate.shared, "test")
    predictions = Predictions(run_onnx(ours, windows), labels, clusters)
    scored = score_variants(
        draft.variants, draft.folder, windows, labels, clusters, policy.variants, canonical=predictions.logits
    )
    met: ChallengerComparison | None = None
    if opponent is not None and theirs is not None:
        answers = Predictions(run_onnx(theirs, windows), labels, clusters)
        met = compare_challenger(
            Contestant(candidate.subject.label, predictions.correct, candidate.macs, candidate.run_id),
            Contestant(opponent.label, answers.correct, opponent.macs, opponent.run_id),
            ContestWindows(clusters, manifest.subsets()),
            policy.champion,
            incomparable=opponent.incomparable,
            notes=opponent.notes,
        )
    return FrozenTest(predictions, tuple(scored), opponent, met, openings)


def _ledger_mark(candidate: Candidate) -> int | str:
    """What the ledger calls the subject: a trial's number, else its label."""
    subject = candidate.subject
    if isinstance(subject, EnsembleSummary | Replicate):
        return subject.label
    return subject.number
