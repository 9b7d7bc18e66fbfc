"""Promotion: guards -> the frozen test, once -> against the champion -> bundle -> registry. It never trains.

locks                  one promotion a record and a folder of bundles; one that was killed after its seal is ended
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
from harness.promotion.bundle.files import SUMS
from harness.promotion.bundle.verify import verify
from harness.promotion.bundle.write import write_bundle
from harness.promotion.draft import Draft, make_draft
from harness.promotion.evidence import evidence_of, golden_outputs
from harness.promotion.finish import (
    Promotion,
    finish_promotion,
    has_unfinished_promotion,
    require_bundle_folders,
    staging_folder,
)
from harness.promotion.frozen_test_set import FrozenTest, Opponent, open_frozen_test, opponent_of
from harness.promotion.guards.assessment import (
    GuardRefusedError,
    ask,
    post_test_guards,
    require_guards_pass,
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


@dataclass(frozen=True)
class PromotionRequest:
    """What somebody asked for.

    Attributes
    ----------
    output : folder of bundles; a champion's goes to ``output/STUDY``
    run : a trial's number, an ensemble's name or an MLflow run id; None for the confirmed winner, else the best trial
    confirmation : one that was just made for this promotion: its winner is promoted, whatever `run` says
    dry_run : only review the subject: no test is opened, nothing is written
    """

    policy: Policy
    output: Path
    run: str | None = None
    confirmation: Confirmation | None = None
    dry_run: bool = False


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
class _Work:
    """A promotion that holds the locks: of what, where it works, and whom it tells.

    `started` is ISO 8601; `scratch` is gone afterwards.
    """

    study: Study
    request: PromotionRequest
    record: Record
    tracking: Tracking
    scratch: Path
    code: Provenance
    started: str
    progress: Callable[[str], None]

    @property
    def policy(self) -> Policy:
        return self.request.policy


def promote(
    study_name: str, request: PromotionRequest, settings: Settings, progress: Callable[[str], None]
) -> Promotion | Review:
    """Check, export, test and register one model of a study, or (in a dry run) only review it.

    A promotion that was killed after its bundle was sealed is finished first; where it is the one that was asked for,
    that is all.

    Raises
    ------
    GuardRefusedError
        A guard that binds under the policy refuses; registry and bundle are untouched.
    OutputError
        The folder of bundles cannot be used; nothing was done.
    PromotionError
        Somebody else promotes, MLflow lacks the run, or the champion changed meanwhile.
    """
    record = Record(settings.record).require()
    study = load_study(record, study_name)
    named, confirmation = _subject(study, request.run, request.confirmation)
    if not request.dry_run:
        require_bundle_folders(request.output, study.name)
    with _locked(study, request, record, settings, progress) as work:
        finished = _finish_unfinished(work)
        subject = _chosen(named, work)
        if finished is not None and _is_about(finished, subject, work):
            return finished
        progress(
            f"candidate: {subject.label} ({subject.configuration}), validation score {subject.score or 0:.3f}"
        )
        _require(ask(SubjectFacts(policy=request.policy, subject=subject)), subject, work)
        candidate = _candidate(subject, settings, work)
        with _draft_folder(work) as folder:
            progress("export: one ONNX file from waveform to logits; fp16 for a GPU, int8 for a CPU")
            draft = make_draft(candidate, confirmation, request.policy, folder, work.code.versions)
            if request.dry_run:
                return Review(study.name, subject, request.policy, draft.guards)
            _require(draft.guards, subject, work)
            test, guards = _tested(draft, confirmation, work)
            _seal(draft, test, evidence_of(draft, confirmation, request.policy, guards, test))
            return finish_promotion(study, work.tracking, request.output, work.code.tags)


@contextmanager
def _locked(
    study: Study,
    request: PromotionRequest,
    record: Record,
    settings: Settings,
    progress: Callable[[str], None],
) -> Iterator[_Work]:
    """Be the only promotion of the record (a dry run locks no folder of bundles), with its MLflow server at hand."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    with (
        only_promotion(record, None if request.dry_run else request.output),
        _refusals_remembered(study, request.policy, dry_run=request.dry_run),
        TrackingServer(record) as server,
        tempfile.TemporaryDirectory(prefix="harness-promote-") as scratch,
    ):
        tracking = Tracking(connect(server.uri), study.name, identity=study.identity)
        code = provenance(settings.resolved_device)
        yield _Work(study, request, record, tracking, Path(scratch), code, started, progress)


def _finish_unfinished(work: _Work) -> Promotion | None:
    """End what a killed promotion of this study began; None where there is nothing of the kind, and in a dry run."""
    study, tracking, output = work.study, work.tracking, work.request.output
    if work.request.dry_run:
        return None
    tracking.end_orphans("promotion")
    if not has_unfinished_promotion(study, tracking, output):
        return None
    work.progress("finishing the promotion that was stopped; the test is not opened again")
    return finish_promotion(study, tracking, output, work.code.tags)


def _chosen(named: Subject | None, work: _Work) -> Subject:
    """Whom the study could name, else the trial of the MLflow run that was asked for."""
    request = work.request
    if request.run is None and request.confirmation is None:
        for line in confirmation_progress(work.study):
            work.progress(line)
    return named or choose_trial(work.study, trial_of_run(work.tracking, str(request.run)))


def _is_about(finished: Promotion, subject: Subject, work: _Work) -> bool:
    """Whether what was finished just now is what is asked for: the same run under the same policy."""
    wanted = (_run_of(subject, work.tracking), work.policy.model_dump(mode="json"))
    return (finished.evidence["run_id"], finished.evidence["policy"]) == wanted


def _subject(
    study: Study, run: str | None, asked: Confirmation | None
) -> tuple[Subject | None, Confirmation | None]:
    """Who is promoted, and the confirmation that speaks of it; None where only MLflow can tell (a run's id)."""
    own = asked or confirmation_of(study)
    if asked is not None or (run is None and own is not None):
        return own.shipped if own else None, own
    named = resolve_subject(study, run)
    if run is None or not run.isdecimal() or not isinstance(named, TrialSummary):
        return named, own
    # A trial's fresh seeds are worth more than its first.
    for confirmation in (confirmation_of(study, named.number), own):
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


def _candidate(subject: Subject, settings: Settings, work: _Work) -> Candidate:
    """The subject's weights, predictions and windows, held against their digests."""
    with to_share():
        prepared = [
            prepare(config, data_root=settings.data_root, cache=settings.cache, progress=work.progress)
            for config in data_configs(subject.members)
        ]
    run_id = _run_of(subject, work.tracking)
    return fetch_candidate(work.study, subject, prepared, work.tracking, run_id, work.scratch)


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
def _draft_folder(work: _Work) -> Iterator[Path]:
    """Make the folder of the draft in this block; what is not sealed is gone afterwards, whatever happens."""
    request = work.request
    aside = work.scratch / "dry" if request.dry_run else staging_folder(request.output, work.study.name)
    with to_share():
        aside.mkdir(parents=True)
        try:
            yield aside
        finally:
            if not (aside / SUMS).is_file():
                shutil.rmtree(aside, ignore_errors=True)


def _tested(draft: Draft, confirmation: Confirmation | None, work: _Work) -> tuple[FrozenTest, list[Guard]]:
    """Open the frozen test and hold the contest; what everybody said there, and every guard that was asked by then."""
    subject = draft.candidate.subject
    opponent, guards = _opponent(draft, confirmation, work)
    work.progress("the frozen test is opened")
    test = open_frozen_test(draft, opponent, work.policy, work.record, work.started)
    failpoint("promotion.opened")
    guards += post_test_guards(draft.candidate, test.predictions, work.policy)
    if test.contest is not None and opponent is not None:
        contest = ContestFacts(policy=work.policy, comparison=test.contest, is_champion=opponent.is_champion)
        guards += ask(contest)
    _require(guards, subject, work, opened=True)
    return test, guards


def _opponent(
    draft: Draft, confirmation: Confirmation | None, work: _Work
) -> tuple[Opponent | None, list[Guard]]:
    """Whom the candidate meets, fetched before the test is opened, and the guards by then.

    A confirmed subject whose baseline cannot be met is a guard's business; of others nobody asks.
    """
    subject, guards = draft.candidate.subject, list(draft.guards)
    met = opponent_of(draft, confirmation, work.tracking, work.scratch / "opponent")
    if not isinstance(met, str):
        return met, guards
    if isinstance(subject, Replicate):
        guards += ask(ContestFacts(policy=work.policy, comparison=met))
        _require(guards, subject, work)
    return None, guards


def _require(guards: list[Guard], subject: Subject, work: _Work, *, opened: bool = False) -> None:
    """Raise GuardRefusedError where one of the guards binds and failed; `opened` says whether the test was."""
    chosen, fingerprint = isinstance(subject, Replicate), subject.fingerprint
    require_guards_pass(
        work.study.name,
        subject.label,
        guards,
        work.policy,
        opened=opened,
        chosen=chosen,
        fingerprint=fingerprint,
    )


def _seal(draft: Draft, test: FrozenTest, evidence: dict[str, Any]) -> None:
    """Complete the bundle, and verify it as whoever receives it would."""
    windows, logits = golden_outputs(draft.candidate, draft.folder, test.variants)
    write_bundle(
        draft.folder,
        specification=draft.specification,
        evidence=evidence,
        golden_waveform=windows,
        golden_logits=logits,
        card=card_of(evidence),
    )
    found = verify(draft.folder, latency=False)
    if not found.ok:
        failed = "; ".join(check.text for check in found.checks if not check.ok)
        raise PromotionError(f"the bundle does not verify where it was made: {failed}")
    failpoint("promotion.sealed")
