"""Promotion: guards -> export -> the frozen test, once -> registry and bundle. It never trains."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from data.audit import audit
from data.prepare import Prepared, prepare
from data.tasks import TASKS
from harness.bundle import put_in_place, write_card, write_golden
from harness.choosing import choose, trial_of_run
from harness.guards import (
    Guard,
    Predictions,
    frozen_test_guards,
    gap_guard,
    latency_guard,
    parity_guard,
    prediction_guards,
)
from harness.latency import Latency, measure
from harness.ledger import Openings, open_test
from harness.metrics import expected_calibration_error, softmax
from harness.provenance import provenance
from harness.record import Record
from harness.registry import champion_of, register
from harness.server import TrackingServer
from harness.settings import Settings
from harness.spool import write_json
from harness.statistics import ClusteredInterval, optimism
from harness.study import DataChangedError, Study, TrialSummary, load_study
from harness.tracking import Tracking, connect
from harness.trial import build_specification, sha256_of
from harness.trial_config import TrialConfig
from models.checkpoints import load_weights
from models.onnx_export import Pipeline, export_onnx
from models.onnx_session import PARITY_BOUND, open_session, run_onnx

if TYPE_CHECKING:
    from models.cnn import FastDiarizationModel

PARITY_WINDOWS = 256
GOLDEN_WINDOWS = 8
STAMP = "unconfirmed: chosen by validation score, not retrained on fresh seeds"


class GuardRefusedError(Exception):
    """An integrity guard refused; nothing was changed."""

    def __init__(self, study: str, trial: int, guards: list[Guard]) -> None:
        self.guards = guards
        refused = [f"  {guard}" for guard in guards if not guard.ok and guard.level == "integrity"]
        super().__init__("\n".join([f"trial {trial} of {study} is refused; nothing was changed", *refused]))


class PromotionError(RuntimeError):
    """The record lacks something that promotion needs."""


@dataclass(frozen=True)
class Promotion:
    """What was promoted, and on what evidence."""

    study: str
    trial: TrialSummary
    test: ClusteredInterval
    guards: list[Guard]
    latency: Latency
    bundle: Path
    registered_name: str
    version: str
    evidence: dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A run under review: its trial, its data, its weights."""

    study: Study
    trial: TrialSummary
    config: TrialConfig
    prepared: Prepared
    run_id: str
    folder: Path


def promote(
    study_name: str, run: str | None, settings: Settings, output: Path, progress: Callable[[str], None]
) -> Promotion:
    """Check, export, test and register one trial of a study.

    Raises
    ------
    GuardRefusedError
        An integrity guard refuses; the frozen test stays closed, registry and bundle are untouched.
    """
    record = Record(settings.record).require()
    study = load_study(record, study_name)
    if run is None or run.isdecimal():
        choose(study, run)  # what is wrong with the request is said before a server starts
    with (
        _only_promotion(record),
        TrackingServer(record) as server,
        tempfile.TemporaryDirectory(prefix="harness-promote-") as scratch,
    ):
        tracking = Tracking(connect(server.uri), study.name, identity=study.identity)
        tracking.end_orphans("promotion")
        trial = choose(study, run if run is None or run.isdecimal() else trial_of_run(tracking, run))
        config = TrialConfig.model_validate(trial.config)
        progress(f"candidate: trial {trial.number} ({trial.name}), validation score {trial.score or 0:.3f}")
        prepared = prepare(config.data, data_root=settings.data_root, cache=settings.cache, progress=progress)
        candidate = _fetch(study, trial, config, prepared, tracking, Path(scratch))
        aside = output / f".{study.name}.aside"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            return _promote(candidate, tracking, record, settings, aside, output / study.name, progress)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _fetch(
    study: Study,
    trial: TrialSummary,
    config: TrialConfig,
    prepared: Prepared,
    tracking: Tracking,
    folder: Path,
) -> Candidate:
    """Download the trial's weights and predictions, and check each against the digest taken in the worker."""
    run_id = tracking.find(tracking.trial_key(trial.number))
    if run_id is None:
        raise PromotionError(
            f"MLflow has no run of trial {trial.number}; run the sweep again, it stores what is left"
        )
    for name in ("model/weights.pt", "predictions.npz"):
        path = _download(tracking, run_id, name, folder).rename(folder / Path(name).name)
        wanted, found = trial.outcome["sha256"][name], sha256_of(path)
        if wanted != found:
            raise PromotionError(
                f"{name} of run {run_id} was altered: sha256 {found[:16]}, recorded {wanted[:16]}"
            )
    manifests = study.optuna_study.user_attrs["manifests"][config.data.digest()]
    for split, part in prepared.splits.items():
        if part.manifest.digest != manifests[split]:
            raise DataChangedError(
                f"the {split} windows have changed since the sweep: digest {part.manifest.digest[:12]}, "
                f"then {manifests[split][:12]}; restore the corpus, or run the sweep again under another name"
            )
    return Candidate(study, trial, config, prepared, run_id, folder)


def _download(tracking: Tracking, run_id: str, name: str, folder: Path) -> Path:
    from mlflow.exceptions import MlflowException

    try:
        return Path(tracking.client.download_artifacts(run_id, name, str(folder)))
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PromotionError(
            f"MLflow does not hold {name} of run {run_id} ({reason}); run the sweep again, it stores what is left"
        ) from error


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
    study, trial, config = candidate.study, candidate.trial, candidate.config
    model = config.model.build(config.feature.num_features)
    model.load_state_dict(load_weights(candidate.folder / "weights.pt"))
    model.eval()
    code = provenance(settings.resolved_device)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    fields = {"run_id": candidate.run_id, "versions": dict(code.versions)}
    specification = build_specification(fields, config, candidate.prepared, created)
    progress("export: one ONNX file from waveform to logits")
    export_onnx(config.feature, model, specification, aside / "model.onnx")
    guards = [*_data_guards(candidate), *_prediction_guards(candidate), _parity(candidate, model, aside)]
    if not all(guard.ok for guard in guards if guard.level == "integrity"):
        raise GuardRefusedError(study.name, trial.number, guards)
    latency = measure(aside / "model.onnx")
    guards.append(latency_guard(latency.p99_ms, latency.provider))
    progress("the frozen test is opened")
    openings = open_test(record.root, study.name, trial.number, candidate.prepared.test.manifest.digest)
    test = _test_predictions(candidate, aside / "model.onnx")
    ece = expected_calibration_error(softmax(test.logits), test.labels)
    control = TASKS[config.data.task].negative_control(config.data.variant)
    guards += frozen_test_guards(test, ece, negative_control=control)
    interval = test.interval()
    name = f"{config.data.task}-{config.data.variant}"
    evidence = _evidence(
        candidate, interval, guards, latency, openings, name, specification.model_dump(mode="json")
    )
    write_json(aside / "specification.json", specification.model_dump(mode="json"))
    write_json(aside / "evidence.json", evidence)
    write_card(aside / "card.md", evidence, interval, guards)
    (aside / "SHA256SUMS").write_text(_sums(aside), "utf-8")
    manifest = candidate.prepared.test.manifest.digest
    replaced = champion_of(tracking, name)
    version = register(
        tracking, candidate.run_id, study.name, trial.number, aside, name, interval, manifest, code.tags
    )
    progress(f"registered as {name} version {version}, alias champion")
    if replaced is not None:
        compared = (
            "the same test" if replaced[1] == manifest else "OTHER test windows: the scores do not compare"
        )
        progress(f"it replaces version {replaced[0]}, which was tested on {compared}")
    put_in_place(aside, final)
    return Promotion(study.name, trial, interval, guards, latency, final, name, version, evidence)


def _data_guards(candidate: Candidate) -> list[Guard]:
    """The data gate once more, on the windows as they are now."""
    checks = [check for check in audit(candidate.prepared).checks if check.level == "refuse"]
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
    accuracies = list(candidate.trial.outcome["val_accuracy"])
    return [*prediction_guards(train, val, accuracies), gap_guard(train, val)]


def _waveforms(prepared: Prepared, split: Any, count: int | None = None) -> Any:
    return np.asarray(prepared.splits[split].windows()[:count], dtype=np.float32) / 32768


def _parity(candidate: Candidate, model: FastDiarizationModel, aside: Path) -> Guard:
    """Compare the file with torch on real validation windows, and keep some of them as golden examples."""
    import torch

    waveforms = _waveforms(candidate.prepared, "val", PARITY_WINDOWS)
    pipeline = Pipeline(candidate.config.feature.build(), model).eval()
    with torch.no_grad():
        parts = [pipeline(torch.from_numpy(waveforms[i : i + 32])) for i in range(0, len(waveforms), 32)]
    reference = torch.cat(parts).numpy()
    logits = run_onnx(open_session(aside / "model.onnx"), waveforms)
    write_golden(aside / "golden", waveforms[:GOLDEN_WINDOWS], logits[:GOLDEN_WINDOWS])
    difference = float(np.abs(logits - reference).max())
    same = bool((logits.argmax(axis=1) == reference.argmax(axis=1)).all())
    return parity_guard(difference, same, len(waveforms), PARITY_BOUND)


def _test_predictions(candidate: Candidate, model: Path) -> Predictions:
    manifest = candidate.prepared.splits["test"].manifest
    logits = run_onnx(open_session(model), _waveforms(candidate.prepared, "test"))
    return Predictions(logits, manifest.labels(), manifest.clusters())


def expected_luck(trial: TrialSummary, trials: int) -> float | None:
    """How much of the best of so many looks is luck; None where every window is right, or none is."""
    value, n_eff = trial.outcome["at_best"]["val/balanced_accuracy"], trial.outcome["interval"]["n_eff"]
    if not 0 < value < 1:
        return None  # no variance is seen, which is not to say that there is none
    return optimism(value, n_eff, trials, trial.epochs, trial.outcome["lag1"])


def _evidence(
    candidate: Candidate, test: ClusteredInterval, guards: list[Guard], latency: Latency, openings: Openings,
    name: str, specification: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    study, trial, prepared = candidate.study, candidate.trial, candidate.prepared
    trials = [one for one in study.trials() if one.state in ("complete", "pruned")]
    luck = expected_luck(trial, len(trials))
    return {
        "study": study.name,
        "registered_name": name,
        "stamp": STAMP,
        "promoted": datetime.now(UTC).isoformat(timespec="seconds"),
        "trial": trial.as_json(),
        "trials_compared": len(trials),
        "run_id": candidate.run_id,
        "data": candidate.config.data.model_dump(mode="json"),
        "split_rule": prepared.split_rule,
        "flags": list(prepared.flags),
        "windows": {split: len(part.manifest) for split, part in sorted(prepared.splits.items())},
        "manifests": {split: part.manifest.digest for split, part in sorted(prepared.splits.items())},
        "label_map_digest": prepared.label_map.digest,
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
