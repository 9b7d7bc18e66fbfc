"""B8: what it costs to ask for help, against a Python that does nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks.result import Result, judged
from tests.benchmarks.rounds import Reading, interleaved, measured
from tests.benchmarks.scale import Scale

HEAVY = ("torch", "mlflow", "optuna", "numpy")
ROOT = Path(__file__).parents[2]
NOTHING = "pass"
HELP = "import sys; sys.argv = ['harness', '--help']; from harness.cli.entry import main; main()"  # as the script does
HELP_THEN_MODULES = f"""
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted({set(HEAVY)!r} & set(sys.modules))), file=sys.stderr))
{HELP}
"""


def started(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter, from this checkout; it must succeed."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)


def heavy_modules() -> list[str]:
    """Name the heavy modules that `harness --help` imports."""
    done = started(HELP_THEN_MODULES)
    if "Usage: harness" not in done.stdout:
        raise RuntimeError(f"`harness --help` printed no usage: {done.stdout[:200]!r}")
    found: list[str] = json.loads(done.stderr.splitlines()[-1])
    return found


def run(scale: Scale, place: Path) -> list[Result]:
    """Two rows: the ratio, and the heavy modules counted."""
    starts = scale.of(10, 2)

    def starting(program: str) -> Reading:
        def repeat() -> Mapping[str, float]:
            for _ in range(starts):
                started(program)
            return {"starts": starts}

        return measured(repeat)

    modules = heavy_modules()  # before: it also writes the byte code that later starts read
    rounds = interleaved({"help": lambda: starting(HELP), "pass": lambda: starting(NOTHING)}, scale.rounds)

    def each_ms(one: Reading) -> float:
        return 1000 * one.wall_s / one.details["starts"]

    details = {f"{arm}_ms": rounds.median(arm, each_ms) for arm in ("help", "pass")}
    details["cpu_ratio"] = rounds.ratio("help", "pass", lambda one: one.cpu_s).value
    spent = f"{details['help_ms']:.0f} ms against {details['pass_ms']:.0f} ms"
    return [
        judged(
            "B8",
            "`harness --help` / `python -c pass`",
            rounds.ratio("help", "pass"),
            unit="x",
            target="<= 5",
            beyond="3",
            notes=(spent, f"by CPU {details['cpu_ratio']:.2f}x", *rounds.notes, *scale.notes),
            details=details,
        ),
        judged(
            "B8 modules",
            f"heavy modules ({', '.join(HEAVY)}) imported by `harness --help`",
            len(modules),
            unit="",
            target="== 0",
            notes=modules,
            details={"modules": modules},
        ),
    ]
