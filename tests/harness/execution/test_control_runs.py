"""Controls in a study: what it remembers, what fails, and one whole study with a sound and a broken control."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data.preparation.prepare import prepare
from harness.config.control_configs import CONTROLS, EPOCHS
from harness.core.provenance import provenance
from harness.execution.executors.protocol import Event, TrialFailed, WorkerLost
from harness.execution.launch import study_coordinator
from harness.execution.runs.jobs import Jobs
from harness.execution.view import View
from harness.metrics.chance_level import judge_against_chance
from harness.study.controls import Control, controls_left, controls_of, keep_control
from harness.study.storage.record import Record
from harness.study.study import load_study, open_study
from harness.tracking.experiment import connect
from harness.tracking.server.server import TrackingServer
from harness.training.job import Job
from tests.harness.places.asked_guards import study_control_guards
from tests.harness.places.control_sweep import sweep, windows

# What a study remembers


def test_a_verdict_stays_with_the_study_and_a_failure_is_tried_again(record: Record) -> None:
    study = open_study(record, sweep())
    assert controls_left(study) == list(CONTROLS)
    broken = Control("unseen", judge_against_chance(np.ones(400), windows(20, 20)[1]), "", "f1")
    failed = Control("shuffled_labels", None, "diverged: nan", "f2")
    keep_control(study, broken)
    keep_control(study, failed)
    study.release()
    again = open_study(record, sweep(controls=["shuffled_labels"]))
    again.release()
    assert controls_of(again) == controls_of(load_study(record, "x")) == [broken, failed]
    assert controls_left(again) == ["shuffled_labels"]
    assert again.trials() == []
    assert (failed.verdict, failed.as_json()["reason"]) == ("uninformative", "diverged: nan")


def test_the_guard_names_the_controls_and_warns_of_a_broken_one() -> None:
    broken = Control("unseen", judge_against_chance(np.ones(400), windows(20, 20)[1]))
    few = Control("shuffled_labels", judge_against_chance(np.ones(90), windows(9, 10)[1]))
    guards = study_control_guards([broken, few])
    assert [(guard.name, guard.ok, guard.level) for guard in guards] == [
        ("negative control unseen", False, "quality"),
        ("negative control shuffled_labels", True, "quality"),
    ]
    assert "broken, 1.000, 99.9 % lower bound" in str(guards[0])
    assert study_control_guards([]) == []


class Failing:
    """An executor whose every training ends as scripted: `lost` a worker, or a bad configuration."""

    slots = 1

    def __init__(self, lost: int) -> None:
        self.jobs: list[Job] = []
        self.submitted: list[int] = []
        self.lost = lost

    @property
    def idle(self) -> int:
        return 1 - len(self.jobs)

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        self.submitted.append(job.number)

    def poll(self, timeout_s: float) -> Iterator[Event]:
        job = self.jobs.pop()
        self.lost -= 1
        if self.lost >= 0:
            yield WorkerLost(job.number, "worker 0 died")
        else:
            yield TrialFailed(job.number, "configuration", "no such thing", "Traceback: ...")

    def reply(self, number: int, *, stop: bool) -> None: ...

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("lost", "reason"), [(1, "configuration: no such"), (9, "infrastructure, 3 times: worker")]
)
def test_a_control_that_fails_says_nothing_and_stops_nothing(
    record: Record, demo_cache: Path, lost: int, reason: str
) -> None:
    study = open_study(record, sweep(controls=["shuffled_labels"]))
    prepared = prepare(study.sweep.data, data_root=None, cache=demo_cache)
    writer: Any = SimpleNamespace(
        notify=lambda spool, begun=False: None,
        status_message=lambda: None,
        is_backlogged=False,
        unreachable_since=None,
        problem=None,
    )
    executor = Failing(lost)
    jobs = Jobs(study, record, {study.sweep.data.digest(): prepared}, provenance("cpu"), demo_cache)
    study_coordinator(jobs, executor, writer, View())[0].run()
    study.release()
    (control,) = controls_of(study)
    assert control.judgement is None
    assert control.reason.startswith(reason)
    assert executor.submitted[-1] == 0  # the trial had its turn
    assert [trial.state for trial in study.trials()] == ["failed"]
    assert controls_left(study) == ["shuffled_labels"]


# Whole studies

SWEEP = """\
name: tiny
data: {corpus: demo, labels: by_sex, train_windows: 480, val_windows: 96, test_windows: 96}
parameters: {feature: mfcc, width: 0.125, epochs: 1}
sampler: random
pruner: none
budget: {trials: 1}
controls: [unseen, shuffled_labels]
"""
VERDICTS = {"unseen": "broken", "shuffled_labels": "sound"}


class Workplace:
    """A folder with a sweep file and a record, and the command line run in it."""

    def __init__(self, folder: Path, cache: Path, sweep: str, **variables: str) -> None:
        self.folder, self.record = folder, Record(folder / "mlruns")
        self.environment = {**os.environ, "HARNESS_CACHE": str(cache), "NO_COLOR": "1", **variables}
        self.write(sweep)

    def write(self, sweep: str) -> None:
        (self.folder / "tiny.yaml").write_text(sweep, "utf-8")

    def start(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "harness.cli.main", *words], cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *words: str) -> str:
        process = self.start(*words)
        stdout, stderr = process.communicate(timeout=400)
        assert process.returncode == 0, f"{words}\n{stdout}\n{stderr}"
        return stdout

    def json(self, *words: str) -> dict[str, Any]:
        return json.loads(self.run(*words, "--json"))

    def wait_for_an_epoch(self, seconds: float = 250.0) -> None:
        deadline = time.monotonic() + seconds
        while not any(self.record.spool.glob("tiny/control-*/events.jsonl")):
            assert time.monotonic() < deadline, "no control finished an epoch in time"
            time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_with_a_sound_and_a_broken_control(
    tmp_path: Path, demo_cache: Path, new_record: Callable[[Path], Record]
) -> None:
    new_record(tmp_path / "mlruns")
    path = os.pathsep.join([str(Path(__file__).parents[1] / "places"), str(Path(__file__).parents[3])])
    place = Workplace(tmp_path, demo_cache, SWEEP, HARNESS_PLUGINS="leaking_labels", PYTHONPATH=path)
    process = place.start("sweep", "tiny.yaml")
    try:
        place.wait_for_an_epoch()
    finally:
        process.kill()
        process.communicate(timeout=60)
    first = place.run("sweep", "tiny.yaml")  # goes on with the control that was killed
    assert "cost: 1 trials and 2 controls on " in first
    assert "\nBROKEN CONTROL unseen: it scores " in first
    assert "\ncontrol shuffled_labels: sound: " in first
    again = place.json("sweep", "tiny.yaml")  # repeats none
    assert (again["study"], again["new_trials"], again["spent"], again["best"]["number"]) == ("tiny", 0, 1, 0)
    controls = {control["name"]: control for control in again["controls"]}
    assert {name: control["verdict"] for name, control in controls.items()} == VERDICTS
    assert min(control["clusters"] for control in controls.values()) >= 10
    assert "BROKEN CONTROL unseen: it scores " in place.run("status", "tiny")
    assert place.json("status")["studies"][0]["controls"] == again["controls"]
    assert list(place.record.spooled("tiny")) == []
    with TrackingServer(place.record) as server:
        _check_runs(connect(server.uri), controls)


def _check_runs(client: Any, controls: dict[str, Any]) -> None:
    """One run a control, with every epoch once, outside the ranking; the launch carries the mark."""
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id], "tags.`harness.kind` = 'control'")
    assert sorted(run.data.tags["harness.control"] for run in runs) == sorted(CONTROLS)
    for run in runs:
        name, tags = run.data.tags["harness.control"], run.data.tags
        assert (run.info.status, tags["harness.state"], tags["harness.verdict"]) == (
            "FINISHED",
            "complete",
            VERDICTS[name],
        )
        points = client.get_metric_history(run.info.run_id, "val/balanced_accuracy")
        assert [point.step for point in points] == list(range(EPOCHS))
        assert points[-1].value == pytest.approx(run.data.metrics["control/value"])
        assert run.data.metrics["control/value"] == controls[name]["value"]
        assert "best/score" not in run.data.metrics
        assert client.list_artifacts(run.info.run_id, "model") == []
        parent = client.get_run(tags["mlflow.parentRunId"])
        if parent.info.status == "FINISHED":  # not that of the launch that was killed
            assert parent.data.tags["harness.controls.broken"] == "unseen"
            assert "BROKEN CONTROL unseen" in parent.data.tags["harness.controls"]
