"""The machine that latencies were measured on: they say little without it. Standard library only."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

THREADS = 1  # of every measured session (models/onnx_io/runtime.py)
_CPUINFO = Path("/proc/cpuinfo")


def machine() -> dict[str, Any]:
    """What a latency must be read with: `cpu` (its model), `cores`, `threads` (of a session) and `system`."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": THREADS,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_model() -> str:
    try:
        lines = _CPUINFO.read_text("utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next((name for name in named if name), "") or platform.processor() or platform.machine()


def load() -> float | None:
    """Processes that wanted a core, on average over the last minute; None where nobody counts them."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):  # no such call there
        return None
