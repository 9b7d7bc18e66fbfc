"""A sound candidate for the guards: one tiny network, trained on made-up voices as a worker trains."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.audit.audit import Audit, audit
from data.config import DataConfig
from data.labels import Speaker, build_label_map
from data.preparation.manifest import Manifest, Source, Window
from data.preparation.prepared import LABEL_MAP, RECORD, Prepared, SplitData, load_prepared, manifest_path
from data.store.content_store import build_once
from harness.config.files.policy_file import load_policy
from harness.config.policy import Policy
from harness.config.sweep import Sweep
from harness.config.trial.trial_config import TrialConfig
from harness.execution.data_gate import DataInspection
from harness.metrics.predictions import Predictions
from harness.promotion.bundle import latency
from harness.promotion.bundle.latency import Latency, benchmark_latency
from harness.promotion.guards import origin_guards
from harness.promotion.guards.assessment import check_parity, post_test_guards, pre_test_guards, waveforms_of
from harness.promotion.guards.facts import Parity
from harness.promotion.guards.guard import Guard
from harness.selection.candidate import Candidate, network_of
from harness.study.storage.record import Record
from harness.study.storage.trial_spool import TrialSpool
from harness.study.study import open_study
from harness.training.job import Job
from harness.training.trial import open_device, run_trial
from models.checkpoints import load_weights
from models.networks.cnn import FastDiarizationModel
from models.onnx_io.session import open_session, run_onnx
from tests.harness.places.untrained_study import confirm_trials

SPEAKERS = 24
EACH = {"train": 6, "val": 4, "test": 4}
DEFAULT, PRODUCTION = load_policy("default"), load_policy("production")


def voice(speaker: int, label: int, generator: np.random.Generator) -> Any:
    """3 s of a buzz, low for class 0 and high for class 1, in noise."""
    pitch = (100 if label == 0 else 220) * (1 + 0.01 * speaker)
    phase = np.cumsum(np.full(48_000, pitch / 16_000)) + generator.random()
    sound = 0.2 * (phase % 1 - 0.5) + 0.02 * generator.standard_normal(48_000)
    return np.round(32767 * sound).astype(np.int16)


def make_prepared(folder: Path) -> Prepared:
    """Windows of 24 speakers, in every split other chapters of the same ones (task pseudo, variant seen)."""
    config = DataConfig(corpus="demo", task="pseudo", variant="seen", train_windows=200, val_windows=200)
    people = [Speaker(f"{100 + k}", "FM"[k % 2], "used") for k in range(SPEAKERS)]
    label_map = build_label_map("rank", people)
    generator = np.random.default_rng(0)
    record: dict[str, Any] = {}

    def write(aside: Path) -> None:
        label_map.save(aside / LABEL_MAP)
        for chapter, (split, each) in enumerate(EACH.items()):
            windows, audio = [], []
            for index in range(each * SPEAKERS):
                number, name = index % SPEAKERS, people[index % SPEAKERS].id
                label = label_map.classes[name]
                one = f"{name}-{chapter}-{index}"
                source = Source(
                    one, "clean", name, str(chapter), name, f"{hash_of(one)}", "", 0, 48_000, 0, 0.0
                )
                windows.append(Window((source,), label, "clean", name, (name,), people[number].sex, name))
                audio.append(voice(number, label, generator))
            manifest = Manifest(split, tuple(windows))  # type: ignore[arg-type]
            manifest.save(manifest_path(aside, split))  # type: ignore[arg-type]
            build_once(
                folder / "windows" / split,
                lambda place, audio=audio: np.save(place / "windows.npy", np.stack(audio)),
            )
            record[split] = {
                "manifest_digest": manifest.digest,
                "windows": f"../windows/{split}",
                "count": len(windows),
            }
        (aside / RECORD).write_text(
            json.dumps({
                "config": config.model_dump(mode="json"), "split_rule": "chapter-disjoint", "flags": [],
                "dropped": {}, "examined": 72, "lost": [], "splits": record,
            })
        )  # fmt: skip

    return load_prepared(build_once(folder / "prepared", write))


def hash_of(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


AUDITS: list[tuple[Prepared, Audit]] = []


def audited(prepared: Prepared) -> Audit:
    """The audit of these very windows, made once: it starts interpreters of its own."""
    for one, found in AUDITS:
        if one is prepared:
            return found
    AUDITS.append((prepared, audit(prepared)))
    return AUDITS[-1][1]


@dataclass(frozen=True)
class Case:
    """What is assessed: a candidate, its exported file, its latency, and what is known of parity."""

    candidate: Candidate
    model: Path
    latency: Latency | str
    parity: Parity | None = None
    confirmed: bool = True
    policy: dict[str, Any] | None = None

    def of(self, policy: Policy) -> Policy:
        # A busy machine is no fault of the network's: only those who mean the latency bound it.
        changed = policy.model_dump() | {"latency": {"device": "cpu", "max_p99_ms": 60_000.0}}
        for section, values in (self.policy or {}).items():
            changed[section] |= values
        return type(policy).model_validate(changed)

    def before(self, policy: Policy, faster: dict[str, Latency] | None = None) -> list[Guard]:
        subject = self.candidate.subject
        known = confirm_trials("voices", 5, [(0, subject.fingerprint, 0.9)]) if self.confirmed else None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(origin_guards, "audit", audited)
            return pre_test_guards(
                self.candidate, self.model, self.latency, self.of(policy),
                confirmation=known, parity=self.parity, faster=faster,
            )  # fmt: skip

    def test(self, policy: Policy) -> list[Guard]:
        clusters = self.candidate.shared.test.manifest.clusters()
        test = Predictions(self.logits("test"), self.labels("test"), clusters)
        return post_test_guards(self.candidate, test, self.of(policy))

    def logits(self, split: Any) -> Any:
        return run_onnx(open_session(self.model), waveforms_of(self.candidate.shared, split))

    def labels(self, split: Any) -> Any:
        return self.candidate.shared.splits[split].manifest.labels()


def with_network(case: Case, name: str, change: Callable[[Any], None]) -> Case:
    """The case with its network changed: exported and scored anew."""
    front_end, network = case.candidate.networks[0]
    other = copy.deepcopy(network)
    change(other)
    folder = case.model.parent / name
    folder.mkdir()
    candidate = replace(case.candidate, networks=((front_end, other.eval()),), folder=folder)
    model = folder / "model.onnx"
    candidate.export(candidate.specification({}), model)
    return scored(replace(case, candidate=candidate, model=model, parity=None))


def scored(case: Case) -> Case:
    """The case with the predictions of its file, as its worker would have stored them."""
    stored: dict[str, Any] = {}
    for split in ("train", "val"):
        stored[f"{split}_logits"], stored[f"{split}_labels"] = case.logits(split), case.labels(split)
        stored[f"{split}_clusters"] = np.array(case.candidate.shared.splits[split].manifest.clusters())  # type: ignore[index]
    np.savez(case.candidate.folder / "predictions.npz", **stored)
    return case


def with_audio(case: Case, split: Any, exchanged: Callable[[int], bool]) -> Case:
    """The case where some windows of a split hold the audio of a neighbour, who is of the other class."""
    prepared = case.candidate.shared
    part = prepared.splits[split]
    sound, labels = np.array(part.windows()), part.manifest.labels()
    for index in filter(exchanged, range(len(sound))):
        sound[index] = part.windows()[next(k for k in range(len(sound)) if labels[k] != labels[index])]
    folder = case.model.parent / f"{split} exchanged"
    build_once(folder, lambda aside: np.save(aside / "windows.npy", sound))
    splits = {**prepared.splits, split: SplitData(part.manifest, folder)}
    candidate = replace(case.candidate, prepared=(replace(prepared, splits=splits),), folder=folder)
    return scored(replace(case, candidate=candidate))


def with_windows(case: Case, split: Any, change: Callable[[list[Window]], list[Window]]) -> Case:
    """The case with another manifest of a split; what was predicted on it before stays."""
    prepared = case.candidate.shared
    part = prepared.splits[split]
    manifest = Manifest(split, tuple(change(list(part.manifest.windows))))
    splits = {**prepared.splits, split: SplitData(manifest, part.folder)}
    return replace(case, candidate=replace(case.candidate, prepared=(replace(prepared, splits=splits),)))


def sound_case(folder: Path) -> Case:
    """A trial run as a worker runs it, in a study of its own."""
    prepared = make_prepared(folder)
    config = TrialConfig.model_validate({
        "data": prepared.config.model_dump(), "model": {"width": 0.0625, "dropout": 0.0},
        "training": {"epochs": 6, "batch_size": 16, "learning_rate": 3e-3},
    })  # fmt: skip
    spool = TrialSpool(folder / "spool")
    spool.write("trial", {"run_name": "000 mfcc"})
    fields = {"run_id": "0" * 32, "versions": {}}
    job = Job(
        0,
        config.model_dump(mode="json"),
        str(prepared.folder),
        str(spool.folder),
        str(folder / "cache"),
        1,
        fields,
    )
    outcome = run_trial(job, open_device("cpu"), lambda epoch, metrics: False, lambda: False)
    record = Record(folder / "mlruns")
    for one in (record.root, record.spool, record.locks):
        one.mkdir()
    record.database.touch()
    study = open_study(record, Sweep.model_validate({"name": "voices"}))
    study.release()
    study.describe([DataInspection("voices", prepared, audited(prepared)).described()], {}, [])
    trial = study.optuna_study.ask()
    for key, value in {
        "name": "000 mfcc", "config": config.model_dump(mode="json"), "outcome": outcome,
        "fingerprint": config.fingerprint(),
    }.items():  # fmt: skip
        trial.set_user_attr(key, value)
    study.optuna_study.tell(trial, outcome["score"])
    subject = study.trial(0)
    network = network_of(subject, load_weights(spool.artifacts / "model" / "weights.pt"))
    candidate = Candidate(study, subject, "0" * 32, spool.artifacts, (prepared,), (network,))
    model = folder / "model.onnx"
    candidate.export(candidate.specification({}), model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "MAX_SECONDS", 0.2)
        case = Case(candidate, model, benchmark_latency(lambda: open_session(model)))
    return replace(case, parity=check_parity(candidate, model))


def shifted(amount: float) -> Callable[[FastDiarizationModel], None]:
    def change(network: FastDiarizationModel) -> None:
        head(network).bias.data += torch.tensor([-amount / 2, amount / 2])

    return change


def scaled(factor: float) -> Callable[[FastDiarizationModel], None]:
    def change(network: FastDiarizationModel) -> None:
        last = head(network)
        last.weight.data *= factor
        last.bias.data *= factor

    return change


def head(network: FastDiarizationModel) -> torch.nn.Linear:
    return [one for one in network.modules() if isinstance(one, torch.nn.Linear)][-1]


def untrained(network: FastDiarizationModel) -> None:
    torch.manual_seed(0)
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
