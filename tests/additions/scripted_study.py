"""Runs a sweep file by the real coordinator, with learning curves that are made up: python scripted_study.py FILE FOLDER."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from harness.config.files.sweep_loader import load_sweep
from harness.config.json_schema import json_schema
from harness.reporting.explain.why import explain_trial
from harness.study.study import load_study, open_study
from tests.benchmarks.records import empty_record
from tests.benchmarks.synthetic import coordinate, prepared_for

sweep, folder = load_sweep(Path(sys.argv[1])), Path(sys.argv[2])
record = empty_record(folder / "mlruns")
inspections = prepared_for(sweep, folder)
study = open_study(record, sweep)
study.check_manifests({one.prepared.config.digest(): one.digests for one in inspections})
coordinate(study, record, inspections, folder / "cache")[0].run()
study.release()
study = load_study(record, sweep.name)  # as it is read again
trials = study.optuna_study.get_trials(deepcopy=False)
told = {
    "sweep": study.sweep.model_dump(mode="json"),
    "same": study.sweep.digest() == sweep.digest(),
    "values": [trial.params for trial in trials],
    "states": [trial.state.name for trial in trials],
    "shown": [list(trial.intermediate_values.values()) for trial in trials],
    "why": [explain_trial(record, study, str(trial.number), is_run=False).why for trial in trials],
    "schema": json_schema()["properties"],
}
print(json.dumps(told))
