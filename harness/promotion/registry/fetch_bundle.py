"""A promoted bundle, held against its digests."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from harness.promotion.bundle.files import SUMS, bundle_digest, read_bundle
from harness.tracking.artifacts import ArtifactError, download

if TYPE_CHECKING:
    from mlflow import MlflowClient


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
        found = download(client, run_id, "bundle", Path(aside), "promote again")
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
