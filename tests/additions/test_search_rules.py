"""A pruner and a sampler as plug-ins: named in a sweep file, kept in the study's definition, and used by the coordinator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SWEEP = """\
name: tiny
data: {corpus: demo, subset: clean, task: pseudo, variant: seen, train_windows: 240, val_windows: 96, test_windows: 96}
parameters: {feature: mfcc, learning_rate: {float: [0.0001, 0.1], log: true}, epochs: 4, width: 0.125}
budget: {trials: 9}
"""
LOAD = "import pathlib, sys; from harness.config.files.sweep_loader import load_sweep; load_sweep(pathlib.Path(sys.argv[1]))"


def run(folder: Path, plugin: str, lines: str, *program: str) -> subprocess.CompletedProcess[str]:
    (folder / "tiny.yaml").write_text(SWEEP + lines)
    path = os.pathsep.join([str(HERE), str(ROOT)])
    return subprocess.run(
        [sys.executable, *program, str(folder / "tiny.yaml"), str(folder)],
        env={**os.environ, "HARNESS_PLUGINS": plugin, "PYTHONPATH": path}, text=True, capture_output=True, check=False,
    )  # fmt: skip


def told(folder: Path, plugin: str, lines: str) -> dict[str, Any]:
    done = run(folder, plugin, lines, str(HERE / "scripted_study.py"))
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert answer["same"]
    return answer


def test_a_pruner(tmp_path: Path) -> None:
    lines = "sampler: random\npruner: {type: threshold, lower: 0.7, warmup_epochs: 2}\n"
    found = told(tmp_path, "pruner_example", lines)
    assert (found["sweep"]["pruner"]["type"], found["sweep"]["pruner"]["lower"]) == ("threshold", 0.7)
    assert set(found["states"]) == {"COMPLETE", "PRUNED"}
    for number, (state, shown, why) in enumerate(
        zip(found["states"], found["shown"], found["why"], strict=True)
    ):
        low = [value < 0.7 for value in shown[1:]]  # the first epoch is warm-up
        assert any(low) == (state == "PRUNED")
        if state == "PRUNED":
            assert (
                why
                == f"trial {number} was pruned: the threshold pruner stopped it after epoch {len(shown)} of 4"
            )
    names, *rules = found["schema"]["pruner"]["anyOf"][1]["anyOf"]
    assert "threshold" in names["enum"]
    assert "lower" in rules[-1]["properties"]


def test_a_sampler(tmp_path: Path) -> None:
    found = told(tmp_path, "sampler_example", "sampler: halton\npruner: none\n")
    assert found["sweep"]["sampler"]["type"] == "halton"
    rates = [values["learning_rate"] for values in found["values"]]
    # The first is drawn at random; then the sequence in base 2, over three powers of ten.
    halton = [0, 1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8, 3 / 8, 7 / 8]
    assert rates[1:] == pytest.approx([1e-4 * 10 ** (3 * part) for part in halton])


@pytest.mark.parametrize(
    ("plugin", "lines", "message"),
    [
        ("pruner_example", "pruner: treshold\n", "pruner.type: no such value: 'treshold'; did you mean threshold?"),
        ("", "pruner: threshold\n", "pruner.type: no such value: 'threshold'"),
        ("pruner_example", "pruner: {type: threshold, lower: 2}\n", "pruner.lower: must be less than or equal to 1; got 2"),
        ("pruner_example", "pruner: {type: threshold, lower: '1'}\n", "pruner.lower: must be a number; got \"1\""),
        ("pruner_example", "pruner: {type: median, lower: 0.5}\n", "pruner.lower: no such key"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(tmp_path: Path, plugin: str, lines: str, message: str) -> None:
    done = run(tmp_path, plugin, lines, "-c", LOAD)
    assert done.returncode == 1
    assert message in done.stderr
