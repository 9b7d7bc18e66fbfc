"""Trials in a spool, to be stored in MLflow, and what an experiment holds of them."""

from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from PIL import Image

from harness.study.storage.trial_spool import TrialSpool
from harness.tracking.experiment import Tracking

EPOCHS = 3


def spooled(folder: Path, number: int = 0, epochs: int = EPOCHS) -> TrialSpool:
    spool = TrialSpool(folder / f"{number:05d}")
    spool.write("trial", {
        "number": number,
        "run_name": f"{number:03d} mfcc",
        "time_ms": 1_700_000_000_000,
        "tags": {"harness.kind": "trial", "harness.trial": str(number), "harness.state": "running"},
        "params": {"feature": "mfcc", "seed": 7, "data.parts": "{}", **{f"p{k}": k for k in range(120)}},
        "datasets": [
            {"name": "demo-clean", "digest": split * 64, "source": "demo/pseudo/seen", "profile": '{"windows": 4}', "context": split}
            for split in ("train", "val")
        ],
    })  # fmt: skip
    for epoch in range(epochs):
        spool.append_epoch(epoch, {"val/loss": 1 / (epoch + 1), "score": epoch / 10})
    return spool


def ended(spool: TrialSpool, status: str, state: str) -> TrialSpool:
    spool.artifacts.mkdir(parents=True)
    (spool.artifacts / "model.onnx").write_bytes(b"\0\1\2" * 1000)
    (spool.artifacts / "labels").mkdir()
    (spool.artifacts / "labels" / "labels.json").write_text('{"share_1": 0.5}')
    spool.images.mkdir()
    for key in ("labels", "roc"):
        Image.new("RGB", (40, 30), "white").save(spool.images / f"{key}.png")
    spool.write("verdict", {
        "status": status, "time_ms": 1_700_000_100_000, "metrics": {"best/score": 0.2, "labels/train/share_1": 0.5},
        "tags": {"harness.state": state, "harness.reason": "r"},
    })  # fmt: skip
    return spool


def everything(client: MlflowClient, tracking: Tracking) -> list[dict[str, Any]]:
    """The whole of an experiment, without what may differ between two ways to the same record."""
    rows = []
    for run in client.search_runs([tracking.experiment_id]):

        def files(path: str | None = None, run_id: str = run.info.run_id) -> list[str]:
            found: list[str] = []
            for one in client.list_artifacts(run_id, path):
                found += files(one.path, run_id) if one.is_dir else [one.path]
            return sorted(found)

        rows.append({
            "name": run.info.run_name, "status": run.info.status, "params": run.data.params,
            "tags": {key: value for key, value in run.data.tags.items() if key.startswith(("harness", "mlflow.parent"))},
            "metrics": {key: [(m.step, m.value, m.timestamp) for m in client.get_metric_history(run.info.run_id, key)] for key in run.data.metrics},
            "inputs": sorted((i.dataset.name, i.dataset.digest, i.tags[0].value) for i in run.inputs.dataset_inputs),
            "artifacts": files(),
        })  # fmt: skip
    return rows
