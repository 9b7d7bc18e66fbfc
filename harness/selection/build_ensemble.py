"""`harness ensemble`: trials of a study averaged into one model, as a run of its own. It never trains.

    members -> same task, windows, signature? -> weights -> Ensemble -> validation windows
        -> spool of its own -> MLflow run (kind ensemble) -> the study's list of ensembles

What is averaged, and why, stands in ``models.export.ensemble``. The run is promoted like any trial's:
`harness promote STUDY --run NAME`.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.preparation.prepare import Prepared, prepare
from harness.config.trial.training_config import TrainingConfig
from harness.config.trial.trial_config import TrialConfig
from harness.core.files import sha256_of, to_share, write_json
from harness.core.provenance import provenance
from harness.core.settings import Settings
from harness.metrics.by_subset import scores_by_subset
from harness.metrics.classification import binary_metrics
from harness.metrics.intervals import clustered_interval
from harness.metrics.predictions import Predictions
from harness.selection.candidate import (
    data_configs,
    ensemble_specification,
    fingerprint_of,
    joined,
    network_of,
    require_unchanged,
)
from harness.selection.ensemble_members import (
    ONNX,
    WEIGHTS,
    EnsembleError,
    find_members,
    refuse_different,
    require_alike,
    study_of_members,
)
from harness.study.ensembles import KIND, OPTIMISM, EnsembleSummary, ensembles_of, save_ensemble
from harness.study.storage.record import Record
from harness.study.storage.trial_spool import TrialSpool
from harness.study.study import Study
from harness.study.trials import TrialSummary
from harness.tracking.artifacts import fetch
from harness.tracking.experiment import Tracking, connect
from harness.tracking.run_header import datasets_of, external_tags, label_shares
from harness.tracking.run_verdict import verdict_of
from harness.tracking.server.server import TrackingServer
from harness.training.outputs.run_artifacts import write_evidence
from harness.training.window_split import scored_windows
from models.checkpoints import load_weights, save_weights
from models.export.ensemble import Ensemble, Member, export_ensemble
from models.export.specification import Specification

BATCH = 32
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,60}")


@dataclass(frozen=True)
class LoadedMembers:
    """Members that go together, with their data and their networks.

    Attributes
    ----------
    name : of the ensemble
    runs : ids of the members' runs in MLflow
    prepared : each data configuration once, not one a member; validation and test windows are the same in all
    networks : (front end, network) of each member
    """

    study: Study
    name: str
    members: tuple[TrialSummary, ...]
    runs: tuple[str, ...]
    prepared: tuple[Prepared, ...]
    networks: tuple[Member, ...]


def make_ensemble(
    words: Sequence[str],
    study_name: str | None,
    name: str | None,
    settings: Settings,
    progress: Callable[[str], None],
) -> tuple[Study, EnsembleSummary]:
    """Average the trials of these numbers, names or run ids, and store the ensemble beside them.

    The same members under the same name are averaged again into the same run.

    Parameters
    ----------
    name : None: the members' numbers, as in `0+3`

    Raises
    ------
    EnsembleError
        Members that are not found or do not go together, or a name that others carry.
    RecordError
        The study is being run: its list of ensembles has one writer.
    """
    record = Record(settings.record).require()
    study = study_of_members(record, words, study_name)
    lock = record.lock_study(study.name)
    try:
        with (
            TrackingServer(record) as server,
            tempfile.TemporaryDirectory(prefix="harness-ensemble-") as scratch,
        ):
            tracking: list[Tracking] = []

            def connected() -> Tracking:
                if not tracking:
                    tracking.append(Tracking(connect(server.uri), study.name, identity=study.identity))
                return tracking[0]

            connected().end_orphans(KIND)  # one that was killed while it was stored
            members = find_members(study, words, connected)
            require_alike(study, members)
            chosen = _free_name(study, name, members)
            progress(f"members: {', '.join(f'{one.label} ({one.score or 0:.3f})' for one in members)}")
            with to_share():
                prepared = [
                    prepare(config, data_root=settings.data_root, cache=settings.cache, progress=progress)
                    for config in data_configs(members)
                ]
            require_unchanged(study, prepared)
            runs, networks = _networks(members, connected(), Path(scratch))
            averaged = LoadedMembers(study, chosen, tuple(members), runs, tuple(prepared), networks)
            ensemble = _store(averaged, connected(), settings, Path(scratch) / "spool", progress)
            save_ensemble(study, ensemble)
    finally:
        lock.release()
    return study, ensemble


def _free_name(study: Study, name: str | None, members: Sequence[TrialSummary]) -> str:
    """The ensemble's name, which can be taken for no trial's number and no run's id, and is no other ensemble's."""
    chosen = name or "+".join(str(member.number) for member in members)
    if not NAME.fullmatch(chosen) or chosen.isdecimal() or len(chosen) == 32:
        raise EnsembleError(
            f"{chosen!r} is no name for an ensemble: give letters, digits and .+_- (not a number alone, which is "
            "a trial's, nor 32 characters, which is a run id's length)"
        )
    numbers = [member.number for member in members]
    for other in ensembles_of(study):
        theirs = [member.number for member in other.members]
        if other.name == chosen and theirs != numbers:
            raise EnsembleError(
                f"{study.name} has an ensemble {chosen!r} of trials {theirs}: give another --name"
            )
    return chosen


def _networks(
    members: Sequence[TrialSummary], tracking: Tracking, folder: Path
) -> tuple[tuple[str, ...], tuple[Member, ...]]:
    """Run ids and networks of the members, their weights held against the digests taken in the worker."""
    runs, networks, signatures = [], [], []
    for member in members:
        run_id = tracking.find(tracking.trial_key(member.number))
        if run_id is None:
            raise EnsembleError(
                f"MLflow has no run of {member.label}; run the sweep again, it stores what is left"
            )
        own = folder / str(member.number)
        own.mkdir()
        onnx = fetch(tracking.client, run_id, ONNX, member.outcome["sha256"][ONNX], own)
        signatures.append((member.label, _signature(Specification.from_onnx(onnx))))
        path = fetch(tracking.client, run_id, WEIGHTS, member.outcome["sha256"][WEIGHTS], own)
        runs.append(run_id)
        networks.append(network_of(member, load_weights(path)))
    refuse_different("signature", signatures)
    return tuple(runs), tuple(networks)


def _signature(specification: Specification) -> str:
    """What must be equal in models that take each other's place, as one text to compare."""
    fields = ("sample_rate", "window_samples", "input_name", "output_name", "label_meaning")
    return json.dumps({name: getattr(specification, name) for name in fields}, sort_keys=True)


def _store(
    averaged: LoadedMembers,
    tracking: Tracking,
    settings: Settings,
    folder: Path,
    progress: Callable[[str], None],
) -> EnsembleSummary:
    """Judge the average on the validation windows and store its run in MLflow."""
    study, members = averaged.study, averaged.members
    shared = averaged.prepared[0]
    fingerprint = fingerprint_of(members)
    code = provenance(settings.resolved_device)
    spool = TrialSpool(folder)
    spool.write("trial", _header(averaged, fingerprint, code.tags))
    progress("validation windows, through every member")
    module = Ensemble(averaged.networks).eval()
    val = _predictions(module, shared, "val")
    train = _merge([_predictions(module, one, "train") for one in averaged.prepared])
    write_evidence(spool, shared, val.logits, train)
    progress("export: one ONNX file from waveform to logits")
    created = datetime.now(UTC).isoformat(timespec="seconds")
    fields: dict[str, Any] = {"run_id": f"{study.name}/{averaged.name}", "versions": dict(code.versions)}
    specification = ensemble_specification(members, averaged.runs, averaged.prepared, created, fields)
    model = spool.artifacts / "model"
    export_ensemble(averaged.networks, specification, model / "model.onnx")
    save_weights(joined(averaged.networks), model / "weights.pt")
    write_json(model / "specification.json", specification.model_dump(mode="json"))
    write_json(spool.artifacts / "config.json", {"members": [dict(member.config) for member in members]})
    outcome = _outcome(val, train, members)
    outcome["by_subset"] = scores_by_subset(val.correct, shared.val.manifest)
    files = ("predictions.npz", "model/model.onnx", WEIGHTS)
    outcome["sha256"] = {name: sha256_of(spool.artifacts / name) for name in files}
    ensemble = EnsembleSummary(averaged.name, "", members, averaged.runs, fingerprint, outcome)
    spool.write("verdict", _verdict(ensemble, shared))
    tracking.parent = tracking.latest("launch")
    tracking.store_trial(spool)
    run_id = tracking.find(_key(averaged))
    assert run_id is not None, "the run was just stored"
    return replace(ensemble, run_id=run_id)


def _key(averaged: LoadedMembers) -> str:
    return f"{averaged.study.identity}/ensemble/{averaged.name}"


def _header(averaged: LoadedMembers, fingerprint: str, code: Any) -> dict[str, Any]:
    """What the run is called and made of, as a trial's spool has it."""
    members, shared = averaged.members, averaged.prepared[0]
    numbers = ", ".join(str(member.number) for member in members)
    told = "\n".join(f"- trial {one.number}: {one.name}, score {one.score or 0:.3f}" for one in members)
    note = f"The mean probability of {len(members)} trials:\n\n{told}\n\n**Read its score with care**: {OPTIMISM}."
    tags = {
        "harness.kind": KIND,
        "harness.study": averaged.study.name,
        "harness.ensemble": averaged.name,
        "harness.members": numbers,
        "harness.member_runs": ", ".join(averaged.runs),
        "harness.optimism": OPTIMISM,
        "harness.fingerprint": fingerprint,
        "harness.state": "running",
        "harness.split_rule": shared.split_rule,
        "harness.flags": "; ".join(shared.flags),
        "harness.label_map": shared.label_map.digest,
        "mlflow.note.content": note,
    }
    others = [row for one in averaged.prepared[1:] for row in datasets_of(one) if row["context"] == "train"]
    digests = {f"digest.{split}": part.manifest.digest for split, part in sorted(shared.splits.items())}
    digests |= {
        f"digest.train.{n}": one.train.manifest.digest for n, one in enumerate(averaged.prepared[1:], 1)
    }
    configs = [TrialConfig.from_record(member.config) for member in members]
    return {
        "key": _key(averaged),
        "number": None,
        "run_name": f"ensemble {averaged.name}",
        "time_ms": int(time.time() * 1000),
        "tags": {**code, **tags, **external_tags(configs)},
        "params": {"ensemble.members": numbers, **digests},
        "datasets": [*datasets_of(shared), *others],
    }


def _outcome(val: Predictions, train: Predictions, members: Sequence[TrialSummary]) -> dict[str, Any]:
    """The outcome of a training that had one look at the validation windows: there are no epochs to choose from.

    For the luck in it, its members' epochs count as its own: those of the longest, and the smallest `lag1`, which is
    the correlation of one epoch's score with the next one's.
    """
    at_best = {f"val/{name}": value for name, value in binary_metrics(val.logits, val.labels).items()}
    at_best |= {f"train/{name}": value for name, value in binary_metrics(train.logits, train.labels).items()}
    at_best["gap"] = at_best["train/balanced_accuracy"] - at_best["val/balanced_accuracy"]
    interval = clustered_interval(val.correct, val.clusters)
    shown = ("low", "high", "windows", "clusters", "icc", "n_eff")
    return {
        "state": "complete",
        "score": at_best["val/balanced_accuracy"],
        "best_epoch": 0,
        "epochs": max(member.epochs for member in members),
        "at_best": at_best,
        "interval": {name: getattr(interval, name) for name in shown},
        "lag1": min(member.outcome["lag1"] for member in members),
        "device": "cpu",
    }


def _verdict(ensemble: EnsembleSummary, shared: Prepared) -> dict[str, Any]:
    """How the run ends: a trial's summary, and its metrics under the names of a trial's last epoch too."""
    first = ensemble.members[0]
    told = replace(first, state="complete", reason="", score=ensemble.score, outcome=ensemble.outcome)
    verdict = verdict_of(told, {"label_shares": label_shares(shared)})
    del verdict["metrics"]["best/epoch"]
    best = max(member.score or 0.0 for member in ensemble.members)
    verdict["metrics"] |= {**ensemble.outcome["at_best"], "best/member_score": best}
    return verdict


def _predictions(module: torch.nn.Module, prepared: Prepared, split: Any) -> Predictions:
    """Logits (window, class) of a split; of training those windows only that every trial is scored on.

    Windows are stored as int16; the module hears them in [-1, 1), which is what 32768 is for.
    """
    part = prepared.splits[split]
    labels, clusters, windows = part.manifest.labels(), np.array(part.manifest.clusters()), part.windows()
    index = np.arange(len(labels))
    if split == "train":
        count = TrainingConfig.model_fields["train_score_windows"].default
        index = scored_windows(torch.from_numpy(labels), count).numpy()
    logits = []
    with torch.no_grad():
        for start in range(0, len(index), BATCH):
            batch = np.asarray(windows[index[start : start + BATCH]], dtype=np.float32) / 32768
            logits.append(module(torch.from_numpy(batch)).numpy())
    return Predictions(np.concatenate(logits), labels[index], clusters[index].tolist())


def _merge(parts: Sequence[Predictions]) -> Predictions:
    return Predictions(
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.labels for part in parts]),
        [cluster for part in parts for cluster in part.clusters],
    )
