"""Which code, which libraries and whose hands: what every run of a launch carries."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

LIBRARIES = (
    "diarization-harness", "torch", "torchaudio", "optuna", "mlflow", "onnx", "onnxruntime-gpu", "onnxruntime",
    "numpy",
)  # fmt: skip


@dataclass(frozen=True)
class Provenance:
    """Tags of a run and the versions that go into an exported file."""

    tags: Mapping[str, str]
    versions: Mapping[str, str]


def provenance() -> Provenance:
    """Versions of what is installed, the commit of the working directory, the user."""
    versions = {name: version for name in LIBRARIES if (version := _version(name))}
    tags = {f"version.{name}": version for name, version in versions.items()}
    tags |= {"mlflow.source.name": "harness", "mlflow.source.type": "LOCAL", "mlflow.user": _user()}
    return Provenance({**tags, **_git_tags()}, versions)


def _git_tags() -> dict[str, str]:
    """Commit of the working directory and whether it was changed; nothing outside a repository."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return {}
    dirty = _git("status", "--porcelain", "--untracked-files=no")
    return {"mlflow.source.git.commit": commit, "harness.git.dirty": str(bool(dirty)).lower()}


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=False)
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
