"""What the numbers were measured on: they say little without it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import subprocess
from datetime import UTC, datetime
from typing import Any

import psutil

from harness.promotion.bundle.machine import load, machine
from tests.benchmarks.rounds import Canary

PACKAGES = (
    "torch",
    "mlflow",
    "optuna",
    "onnxruntime",
    "onnxruntime-gpu",
    "librosa",
    "ray",
    "hydra-core",
    "numpy",
)


def described() -> dict[str, Any]:
    """CPU, cores, memory, GPU, versions, date, canary and load; plain values."""
    known = machine()
    return {
        "cpu": known["cpu"],
        "cores": len(psutil.Process().cpu_affinity())
        if hasattr(psutil.Process, "cpu_affinity")
        else known["cores"],
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": gpu_name(),
        "system": known["system"],
        "python": platform.python_version(),
        "versions": _versions(),
        "date": datetime.now(UTC).date().isoformat(),
        "canary_ms": round(1000 * min(Canary()() for _ in range(3)), 1),
        "load": load(),
    }


def gpu_name() -> str | None:
    """Name of the first GPU, or None; asked of the driver's own tool, which costs no import of torch."""
    try:
        said = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(said.strip().splitlines()), None)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
