"""A study run in this process by a real coordinator with real workers, without the seconds that MLflow takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from data.preparation.prepare import prepare
from harness.config.sweep import Sweep
from harness.core.provenance import provenance
from harness.execution.executors.local import LocalExecutor
from harness.execution.launch import study_coordinator
from harness.execution.runs.jobs import Jobs
from harness.execution.view import View
from harness.study.storage.record import Record
from harness.study.storage.trial_spool import TrialSpool
from harness.study.study import Study, open_study
from harness.study.trials import TrialSummary

HERE = Path(__file__).parent
DATA = {"corpus": "demo", "train_windows": 120, "val_windows": 96, "test_windows": 96}


class NoMlflow:
    """Where the coordinator's pokes go; nothing is stored, and the spools stay."""

    is_backlogged, unreachable_since, problem, is_responsive = False, None, None, True

    def notify(self, spool: TrialSpool, *, begun: bool = False) -> None:
        """Nothing to do."""

    def status_message(self) -> str | None:
        """Nothing is new."""
        return None


class Said(View):
    """A view that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        """Keep it."""
        self.lines.append(text)


def bare_record(folder: Path) -> Record:
    """What Optuna's half of a record needs."""
    record = Record(folder / "mlruns")
    for place in (record.root, record.spool, record.locks, record.artifacts):
        place.mkdir(parents=True)
    record.database.touch()
    return record


def sweep(trials: int, epochs: int = 3, **changes: Any) -> Sweep:
    """A grid over dropout, by which the plugin tells its networks: trial k has 0.01 (k + 1)."""
    dropouts = [round(0.01 * (k + 1), 2) for k in range(trials)]
    base = {
        "name": "small", "data": DATA, "sampler": "grid", "pruner": "none", "budget": {"trials": trials},
        "parameters": {"width": 0.0625, "epochs": epochs, "dropout": dropouts},
    }  # fmt: skip
    return Sweep.model_validate(base | changes)


def ill(patch: pytest.MonkeyPatch, notes: Path, *illnesses: str) -> None:
    """Have the workers load the plugin, with the illness of each trial in their order; "" is well."""
    listed = [f"{round(0.01 * (k + 1), 2)}={name}" for k, name in enumerate(illnesses)]
    notes.mkdir()
    for name, value in (
        ("HARNESS_PLUGINS", "sick_plugin"), ("PYTHONPATH", f"{HERE}:{HERE.parents[1]}"),
        ("HARNESS_SICK", ",".join(listed)), ("HARNESS_SICK_NOTES", str(notes)),
    ):  # fmt: skip
        patch.setenv(name, value)
    patch.syspath_prepend(str(HERE))


def run(
    record: Record, cache: Path, definition: Sweep, *, hang_s: float | None = None, workers: int = 1,
    during: Callable[[LocalExecutor], None] = lambda executor: None,
) -> tuple[Study, list[str]]:  # fmt: skip
    """Run a study to its end; what it holds, and what was said. `during` hears of the executor at the beginning."""
    study = open_study(record, definition)
    executor = LocalExecutor(workers, "cpu", record.root / "logs", hang_s)
    view = Said()
    try:
        during(executor)
        prepared = prepare(definition.data, data_root=None, cache=cache)
        digests = {name: part.manifest.digest for name, part in prepared.splits.items()}
        study.check_manifests({definition.data.digest(): digests})
        writer: Any = NoMlflow()
        jobs = Jobs(study, record, {definition.data.digest(): prepared}, provenance("cpu"), cache)
        study_coordinator(jobs, executor, writer, view)[0].run()
    finally:
        executor.close()
        study.release()
    return study, view.lines


def spooled_epochs(record: Record, trial: TrialSummary) -> list[int]:
    """The epochs that the spool of a trial holds, in the order of its lines."""
    return [event["epoch"] for event in TrialSpool(record.spool / "small" / f"{trial.number:05d}").epochs()]


def alive(pids: list[int]) -> list[int]:
    """Which of these processes still run."""

    def runs(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return [pid for pid in pids if runs(pid)]


def children(notes: Path) -> list[int]:
    """What the networks forked."""
    file = notes / "children"
    return [int(line) for line in file.read_text().split()] if file.exists() else []
