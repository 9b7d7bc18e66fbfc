"""Nothing of a run is told to third parties by the libraries; who wants to tell sets the variable."""

from __future__ import annotations

import os
from contextlib import suppress

OFF = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DVC_NO_ANALYTICS": "true",
}


def disable_telemetry() -> None:
    """Set the variables in this process, for itself and for what it starts."""
    for name, value in OFF.items():
        os.environ.setdefault(name, value)


def quiet_environment() -> dict[str, str]:
    """The environment of processes that run MLflow: no telemetry, no job runner, short retries."""
    settings = {
        **OFF,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    environment = {**os.environ, **settings}
    with suppress(KeyError):
        del environment["MLFLOW_TRACKING_URI"]
    return environment
