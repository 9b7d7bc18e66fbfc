"""A record of one server with runs that answer by loudness, for the tests of `harness evaluate`; nothing is trained."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from click.testing import CliRunner
from mlflow import MlflowClient

from data.preparation.manifest import Manifest
from data.preparation.prepared import RECORD, Prepared, SplitData, manifest_path
from data.store.content_store import build_once
from harness.cli.main import cli
from harness.config.trial.trial_config import TrialConfig
from harness.core.files import sha256_of
from harness.selection.build_ensemble import LoadedMembers, _header
from harness.study.ensembles import EnsembleSummary, save_ensemble
from harness.study.storage.trial_spool import TrialSpool
from harness.study.study import Study
from harness.tracking.experiment import Tracking
from models.export.specification import Specification


def specification(task: str, **fields: Any) -> Specification:
    return Specification(
        task=task, variant="only", label_meaning={"0": "no", "1": "yes"},
        **{"front_end": {"kind": "waveform"}, "architecture": {}, **fields},
        label_map_digest="0" * 64, manifest_digests={}, fingerprint="0" * 64, run_id="", versions={},
        created="2025-01-31T12:00:00+00:00",
    )  # fmt: skip


def floats(*row: float) -> npt.NDArray[np.float32]:
    return np.array([row], dtype=np.float32)


def loudness_model(path: Path, task: str) -> None:
    """Write a model that answers by mean power alone: yes from what 0.5 s of two sines in 3 s have."""
    bound = 0.2**2 / 2 * (1 + 0.499 / 3)
    constants = {"axes": np.array([1]), "scale": floats(0, 1e6), "bias": floats(0, -1e6 * bound)}
    nodes = [
        onnx.helper.make_node("Mul", ["waveform", "waveform"], ["power"]),
        onnx.helper.make_node("ReduceMean", ["power", "axes"], ["mean"], keepdims=1),
        onnx.helper.make_node("Mul", ["mean", "scale"], ["scaled"]),
        onnx.helper.make_node("Add", ["scaled", "bias"], ["logits"]),
    ]
    signature = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", size])
        for name, size in (("waveform", 48_000), ("logits", 2))
    ]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, "loudness", signature[:1], signature[1:], tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.helper.set_model_props(model, specification(task).to_metadata())
    path.write_bytes(model.SerializeToString())


@dataclass
class EvaluationRecord:
    """A record with its one server, the corpora, and the command line on them."""

    folder: Path
    ami: Path
    client: MlflowClient
    tracking: Tracking
    runs: int = 0

    def record_run(
        self, task: str = "overlap", *, model: Path | None = None, train: str = "lbs-1", val: str = "lbs-2",
        digest: str | None = None, tracking: Tracking | None = None, number: int | None = None,
        header: dict[str, Any] | None = None,
    ) -> str:  # fmt: skip
        """Store a complete trial (or what `header` says) as a sweep does, through a spool; its run id."""
        tracking = tracking or self.tracking
        spool = TrialSpool(self.folder / f"{self.runs:05d}")
        number = self.runs if number is None else number
        self.runs += 1
        own = spool.artifacts / "model"
        own.mkdir(parents=True)
        if model is None:
            loudness_model(own / "model.onnx", task)
        else:
            (own / "model.onnx").write_bytes(model.read_bytes())
        np.savez(
            spool.artifacts / "predictions.npz",
            train_clusters=np.array([train]),
            val_clusters=np.array([val]),
        )
        spool.write("trial", header or {
            "number": number, "run_name": f"{number:03d} {task}", "time_ms": 1_700_000_000_000,
            "tags": {"harness.kind": "trial", "harness.trial": str(number), "harness.study": tracking.study},
            "params": {"digest.train": "1" * 64, "digest.val": "2" * 64}, "datasets": [],
        })  # fmt: skip
        sums = {name: sha256_of(spool.artifacts / name) for name in ("model/model.onnx", "predictions.npz")}
        sums["model/model.onnx"] = digest or sums["model/model.onnx"]
        tags = {f"harness.sha256.{name}": value for name, value in sums.items()}
        verdict = {"status": "FINISHED", "time_ms": 1_700_000_100_000, "metrics": {}, "tags": tags}
        spool.write("verdict", verdict)
        assert tracking.store_trial(spool)
        return str(tracking.find(header["key"] if header else tracking.trial_key(number)))

    def record_ensemble(self, study: Study, name: str, prepared: Sequence[Prepared]) -> EnsembleSummary:
        """Store the average of all trials of a study, which were trained on these windows, in turn."""
        for one in prepared:
            keep_prepared(self.folder / "cache", one)
        members = tuple(study.trials())
        averaged = LoadedMembers(study, name, members, tuple("rs"), tuple(prepared), ())
        tracking = Tracking(self.client, study.name, identity=study.identity)
        folder = self.folder / f"{self.runs:05d}" / "outputs" / "artifacts"
        run = self.record_run(tracking=tracking, header=_header(averaged, "f" * 64, {}))
        sums = {name: sha256_of(folder / name) for name in ("model/model.onnx", "predictions.npz")}
        found = EnsembleSummary(name, run, members, averaged.runs, "f" * 64, {"score": 0.8, "sha256": sums})
        save_ensemble(study, found)
        return found

    def run(self, run: str, *words: str, code: int = 0, root: Path | None = None) -> str:
        done = CliRunner().invoke(
            cli,
            ["evaluate", run, "--meetings", "--record", str(self.folder / "mlruns"), "--cache",
             str(self.folder / "cache"), "--data-root", str(root or self.ami), "--step", "0.5", *words],
        )  # fmt: skip
        assert done.exit_code == code, f"{done.output}\n{done.exception}"
        return done.output

    def json(self, run: str, *words: str, root: Path | None = None) -> dict[str, Any]:
        return dict(json.loads(self.run(run, *words, "--json", root=root)))


def complete_trial(study: Study) -> None:
    """Add a trial of default configuration, as if it had been trained."""
    config = TrialConfig()
    trial = study.optuna_study.ask()
    trial.set_user_attr("config", config.model_dump(mode="json"))
    trial.set_user_attr("fingerprint", config.fingerprint())
    study.optuna_study.tell(trial, 0.8)


def trained_on(prepared: Prepared, speaker: str, cluster: str) -> Prepared:
    """The same data with other training windows: all of them of this speaker and cluster."""
    part = prepared.train
    windows = tuple(
        replace(one, speakers=(speaker,), speaker=speaker, cluster=cluster) for one in part.manifest.windows
    )
    train = SplitData(Manifest("train", windows), part.folder)
    return replace(prepared, splits={**prepared.splits, "train": train})


def keep_prepared(cache: Path, prepared: Prepared) -> None:
    """Put into a cache what a preparation leaves there of its manifests."""

    def build(aside: Path) -> None:
        for split, part in prepared.splits.items():
            part.manifest.save(manifest_path(aside, split))
        splits = {split: {"manifest_digest": digest} for split, digest in prepared.digests.items()}
        (aside / RECORD).write_text(json.dumps({"splits": splits}), "utf-8")

    build_once(cache / "prepared" / prepared.train.manifest.digest[:16], build)
