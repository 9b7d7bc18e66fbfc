"""Files of a run, taken out of MLflow and held against the digest that was taken when they were written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.disk_space import says_disk_full
from harness.core.errors import FailedError
from harness.core.files import sha256_of
from harness.core.format import one_line

if TYPE_CHECKING:
    from mlflow import MlflowClient


STORED_BY_NEXT_LAUNCH = "run the sweep again, it stores what is left"


class ArtifactError(FailedError, RuntimeError):
    """MLflow does not hold a file that it should, or holds another one."""


def fetch(client: MlflowClient, run_id: str, name: str, sha256: str, folder: Path) -> Path:
    """Download an artifact (`name` is its path in the run) into ``folder``, flat, and check its sha256.

    Raises
    ------
    ArtifactError
        It is not there, or its digest is not ``sha256``: it was altered.
    OSError
        The disk is full.
    """
    path = download(client, run_id, name, folder).rename(folder / Path(name).name)
    found = sha256_of(path)
    if found != sha256:
        raise ArtifactError(
            f"{name} of run {run_id} was altered: sha256 {found[:16]}, recorded {sha256[:16]}"
        )
    return path


def download(
    client: MlflowClient, run_id: str, name: str, folder: Path, advice: str = STORED_BY_NEXT_LAUNCH
) -> Path:
    """Download a file or folder of a run into ``folder``, unchecked, and return where it lies.

    Raises
    ------
    ArtifactError
        MLflow does not hold it; the message ends with ``advice``.
    OSError
        The disk is full.
    """
    from mlflow.exceptions import MlflowException

    try:
        return Path(client.download_artifacts(run_id, name, str(folder)))
    except (MlflowException, OSError) as error:
        if says_disk_full(error):
            raise
        raise ArtifactError(
            f"MLflow does not hold {name} of run {run_id} ({one_line(error)}); {advice}"
        ) from error
