"""Promotion: guards -> the frozen test, once -> against the champion -> bundle -> registry. It never trains.

subject                what --run names, else the confirmed winner, else the best trial
candidate              its weights and windows, held against their digests; model.onnx and variants aside
guards before the test refused? nothing was changed                       (--dry-run ends here)
frozen test            opened once, for candidate, variants, and champion or confirmed baseline
guards of the test     refused? only the ledger of openings knows of it
bundle                 written aside, verified, registered, verified again, aliases, put in place
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data.preparation.prepare import prepare
from harness.config.policy import Policy
from harness.core.failpoints import failpoint
from harness.core.files import to_share
from harness.core.provenance import Provenance, provenance
from harness.core.settings import Settings
from harness.promotion.bundle.card import card_of
from harness.promotion.bundle.files import MODEL, SUMS
from harness.promotion.bundle.model_variants import Variant, make_variants, measured
from harness.promotion.bundle.verify import verify
from harness.promotion.bundle.write import write_bundle
from harness.promotion.evidence import evidence_of, golden_outputs
from harness.promotion.finish import (
    Promotion,
    finish_promotion,
    has_unfinished_promotion,
    require_bundle_folders,
    staging_folder,
)
from harness.promotion.frozen_test_set import FrozenTest, open_frozen_test, opponent_of
from harness.promotion.guards.assessment import (
    GuardRefusedError,
    ask,
    post_test_guards,
    pre_test_guards,
    require_guards_pass,
    waveforms_of,
)
from harness.promotion.guards.facts import ContestFacts, SubjectFacts
from harness.promotion.guards.guard import Guard, refuses
from harness.selection.candidate import Candidate, data_configs, fetch_candidate
from harness.study.choose_trial import Subject, choose_trial, resolve_subject
from harness.study.confirmation.conclusion import (
    Confirmation,
    Replicate,
    confirmation_of,
    confirmation_progress,
)
from harness.study.decisions import Decision, add_decision
from harness.study.ensembles import EnsembleSummary
from harness.study.storage.promotion_lock import PromotionError, only_promotion
from harness.study.storage.record import Record
from harness.study.study import Study, load_study
from harness.study.trials import TrialSummary
from harness.tracking.experiment import Tracking, connect
from harness.tracking.run_files import trial_of_run
from harness.tracking.server.server import TrackingServer
from models.export.specification import Specification

CALIBRATION_WINDOWS = 128


@dataclass(frozen=True)
class Review:
    """A study's subject held against the guards; all that `--dry-run` shows."""

    study: str
    subject: Subject
    policy: Policy
    guards: list[Guard]

    @property
    def refused(self) -> bool:
        """Whether a guard that binds has failed."""
        return any(refuses(self.policy, guard) for guard in self.guards)


@dataclass(frozen=True)
class _PromotionContext:
    """Where a promotion works, and whom it tells."""

    record: Record
    tracking: Tracking
    output: Path
    scratch: Path
    code: Provenance
    started: str
    progress: Callable[[str], None]


@dataclass(frozen=True)
class _Draft:
    """A candidate's files, made aside, and what the guards before the test say of them."""

    candidate: Candidate
    specification: Specification
    folder: Path
    variants: list[Variant]
    guards: list[Guard]


def promote(
    study_name: str, run: str | None, settings: Settings, output: Path, progress: Callable[[str], None],
    policy: Policy, *, confirmation: Confirmation | None = None, dry_run: bool = False,
) -> Promotion | Review:  # fmt: skip
    """Check, export, test and register one model of a study, or (`dry_run`) only review it.

    The subject is the winner of `confirmation` if that is given, else what `run` names, else the winner of the study's
    own confirmation, else its best trial.

    Raises
    ------
    GuardRefusedError
        A guard that binds under the policy refuses; registry and bundle are untouched.
    """
    record = Record(settings.record).require()
    study = load_study(record, study_name)
    named, known = _subject(study, run, confirmation)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    if not dry_run:
        require_bundle_folders(output, study.name)
    with (
        only_promotion(record, None if dry_run else output),
        _refusals_remembered(study, policy, dry_run=dry_run),
        TrackingServer(record) as server,
        tempfile.TemporaryDirectory(prefix="harness-promote-") as scratch,
    ):
        tracking = Tracking(connect(server.uri), study.name, identity=study.identity)
        place = _PromotionContext(
            record, tracking, output, Path(scratch), provenance(settings.resolved_device), started, progress
        )
        finished = None if dry_run else _finish(study, place)
        if run is None and confirmation is None:
            for line in confirmation_progress(study):
                progress(line)
        subject = named or choose_trial(study, trial_of_run(tracking, str(run)))
        if finished is not None and _is_about(finished, subject, policy, tracking):
            return finished
        progress(
            f"candidate: {subject.label} ({subject.configuration}), validation score {subject.score or 0:.3f}"
        )
        _require(study, subject, ask(SubjectFacts(policy=policy, subject=subject)), policy)
        candidate = _candidate(study, subject, settings, place)
        aside = place.scratch / "dry" if dry_run else staging_folder(output, study.name)
        with to_share(), _unsealed_removed(aside):
            draft = _drafted(candidate, known, policy, aside, place)
            review = Review(study.name, subject, policy, draft.guards)
            return review if dry_run else _promote(draft, known, policy, place)


def _finish(study: Study, place: _PromotionContext) -> Promotion | None:
    """End what a killed promotion of this study began; None where there is nothing of the kind."""
    place.tracking.end_orphans("promotion")
    if not has_unfinished_promotion(study, place.tracking, place.output):
        return None
    place.progress("finishing the promotion that was stopped; the test is not opened again")
    return finish_promotion(study, place.tracking, place.output, place.code.tags)


def _is_about(finished: Promotion, subject: Subject, policy: Policy, tracking: Tracking) -> bool:
    wanted = (_run_of(subject, tracking), policy.model_dump(mode="json"))
    return (finished.evidence["run_id"], finished.evidence["policy"]) == wanted


def _subject(
    study: Study, run: str | None, asked: Confirmation | None
) -> tuple[Subject | None, Confirmation | None]:
    """Who is promoted, and the confirmation that speaks of it; nobody where only MLflow can tell (a run's id)."""
    own = asked or confirmation_of(study)
    if asked is not None or (run is None and own is not None):
        return own.shipped if own else None, own
    named = resolve_subject(study, run)
    if run is None or not run.isdecimal() or not isinstance(named, TrialSummary):
        return named, own
    for confirmation in (
        confirmation_of(study, named.number),
        own,
    ):  # its fresh seeds are worth more than its first
        replicate = confirmation.replicate_of(named.number) if confirmation else None
        if replicate is not None:
            return replicate, confirmation
    return named, own


@contextmanager
def _refusals_remembered(study: Study, policy: Policy, *, dry_run: bool) -> Iterator[None]:
    """Keep why a subject was refused, for `harness why`; nothing else of a refusal stays."""
    try:
        yield
    except GuardRefusedError as refusal:
        if not dry_run:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            failed = tuple(guard.as_json() for guard in refusal.refused)
            with suppress(OSError):  # a full disk must not hide the refusal
                refused = Decision(now, policy.name, refusal.subject, "refused", guards=failed)
                add_decision(study, replace(refused, fingerprint=refusal.fingerprint))
        raise


def _candidate(study: Study, subject: Subject, settings: Settings, place: _PromotionContext) -> Candidate:
    with to_share():
        prepared = [
            prepare(config, data_root=settings.data_root, cache=settings.cache, progress=place.progress)
            for config in data_configs(subject.members)
        ]
    run_id = _run_of(subject, place.tracking)
    return fetch_candidate(study, subject, prepared, place.tracking, run_id, place.scratch)


def _run_of(subject: Subject, tracking: Tracking) -> str:
    if isinstance(subject, EnsembleSummary):
        return subject.run_id
    key = subject.key if isinstance(subject, Replicate) else tracking.trial_key(subject.number)
    run_id = tracking.find(key)
    if run_id is None:
        raise PromotionError(
            f"MLflow has no run of {subject.label}; run the sweep again, it stores what is left"
        )
    return run_id


@contextmanager
def _unsealed_removed(aside: Path) -> Iterator[None]:
    """Make the folder in this block; what is not sealed is gone afterwards, whatever happens."""
    aside.mkdir(parents=True)
    try:
        yield
    finally:
        if not (aside / SUMS).is_file():
            shutil.rmtree(aside, ignore_errors=True)


def _drafted(
    candidate: Candidate, known: Confirmation | None, policy: Policy, aside: Path, place: _PromotionContext
) -> _Draft:
    """Export the files and ask every guard that needs no test window."""
    place.progress("export: one ONNX file from waveform to logits; fp16 for a GPU, int8 for a CPU")
    specification = candidate.specification(dict(place.code.versions))
    candidate.export(specification, aside / MODEL)
    variants = make_variants(aside, waveforms_of(candidate.shared, "train", CALIBRATION_WINDOWS))
    device = policy.latency.device
    own = variants[0].latency if device == "cpu" else None
    faster = {one.file: one.latency for one in variants[1:] if one.latency and one.device == device}
    guards = pre_test_guards(
        candidate, aside / MODEL, own or measured(aside / MODEL, device), policy,
        confirmation=known if isinstance(candidate.subject, Replicate) else None, faster=faster,
    )  # fmt: skip
    return _Draft(candidate, specification, aside, variants, guards)


def _promote(
    draft: _Draft, confirmation: Confirmation | None, policy: Policy, place: _PromotionContext
) -> Promotion:
    candidate, specification, guards = draft.candidate, draft.specification, draft.guards
    study, subject = candidate.study, candidate.subject
    _require(study, subject, guards, policy)
    met = opponent_of(candidate, confirmation, specification, place.tracking, place.scratch / "opponent")
    opponent = None if isinstance(met, str) else met
    if isinstance(met, str) and isinstance(subject, Replicate):
        guards = [*guards, *ask(ContestFacts(policy=policy, comparison=met))]
        _require(study, subject, guards, policy)
    place.progress("the frozen test is opened")
    test = open_frozen_test(
        candidate, draft.folder, draft.variants, opponent, policy, place.record, place.started
    )
    failpoint("promotion.opened")
    guards = [*guards, *post_test_guards(candidate, test.predictions, policy)]
    if test.contest is not None and opponent is not None:
        guards += ask(ContestFacts(policy=policy, comparison=test.contest, is_champion=opponent.is_champion))
    _require(study, subject, guards, policy, opened=True)
    evidence = evidence_of(candidate, confirmation, policy, guards, test, specification)
    _write_bundle(draft, test, evidence)
    failpoint("promotion.sealed")
    return finish_promotion(study, place.tracking, place.output, place.code.tags)


def _require(
    study: Study, subject: Subject, guards: list[Guard], policy: Policy, *, opened: bool = False
) -> None:
    chosen, fingerprint = isinstance(subject, Replicate), subject.fingerprint
    require_guards_pass(
        study.name, subject.label, guards, policy, opened=opened, chosen=chosen, fingerprint=fingerprint
    )


def _write_bundle(draft: _Draft, test: FrozenTest, evidence: dict[str, Any]) -> None:
    """Complete the bundle, and verify it as whoever receives it would."""
    windows, logits = golden_outputs(draft.candidate, draft.folder, test.variants)
    write_bundle(
        draft.folder, specification=draft.specification, evidence=evidence, golden_waveform=windows,
        golden_logits=logits, card=card_of(evidence),
    )  # fmt: skip
    found = verify(draft.folder, latency=False)
    if not found.ok:
        failed = "; ".join(check.text for check in found.checks if not check.ok)
        raise PromotionError(f"the bundle does not verify where it was made: {failed}")
