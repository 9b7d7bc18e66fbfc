"""Make the record that the repository ships: `python -m tests.reference_record`, in a clean clone, 3 minutes.

It runs sweeps/quickstart.yaml, leaves the models of all trials but the best one out, and puts a snapshot of the rest
into .dvc/reference with mlruns.dvc pointing to it. Needed again only where older records cannot be read any more.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.maintenance.snapshot.dvc_pointer import POINTER, read_pointer
from harness.maintenance.snapshot.dvc_project import run_dvc
from harness.maintenance.snapshot.snapshot import take_snapshot
from harness.study.storage.record import Record
from harness.study.study import load_study

ROOT = Path(__file__).parents[1]
STUDY, REMOTE = "quickstart", "reference"
MESSAGE = (
    "The quickstart's study, as a reference: the best trial has its model, the others have all but theirs."
)
NOTE = "The model of this run is left out of the reference record, for its size. Everything else is here."


def trim(record: Record) -> None:
    """Remove the models of all trials but the best, and say so in their runs. Nobody else may have the record open."""
    best = load_study(record, STUDY).best()
    assert best is not None
    with closing(sqlite3.connect(record.database)) as database:
        tags = database.execute("select run_uuid, value from tags where key = 'harness.trial'").fetchall()
        for run, trial in tags:
            model = record.artifacts / "1" / run / "artifacts" / "model"
            if int(trial) != best.number and model.is_dir():
                shutil.rmtree(model)
                database.execute(
                    "insert into tags (key, value, run_uuid) values ('mlflow.note.content', ?, ?)",
                    (NOTE, run),
                )
        database.commit()
        database.execute("vacuum")


def main() -> None:
    """Sweep, trim, snapshot, push."""
    nobody = {**os.environ, "LOGNAME": "harness"}  # what a run says of its user
    with TemporaryDirectory() as scratch:
        record = Record(Path(scratch) / "mlruns")
        sweep = [
            sys.executable,
            "-m",
            "harness.cli.main",
            "sweep",
            "sweeps/quickstart.yaml",
            "--record",
            str(record.root),
        ]
        subprocess.run(sweep, cwd=ROOT, env=nobody, check=True)
        trim(record)
        shutil.rmtree(ROOT / ".dvc" / REMOTE / "files", ignore_errors=True)
        take_snapshot(record, ROOT, MESSAGE)
        run_dvc(ROOT, "push", "--quiet", "--remote", REMOTE)
        replace(read_pointer(ROOT / POINTER), remote=REMOTE).write(ROOT)


if __name__ == "__main__":
    main()
