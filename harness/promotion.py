"""Promotion: guards -> export -> the frozen test, once -> registry and bundle. It never trains."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from data.audit import audit
from data.prepare import Prepared, prepare
from data.tasks import TASKS
from harness.bundle import put_in_place, write_card, write_golden
from harness.candidate import Candidate, data_configs, fetch_candidate
from harness.choosing import choose, expected_luck, subject_named, trial_of_run
from harness.controls import controls_of
from harness.ensemble_record import OPTIMISM, EnsembleSummary
from harness.guards import (
    Guard,
    Predictions,
    frozen_test_guards,
    gap_guard,
    latency_guard,
    parity_guard,
    prediction_guards,
    promotable_guard,
    study_control_guards,
)
from harness.latency import Latency, measure
from harness.ledger import Openings, open_test
from harness.metrics import expected_calibration_error, softmax
from harness.provenance import provenance
from harness.record import Record
from harness.registry import champion_of, register
from harness.run_page import external_weights
from harness.server import TrackingServer
from harness.settings import Settings
from harness.spool import sha256_of, write_json
from harness.statistics import ClusteredInterval
from harness.study import Study, TrialSummary, load_study
from harness.subsets import scores_by_subset
from harness.tracking import Tracking, connect
from harness.trial_config import TrialConfig
from models.onnx_session import PARITY_BOUND, open_session, run_onnx

PARITY_WINDOWS = 256
GOLDEN_WINDOWS = 8
STAMP = "unconfirmed: chosen by validation score, not retrained on fresh seeds"


class GuardRefusedError(Exception):
    """An integrity guard refused; nothing was changed."""

    def __init__(self, study: str, subject: str, guards: list[Guard]) -> None:
        self.guards = guards
        refused = [f"  {guard}" for guard in guards if not guard.ok and guard.level == "integrity"]
        super().__init__("\n".join([f"{subject} of {study} is refused; nothing was changed", *refused]))


class PromotionError(RuntimeError):
    """The record lacks something that promotion needs."""


@dataclass(frozen=True)
class Promotion:
    """What was promoted, and on what evidence."""

    study: str
    subject: TrialSummary | EnsembleSummary
    test: ClusteredInterval
    guards: list[Guard]
    latency: Latency
    bundle: Path
    registered_name: str
    version: str
    evidence: dict[str, Any]


def promote(
    study_name: str, run: str | None, settings: Settings, output: Path, progress: Callable[[str], None]
) -> Promotion:
    """Check, export, test and register one trial or ensemble of a study; by default the best trial.

    Raises
    ------
    GuardRefusedError
        An integrity guard refuses; the frozen test stays closed, registry and bundle are untouched.
    """
    record = Record(settings.record).require()
    study = load_study(record, study_name)
    named = subject_named(study, run)
    if named is not None:
        _require_one_file(study, named)  # what is wrong is said before a server starts
    with (
        _only_promotion(record),
        TrackingServer(record) as server,
        tempfile.TemporaryDirectory(prefix="harness-promote-") as scratch,
    ):
        tracking = Tracking(connect(server.uri), study.name, identity=study.identity)
        tracking.end_orphans("promotion")
        subject = named or choose(study, trial_of_run(tracking, str(run)))
        progress(
            f"candidate: {subject.label} ({subject.configuration}), validation score {subject.score or 0:.3f}"
        )
        _require_one_file(study, subject)
        prepared = [
            prepare(config, data_root=settings.data_root, cache=settings.cache, progress=progress)
            for config in data_configs(subject.members)
        ]
        run_id = _run_of(subject, tracking)
        candidate = fetch_candidate(study, subject, prepared, tracking, run_id, Path(scratch))
        aside = output / f".{study.name}.aside"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            return _promote(candidate, tracking, record, settings, aside, output / study.name, progress)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _require_one_file(study: Study, subject: TrialSummary | EnsembleSummary) -> None:
    guards = [promotable_guard(member.outcome) for member in subject.members]
    if not all(guard.ok for guard in guards):
        raise GuardRefusedError(study.name, subject.label, guards)


def _run_of(subject: TrialSummary | EnsembleSummary, tracking: Tracking) -> str:
    if isinstance(subject, EnsembleSummary):
        return subject.run_id
    run_id = tracking.find(tracking.trial_key(subject.number))
    if run_id is None:
        raise PromotionError(
            f"MLflow has no run of {subject.label}; run the sweep again, it stores what is left"
        )
    return run_id


@contextmanager
def _only_promotion(record: Record) -> Iterator[None]:
    """One promotion of a record at a time: they share the registry and the folder of bundles."""
    try:
        with FileLock(record.locks / "promotion.lock", timeout=0):
            yield
    except Timeout:
        raise PromotionError(f"another promotion works on {record.root}; wait for it") from None


def _promote(
    candidate: Candidate, tracking: Tracking, record: Record, settings: Settings, aside: Path, final: Path,
    progress: Callable[[str], None],
) -> Promotion:  # fmt: skip
    study, subject, data = candidate.study, candidate.subject, candidate.data
    code = provenance(settings.resolved_device)
    specification = candidate.specification(dict(code.versions))
    progress("export: one ONNX file from waveform to logits")
    candidate.export(specification, aside / "model.onnx")
    guards = [*_data_guards(candidate), *_prediction_guards(candidate), _parity(candidate, aside)]
    if not all(guard.ok for guard in guards if guard.level == "integrity"):
        raise GuardRefusedError(study.name, subject.label, guards)
    latency = measure(lambda: open_session(aside / "model.onnx"))
    guards.append(latency_guard(latency.p99_ms, latency.provider))
    progress("the frozen test is opened")
    manifest = candidate.shared.test.manifest.digest
    mark = subject.name if isinstance(subject, EnsembleSummary) else subject.number
    openings = open_test(record.root, study.name, mark, manifest)
    test = _test_predictions(candidate, aside / "model.onnx")
    ece = expected_calibration_error(softmax(test.logits), test.labels)
    control = TASKS[data.task].negative_control(data.variant)
    guards += frozen_test_guards(test, ece, negative_control=control)
    guards += study_control_guards(controls_of(study))
    interval = test.interval()
    name = data.question.replace("/", "-")
    evidence = _evidence(
        candidate, interval, guards, latency, openings, name, specification.model_dump(mode="json")
    )
    evidence["test_by_subset"] = scores_by_subset(
        test.logits.argmax(axis=1) == test.labels, candidate.shared.test.manifest
    )
    write_json(aside / "specification.json", specification.model_dump(mode="json"))
    write_json(aside / "evidence.json", evidence)
    write_card(aside / "card.md", evidence, interval, guards)
    (aside / "SHA256SUMS").write_text(_sums(aside), "utf-8")
    replaced = champion_of(tracking, name)
    version = register(
        tracking, candidate.run_id, study.name, subject, aside, name, interval, manifest, code.tags
    )
    progress(f"registered as {name} version {version}, alias champion")
    if replaced is not None:
        compared = (
            "the same test" if replaced[1] == manifest else "OTHER test windows: the scores do not compare"
        )
        progress(f"it replaces version {replaced[0]}, which was tested on {compared}")
    put_in_place(aside, final)
    return Promotion(study.name, subject, interval, guards, latency, final, name, version, evidence)


def _data_guards(candidate: Candidate) -> list[Guard]:
    """The data gate once more, on the windows as they are now."""
    checks = [check for one in candidate.prepared for check in audit(one).checks if check.level == "refuse"]
    return [
        Guard(check.name, "integrity", check.ok, str(check.measured), str(check.bound), check.message)
        for check in checks
    ]


def _prediction_guards(candidate: Candidate) -> list[Guard]:
    with np.load(candidate.folder / "predictions.npz", allow_pickle=False) as stored:
        train, val = (
            Predictions(stored[f"{s}_logits"], stored[f"{s}_labels"], list(stored[f"{s}_clusters"]))
            for s in ("train", "val")
        )
    accuracies = [list(member.outcome["val_accuracy"]) for member in candidate.subject.members]
    return [*prediction_guards(train, val, *accuracies), gap_guard(train, val)]


def _waveforms(prepared: Prepared, split: Any, count: int | None = None) -> Any:
    return np.asarray(prepared.splits[split].windows()[:count], dtype=np.float32) / 32768


def _parity(candidate: Candidate, aside: Path) -> Guard:
    """Compare the file with torch on real validation windows, and keep some of them as golden examples."""
    import torch

    waveforms = _waveforms(candidate.shared, "val", PARITY_WINDOWS)
    pipeline = candidate.module()
    with torch.no_grad():
        parts = [pipeline(torch.from_numpy(waveforms[i : i + 32])) for i in range(0, len(waveforms), 32)]
    reference = torch.cat(parts).numpy()
    logits = run_onnx(open_session(aside / "model.onnx"), waveforms)
    write_golden(aside / "golden", waveforms[:GOLDEN_WINDOWS], logits[:GOLDEN_WINDOWS])
    difference = float(np.abs(logits - reference).max())
    same = bool((logits.argmax(axis=1) == reference.argmax(axis=1)).all())
    return parity_guard(difference, same, len(waveforms), PARITY_BOUND)


def _test_predictions(candidate: Candidate, model: Path) -> Predictions:
    manifest = candidate.shared.splits["test"].manifest
    logits = run_onnx(open_session(model), _waveforms(candidate.shared, "test"))
    return Predictions(logits, manifest.labels(), manifest.clusters())


def _evidence(
    candidate: Candidate, test: ClusteredInterval, guards: list[Guard], latency: Latency, openings: Openings,
    name: str, specification: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    study, subject, prepared = candidate.study, candidate.subject, candidate.shared
    flags = dict.fromkeys(flag for one in candidate.prepared for flag in one.flags)
    windows = {split: len(part.manifest) for split, part in sorted(prepared.splits.items())}
    windows["train"] = sum(len(one.splits["train"].manifest) for one in candidate.prepared)
    subsets = "+".join(dict.fromkeys(one.config.subset for one in candidate.prepared))
    ensemble = isinstance(subject, EnsembleSummary)
    external = external_weights(TrialConfig.model_validate(member.config) for member in subject.members)
    trials = [one for one in study.trials() if one.state in ("complete", "pruned")]
    luck = expected_luck(subject, len(trials))
    return {
        "study": study.name,
        "registered_name": name,
        "stamp": STAMP,
        "promoted": datetime.now(UTC).isoformat(timespec="seconds"),
        "subject": subject.label,
        "configuration": subject.configuration,
        "score_is": "one look" if ensemble else "best trailing 3-epoch median",
        "external_weights": external,
        "limits": [
            *([OPTIMISM] if ensemble else []),
            *(f"holds external weights: {one}" for one in external),
        ],
        "trial": subject.as_json(),
        "trials_compared": len(trials),
        "run_id": candidate.run_id,
        "data": {**candidate.data.model_dump(mode="json"), "subset": subsets},
        "split_rule": prepared.split_rule,
        "flags": list(flags),
        "windows": windows,
        "manifests": specification["manifest_digests"],
        "label_map_digest": specification["label_map_digest"],
        "test": asdict(test),
        "test_openings": openings.by_study,
        "test_openings_by_all": openings.by_all,
        "optimism": luck,
        "latency": asdict(latency),
        "guards": [guard.as_json() for guard in guards],
        "specification": specification,
    }


def _sums(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    return "".join(f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
