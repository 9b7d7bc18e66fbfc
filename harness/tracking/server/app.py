"""MLflow's application on a record, behind the access control: `python -m harness.tracking.server.app HOST PORT`.

It runs in the folder of the record: no letter of its path can be mistaken for a part of a URL. `mlflow server`
would put no check of ours before the application, and would be two processes.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path
from typing import Any

DATABASE = "sqlite:///mlflow.db"
ROOT = "mlflow-artifacts:/"
PASSWORD = "HARNESS_UI_PASSWORD"
# Every server of a record holds it shared, in `locks`, and `harness restore` alone.
LOCK = "server.lock"


def main() -> None:
    """Serve until a signal; a database that MLflow cannot use ends the process at once."""
    from harness.core.redaction import redact_output

    redact_output()
    _hold_record()
    host, port = sys.argv[1], int(sys.argv[2])
    password = os.environ.pop(PASSWORD, None)

    from mlflow.server import constants

    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: DATABASE,
        constants.REGISTRY_STORE_URI_ENV_VAR: DATABASE,
        constants.ARTIFACT_ROOT_ENV_VAR: ROOT,
        constants.ARTIFACTS_DESTINATION_ENV_VAR: "artifacts",
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(f"{name}:*,{name}" for name in allowed_hosts(host)),
    }
    import uvicorn
    from mlflow.server.handlers import initialize_backend_stores
    from sqlalchemy import Engine, event

    event.listen(Engine, "connect", sync_commits)
    initialize_backend_stores(DATABASE, DATABASE, ROOT)
    from mlflow.server.fastapi_app import app

    from harness.tracking.server.access_control import AccessControlMiddleware

    uvicorn.run(
        AccessControlMiddleware(app, allowed_hosts(host), password),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # nobody stands before this server: who a request says forwarded it is not believed
        server_header=False,
        workers=1,  # WEB_CONCURRENCY would ask for more than an application in memory can have
        timeout_graceful_shutdown=3,  # seconds
    )


def _hold_record() -> None:
    """Until this process ends nobody puts another record into the place of this one."""
    folder = Path("locks")
    folder.mkdir(exist_ok=True)
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)  # never closed
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("a record is being restored here; try again when it is done")


def sync_commits(connection: Any, _: object = None) -> None:
    """A commit that was answered survives a loss of power: some builds of SQLite do not sync it by themselves."""
    connection.execute("pragma synchronous = full").close()


def allowed_hosts(host: str) -> tuple[str, ...]:
    """By which names a server at this address may be called: the address itself, on loopback both of its names."""
    from harness.tracking.server.access_control import LOOPBACK

    return LOOPBACK if host in LOOPBACK else (host,)


if __name__ == "__main__":
    main()
