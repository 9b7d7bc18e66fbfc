"""The ONNX file as a model that MLflow serves: logged once a promotion run, whatever got lost on the way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.tracking.create_once import create_once
from harness.tracking.experiment import Tracking

# What an environment needs to serve it.
REQUIREMENTS = ["onnxruntime", "numpy"]


def logged_model(tracking: Tracking, run_id: str, path: Path) -> tuple[str, str]:
    """URI and id of the run's logged model, which is made if it is not there whole.

    One of the requests that make it cannot be repeated (the run's outputs have unique rows), but MLflow's client
    does so where the answer got lost, and fails: then all of it is made once more, and what was half made goes.
    """
    from mlflow.exceptions import MlflowException

    for last in (False, True):
        for one in _models_of(tracking, run_id):
            if str(one.status) == "READY" and one.name == "model":
                return str(one.model_uri), str(one.model_id)
            tracking.client.delete_logged_model(one.model_id)
        try:
            return _log_model(tracking, run_id, path)
        except MlflowException:
            if last:
                raise
    raise AssertionError("the last attempt returns or raises")


def _models_of(tracking: Tracking, run_id: str) -> list[Any]:
    query = f"source_run_id = '{run_id}'"
    return list(tracking.client.search_logged_models([tracking.experiment_id], query))


def _log_model(tracking: Tracking, run_id: str, path: Path) -> tuple[str, str]:
    """Log the ONNX file as an MLflow model; its signature is waveform (-1, 48000) -> logits (-1, 2), float32."""
    import mlflow.onnx
    import numpy as np
    import onnx
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    graph = onnx.load(str(path), load_external_data=False)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 48_000), "waveform")]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 2), "logits")]),
    )
    # Made here, because MLflow would put it into the experiment of the process: there nobody looks for it.
    made = create_once(
        lambda: tracking.client.create_logged_model(tracking.experiment_id, "model", run_id),
        lambda: next(iter(_models_of(tracking, run_id)), None),
    )
    with _tracking_server_set(tracking.client.tracking_uri):
        logged = Model.log(
            artifact_path=None,
            model_id=made.model_id,
            flavor=mlflow.onnx,
            run_id=run_id,
            onnx_model=graph,
            signature=signature,
            pip_requirements=REQUIREMENTS,
            save_as_external_data=False,
        )
    return str(logged.model_uri), str(logged.model_id)


@contextmanager
def _tracking_server_set(uri: str) -> Iterator[None]:
    """MLflow logs models to the one server of its process only, and leaves its address in the environment.

    Whatever is started later would take a record's own server, gone by then, for a team's: it is taken back.
    """
    import mlflow

    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    before = {name: os.environ.get(name) for name in names}
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before[names[0]])
        mlflow.set_registry_uri(before[names[1]])
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
