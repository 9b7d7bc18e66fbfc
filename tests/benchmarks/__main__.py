"""`python -m tests.benchmarks [--quick] [--only B1,B12] [--out DIR]`: measure, print the table, keep it.

Each benchmark runs in a child process of its own (`alone.py`), one after the other: what one imported, allocated or
left behind is no part of the next. A full run writes results.json and README.md's table, here or into --out; rows that
were not measured stay. Quick ones run in pairs, forked from a process that has imported what all need, and write only
where --out says so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.benchmarks import alone, table
from tests.benchmarks.machine import described
from tests.benchmarks.records import SHARED, shared_server, without_team
from tests.benchmarks.registry import MODULES
from tests.benchmarks.result import Result, not_measured
from tests.benchmarks.scale import FULL, QUICK, TRACED, Scale

HERE = Path(__file__).parent
# Of the quick ones: two that need no record while the shared one is made, then the longest, so that both of a pair end
# together.
FIRST = ("B13", "B12", "B4", "B3", "B5", "B7", "B2")
# What takes seconds to import, and nearly all of the quick ones need.
PRELOADED = [
    "torch",
    "mlflow",
    "optuna",
    "onnxruntime",
    "harness.execution.coordinator",
    "harness.execution.launch",
    "harness.trial",
]
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; 1 if a benchmark failed (one that misses its target has not)."""
    asked = _parser().parse_args(arguments)
    scale = QUICK if asked.quick else FULL
    out = asked.out or (None if asked.quick else HERE)
    machine = described()
    failed, rows = [], {} if out is None else table.read(out)
    without_team()
    for name, seconds, results in measured(asked.only or list(MODULES), scale):
        rows = updated(rows, name, results or [_failed(name)], machine)
        if out is not None:
            table.write(out, rows)  # at once: a later one may be interrupted
        if not results:
            failed.append(name)
        print(f"{name}: {seconds:.0f} s", file=sys.stderr, flush=True)
    print(table.markdown(rows))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def updated(rows: table.Rows, name: str, results: list[Result], machine: Mapping[str, Any]) -> table.Rows:
    """The rows after a benchmark; what it did not measure this time stays as it was measured before."""
    before = {id for id in rows if _owner(id) == name}
    fresh = [
        one for one in results
        if one.value is not None or not (before if one.id == name else rows.get(one.id, {}).get("value"))
    ]  # fmt: skip
    gone = before - {one.id for one in results} if any(one.value is not None for one in results) else set()
    return table.merged({id: row for id, row in rows.items() if id not in gone}, fresh, machine)


def _owner(id: str) -> str:
    """Which benchmark a row is of: all of a GPU are of the script that B6 runs."""
    return "B6" if " GPU" in id else id.split()[0]


def measured(names: list[str], scale: Scale) -> Iterator[tuple[str, float, list[Result]]]:
    """Benchmarks, their seconds and results: one after the other; quick ones, which measure nothing, two at a time."""

    def timed(name: str) -> tuple[str, float, list[Result]]:
        start = time.perf_counter()
        results = run_alone(name, scale, shared)
        return name, time.perf_counter() - start, results

    with tempfile.TemporaryDirectory(prefix="bench-") as shared:
        if not scale.quick:
            yield from map(timed, names)
            return
        # Before the first of them starts the process that all are forked from.
        os.environ.update({**ONE_THREAD, SHARED: shared, TRACED: "1"})
        multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
        with shared_server(), ThreadPoolExecutor(2) as pool:
            yield from pool.map(timed, sorted(names, key=_place))


def _place(name: str) -> int:
    return FIRST.index(name) if name in FIRST else len(FIRST)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description="Measure B1 to B13.")
    parser.add_argument(
        "--quick", action="store_true", help="every arm once, small; writes nothing by itself"
    )
    parser.add_argument("--only", type=_names, help="such as B1,B12")
    parser.add_argument("--out", type=Path, help="folder of results.json and README.md")
    return parser


def _names(text: str) -> list[str]:
    names = [name.strip().upper() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in MODULES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"{text!r}: give some of {', '.join(MODULES)}")
    return names


def run_alone(name: str, scale: Scale, shared: str = "") -> list[Result]:
    """Results of one benchmark; none if it failed, which it has said on stderr.

    `shared` is a folder for what several of them need and none measures.
    """
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as folder:
        rows = Path(folder) / "rows.json"
        code = _forked(name, rows, scale) if scale.quick else _ended(name, rows, scale, shared)
        if code or not rows.exists():
            return []
        found = json.loads(rows.read_text(encoding="utf-8"))
    return [
        Result(
            **{**row, "interval": row["interval"] and tuple(row["interval"]), "notes": tuple(row["notes"])}
        )
        for row in found
    ]


def _ended(name: str, rows: Path, scale: Scale, shared: str) -> int:
    """Exit code of a benchmark in a process of its own; whatever it started ends with it."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.alone", name, str(rows)],
        env={**os.environ, **ONE_THREAD, SHARED: shared},
        start_new_session=True,
    )
    try:
        return child.wait(scale.limit_s)
    except subprocess.TimeoutExpired:
        return _too_long(name, scale)
    finally:
        _end_group(child.pid)
        child.wait()


def _forked(name: str, rows: Path, scale: Scale) -> int:
    """The same of a quick one, forked."""
    child = multiprocessing.get_context("forkserver").Process(target=alone.forked, args=(name, rows))
    child.start()
    try:
        child.join(scale.limit_s)
        return _too_long(name, scale) if child.exitcode is None else child.exitcode
    finally:
        if child.pid is not None:
            _end_group(child.pid)
        child.kill()
        child.join()


def _too_long(name: str, scale: Scale) -> int:
    print(f"{name}: ended after {scale.limit_s:.0f} s", file=sys.stderr)
    return 1


def _end_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _failed(name: str) -> Result:
    return not_measured(name, MODULES[name], "the benchmark failed")


if __name__ == "__main__":
    sys.exit(main())
