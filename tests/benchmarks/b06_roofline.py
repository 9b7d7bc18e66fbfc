"""B6, and B1, B5 and B12 on a GPU: what gpu.py measured, where there is one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.machine import gpu_name
from tests.benchmarks.result import Result, not_measured
from tests.benchmarks.scale import Scale

TARGETS = {"raw": (">= 0.40", "0.60"), "MFCC": (">= 0.25", "0.50")}
LIMIT_S = 10 * 60  # gpu.py ends after 8 by itself


def run(scale: Scale, place: Path) -> list[Result]:
    """All of gpu.py's rows; without a GPU two that say so."""
    if gpu_name() is None:
        return [
            not_measured(
                f"B6 {name}", f"floor / measured, {name}", "no GPU here", target=target, beyond=beyond
            )
            for name, (target, beyond) in TARGETS.items()
        ]
    out = place / "gpu.json"
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--out", str(out), *["--tiny"] * scale.quick]
    try:
        ended = f"with {subprocess.run(command, timeout=LIMIT_S).returncode}"
    except subprocess.TimeoutExpired:  # what it had measured by then is there
        ended = f"after {LIMIT_S} s"
    if not out.exists():
        raise RuntimeError(f"gpu.py ended {ended} and wrote nothing")
    rows: dict[str, dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))["rows"]
    return [_result(name, row, scale) for name, row in rows.items()]


def _result(name: str, row: dict[str, Any], scale: Scale) -> Result:
    fields = {key: value for key, value in row.items() if key != "machine"}
    fields["interval"] = fields["interval"] and tuple(fields["interval"])
    fields["notes"] = (*fields["notes"], *scale.notes)
    return Result(id=name, **fields)
