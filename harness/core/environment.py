"""The libraries tell third parties nothing of a run; whoever wants them to sets the variables before."""

from __future__ import annotations

import os
from contextlib import suppress

# What switches the libraries' telemetry off: MLflow, the Hugging Face hub, DVC, and those that heed DO_NOT_TRACK.
OFF = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DVC_NO_ANALYTICS": "true",
}


def disable_telemetry() -> None:
    """Switch telemetry off in this process and in all that it starts; a variable that is set already stays."""
    for name, value in OFF.items():
        os.environ.setdefault(name, value)


def quiet_environment() -> dict[str, str]:
    """A copy of the environment for processes that run MLflow: no telemetry, no job runner, synchronous logging.

    MLFLOW_TRACKING_URI is taken out: a server of ours must not talk to whatever server the user has elsewhere.
    """
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
