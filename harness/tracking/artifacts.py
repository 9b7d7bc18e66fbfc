"""Files of a run, taken out of MLflow and held against the digest that was taken when they were written."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.errors import FailedError
from harness.core.files import sha256_of

if TYPE_CHECKING:
    from mlflow import MlflowClient


class ArtifactError(FailedError, RuntimeError):
    """MLflow does not hold a file that it should, or holds another one."""


def fetch(client: MlflowClient, run_id: str, name: str, sha256: str, folder: Path) -> Path:
    """Download an artifact into ``folder``, under its last name, and check its digest.

    Raises
    ------
    ArtifactError
        It is not there, or was altered.
    """
    path = _download(client, run_id, name, folder).rename(folder / Path(name).name)
    found = sha256_of(path)
    if found != sha256:
        raise ArtifactError(
            f"{name} of run {run_id} was altered: sha256 {found[:16]}, recorded {sha256[:16]}"
        )
    return path


def _download(
    client: MlflowClient, run_id: str, name: str, folder: Path,
    advice: str = "run the sweep again, it stores what is left",
) -> Path:  # fmt: skip
    from mlflow.exceptions import MlflowException

    try:
        return Path(client.download_artifacts(run_id, name, str(folder)))
    except (MlflowException, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtifactError(f"MLflow does not hold {name} of run {run_id} ({reason}); {advice}") from error
