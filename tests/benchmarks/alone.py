"""`python -m tests.benchmarks.alone B8 ROWS.json`: one benchmark in this process, its rows to a file."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks import registry
from tests.benchmarks.records import without_team
from tests.benchmarks.result import not_measured
from tests.benchmarks.rounds import CannotRun
from tests.benchmarks.scale import FULL, QUICK, Scale


def forked(name: str, rows: Path) -> None:
    """Run the quick form in a process that was forked for it, as the leader of all that it starts."""
    os.setsid()
    main(name, rows, QUICK)


def main(name: str, rows: Path, scale: Scale = FULL) -> None:
    """Run it; a benchmark that this machine does not allow leaves a row that says so."""
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as place:
        try:
            results = registry.run(name, scale, Path(place))
        except CannotRun as reason:
            results = [not_measured(name, registry.MODULES[name], str(reason))]
    rows.write_text(json.dumps([asdict(one) for one in results]), encoding="utf-8")


if __name__ == "__main__":
    without_team()
    main(sys.argv[1], Path(sys.argv[2]))
