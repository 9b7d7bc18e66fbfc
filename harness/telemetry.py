"""Nothing of a run is told to third parties by the libraries; who wants to tell sets the variable."""

from __future__ import annotations

import os

OFF = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DVC_NO_ANALYTICS": "true",
}


def keep_quiet() -> None:
    """Set the variables in this process, for itself and for what it starts."""
    for name, value in OFF.items():
        os.environ.setdefault(name, value)
