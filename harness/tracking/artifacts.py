"""Files of a run, taken out of MLflow and held against the digest that was taken when they were written."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from harness.bundle_files import SUMS, bundle_digest, read_bundle
from harness.core.files import sha256_of

if TYPE_CHECKING:
    from mlflow import MlflowClient


class ArtifactError(RuntimeError):
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


def fetch_bundle(client: MlflowClient, run_id: str, digest: str | None, folder: Path) -> Path:
    """Download a promotion run's bundle to ``folder``, which must not exist, and check every file's digest.

    Parameters
    ----------
    digest : sha256 of SHA256SUMS as the registry recorded it; None holds the files against SHA256SUMS alone

    Raises
    ------
    ArtifactError
        It is not there, or a file was altered, added or removed; each is named. ``folder`` is not made.
    """
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder.parent) as aside:
        found = _download(client, run_id, "bundle", Path(aside), "promote again")
        if not found.is_dir():
            raise ArtifactError(f"MLflow holds no bundle of run {run_id}")
        wrong = _altered(found, digest)
        if wrong:
            raise ArtifactError(f"the bundle of run {run_id} is not what was promoted: {'; '.join(wrong)}")
        found.rename(folder)
    return folder


def _altered(bundle: Path, digest: str | None) -> list[str]:
    """What is wrong with a bundle's files, a line each."""
    sealed = bundle_digest(bundle) if (bundle / SUMS).is_file() else "none"
    if digest is not None and sealed != digest:
        return [f"{SUMS} was altered: its sha256 is {sealed[:12]}.., the registry has {digest[:12]}.."]
    _, wrong, altered = read_bundle(bundle)
    return wrong + altered


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
