"""Where a run comes from: code, libraries, user and device, as tags of every run of a launch."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

# Distributions whose version may change a number; of onnxruntime's two one is enough.
LIBRARIES = (
    "diarization-harness",
    "torch",
    "torchaudio",
    "optuna",
    "mlflow",
    "onnx",
    "onnxruntime-gpu",
    "onnxruntime",
    "numpy",
)


@dataclass(frozen=True)
class Provenance:
    """Tags of a run (`version.torch`, `mlflow.user`), and the versions by distribution that an exported file states."""

    tags: Mapping[str, str]
    versions: Mapping[str, str]


def provenance(device: str) -> Provenance:
    """Versions of what is installed, the commit of the code and of the working directory, the user, the device.

    What cannot be found out is left out: no git, no commit; the user is then `unknown`.

    Parameters
    ----------
    device : `cpu` or `cuda`
    """
    versions = {name: version for name in LIBRARIES if (version := _version(name))}
    tags = {f"version.{name}": version for name, version in versions.items()}
    tags |= {"mlflow.source.name": "harness", "mlflow.source.type": "LOCAL", "mlflow.user": _user()}
    return Provenance({**tags, **_git_tags(), "harness.device": device}, versions)


def _git_tags() -> dict[str, str]:
    """Commit of this code where it runs from a clone, and of the working directory, where sweep files lie."""
    here = Path(__file__)
    tags: dict[str, str] = {}
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is not None:
        tags |= _state_of(here.parent, "mlflow.source.git.commit", "harness.git.dirty")
    return tags | _state_of(Path.cwd(), "harness.cwd.git.commit", "harness.cwd.git.dirty")


def _state_of(folder: Path, commit: str, dirty: str) -> dict[str, str]:
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return {}
    return {
        commit: head,
        dirty: str(bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))).lower(),
    }


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
