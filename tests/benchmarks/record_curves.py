"""`python -m tests.benchmarks.record_curves FOLDER`: train the trials whose curves B11 replays, and keep curves.json.

A real sweep on the demo corpus, unpruned (17 minutes on two cores), of 72 steps an epoch, so that an epoch shows as much
as one does on thousands of windows. FOLDER is for its record and its cache.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.study.storage.record import Record
from harness.study.study import load_study
from tests.benchmarks.replay import RECORDED

SWEEP: dict[str, Any] = {
    "name": "curves",
    "data": {
        "corpus": "demo", "subset": "clean", "task": "pseudo", "variant": "seen",
        "train_windows": 1200, "val_windows": 480, "test_windows": 96,
    },
    "parameters": {
        "feature": ["mfcc", "log_mel"],
        "learning_rate": {"float": [0.0001, 0.1], "log": True},
        "weight_decay": {"float": [0.0001, 0.3], "log": True},
        "batch_size": 16,
        "width": 0.125,
        "epochs": 30,
    },
    "sampler": "random",
    "pruner": "none",
    "budget": {"trials": 40},
}  # fmt: skip


def main(folder: Path) -> None:
    """Run the sweep, then keep what each complete trial showed on its validation windows."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "curves.yaml"
    file.write_text(json.dumps(SWEEP), encoding="utf-8")  # JSON is YAML
    places = ["--record", str(folder / "mlruns"), "--cache", str(folder / "cache")]
    subprocess.run([sys.executable, "-P", "-m", "harness.cli.main", "sweep", str(file), *places], check=True)
    trials = load_study(Record(folder / "mlruns"), "curves").trials()
    curves = [trial.outcome["curves"]["val"] for trial in trials if trial.state == "complete"]
    kept = {"sweep": SWEEP, "curves": [[round(value, 5) for value in curve] for curve in curves]}
    RECORDED.write_text(json.dumps(kept) + "\n", encoding="utf-8")
    print(f"{len(curves)} curves in {RECORDED}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
