"""MLflow's client, as this project talks to a server with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from harness.core.environment import quiet_environment

if TYPE_CHECKING:
    from mlflow import MlflowClient


def connect(uri: str) -> MlflowClient:
    """A client that gives up within seconds instead of minutes, and tells nobody about us.

    It does so by variables of this process (two retries, 30 s a request); those that the user has set stay.
    """
    for name, value in quiet_environment().items():
        if name.startswith("MLFLOW_") or name in ("DO_NOT_TRACK", "GIT_PYTHON_REFRESH"):
            os.environ.setdefault(name, value)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    # An MLflow server waits 20 s for its database: what it does after its client gave up would be done twice.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    _pass_by_proxies(uri)
    import logging

    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # else a line for each repetition
    _look_for_databricks_no_more()
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _pass_by_proxies(uri: str) -> None:
    """The web proxy of a company knows no server of this machine."""
    host = urlsplit(uri).hostname
    if host in ("127.0.0.1", "localhost"):
        around = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        if host not in around.split(","):
            os.environ["no_proxy"] = ",".join(filter(None, (around, host)))


def _look_for_databricks_no_more() -> None:
    """At every request MLflow tries to import modules of Databricks; that they are not there takes half of its time."""
    from mlflow.tracking.request_header import registry
    from mlflow.tracking.request_header.databricks_request_header_provider import (
        DatabricksRequestHeaderProvider,
    )

    if "DATABRICKS_RUNTIME_VERSION" not in os.environ:
        known = registry._request_header_provider_registry
        known._registry = [one for one in known if not isinstance(one, DatabricksRequestHeaderProvider)]
