"""MLflow's model registry: one registered model a task and variant, the champion under an alias."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from harness.ensemble_record import EnsembleSummary
from harness.run_page import external_tags
from harness.statistics import ClusteredInterval
from harness.study import TrialSummary
from harness.tracking import Tracking
from harness.trial_config import TrialConfig

CHAMPION = "champion"
# Tag of a version: digest of the windows it was tested on.
MANIFEST = "harness.test_manifest"
REQUIREMENTS = ["onnxruntime", "numpy"]


def register(
    tracking: Tracking,
    source_run: str,
    study: str,
    subject: TrialSummary | EnsembleSummary,
    bundle: Path,
    name: str,
    test: ClusteredInterval,
    manifest: str,
    tags: Mapping[str, str],
) -> str:
    """Log the bundle and the model in a promotion run of their own, register it, point the alias at it.

    The alias moves last: killed before, the old champion stays; killed after, the new one is complete.
    Returns the version.
    """
    client = tracking.client
    run_id = tracking.run(
        f"{study}/promotion/{time.time_ns()}",
        f"promote {subject.label}",
        {
            **tags,
            "harness.kind": "promotion",
            "harness.study": study,
            **_mark(subject),
            "harness.source_run": source_run,
            "harness.state": "running",
        },
    )
    own = {"harness.study": study, **_mark(subject), MANIFEST: manifest}
    try:
        version = _new_version(tracking, run_id, bundle, name, own)
    except Exception:
        tracking.end(run_id, "FAILED", {"harness.state": "failed"}, {})
        raise
    metrics = {
        "test/balanced_accuracy": test.value, "test/low": test.low, "test/high": test.high,
        "test/clusters": float(test.clusters), "test/windows": float(test.windows),
    }  # fmt: skip
    tracking.end(run_id, "FINISHED", {"harness.state": "promoted", "harness.version": version}, metrics)
    client.set_registered_model_alias(name, CHAMPION, version)
    return version


def _mark(subject: TrialSummary | EnsembleSummary) -> dict[str, str]:
    external = external_tags(TrialConfig.model_validate(member.config) for member in subject.members)
    if isinstance(subject, EnsembleSummary):
        return {"harness.ensemble": subject.name, **external}
    return {"harness.trial": str(subject.number), **external}


def champion_of(tracking: Tracking, name: str) -> tuple[str, str] | None:
    """Version and test manifest of the present champion; None where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        version = tracking.client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException:
        return None
    return str(version.version), str(version.tags.get(MANIFEST, ""))


def _new_version(tracking: Tracking, run_id: str, bundle: Path, name: str, tags: dict[str, str]) -> str:
    tracking.client.log_artifacts(run_id, str(bundle), "bundle")
    uri, model_id = _log_model(tracking, run_id, bundle / "model.onnx")
    _ensure_registered(tracking, name)
    tags = {**tags, "confirmed": "unconfirmed"}
    return str(tracking.client.create_model_version(name, uri, run_id, tags=tags, model_id=model_id).version)


def _log_model(tracking: Tracking, run_id: str, path: Path) -> tuple[str, str]:
    """Log the ONNX file as an MLflow model, with its signature; its URI and id."""
    import mlflow
    import mlflow.onnx
    import numpy as np
    import onnx
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    mlflow.set_tracking_uri(tracking.client.tracking_uri)
    mlflow.set_registry_uri(tracking.client.tracking_uri)
    graph = onnx.load(str(path), load_external_data=False)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 48_000), "waveform")]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 2), "logits")]),
    )
    logged = Model.log(
        artifact_path=None,
        name="model",
        flavor=mlflow.onnx,
        run_id=run_id,
        onnx_model=graph,
        signature=signature,
        pip_requirements=REQUIREMENTS,
        save_as_external_data=False,
    )
    return str(logged.model_uri), str(logged.model_id)


def _ensure_registered(tracking: Tracking, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        tracking.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
