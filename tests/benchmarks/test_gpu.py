"""Every part of the GPU script, dry, on a CPU; the arithmetic of its floor by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.config.trial.training_config import TrainingConfig
from models.networks.cnn import build_network
from models.networks.config import CnnConfig
from tests.benchmarks.gpu_ceilings import Amount, Ceilings, Layer, floor_s, layers_of
from tests.benchmarks.gpu_training import bare_loop, cases, trial

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("gpu") / "gpu.json"
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--device", "cpu", "--tiny", "--out", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def test_a_dry_run_takes_every_part_and_says_that_it_measured_nothing(
    dry: dict[str, Any],
) -> None:
    assert list(dry["rows"]) == [
        "B1 GPU MFCC", "B1 GPU raw", "B5 GPU MFCC", "B6 MFCC", "B6 raw", "B12 GPU mfcc_delta", "B12 GPU waveform",
    ]  # fmt: skip
    assert all(row["value"] > 0 for row in dry["rows"].values())
    assert all(row["holds"] is None for row in dry["rows"].values())
    assert (dry["measures"], dry["failed"]) == (False, {})
    assert set(dry["ceilings"]["tflops"]) == {"fp32", "bf16"}


def test_it_imports_no_tracking_no_study_and_no_librosa(dry: dict[str, Any]) -> None:
    assert dry["imported"] == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    from tests.benchmarks.gpu import main

    assert main([]) == 2
    assert capfd.readouterr().err.splitlines() == ["no GPU here: torch sees no CUDA device"]


def test_the_bare_loop_ends_where_the_harness_does() -> None:
    for case in cases(tiny=True).values():
        train, val = case.split(case.windows, 0, CPU), case.split(case.val_windows, 1, CPU)
        reports = trial(case, train, val, CPU, case.config, 5).reports
        assert bare_loop(case, train, val, CPU) == reports[-1].metrics["val/balanced_accuracy"]


@pytest.mark.parametrize(("rows", "frames"), [(1, 48_000), (80, 301)])
def test_layers_count_as_the_architecture_does(rows: int, frames: int) -> None:
    config = CnnConfig()
    layers = layers_of(build_network(config, rows, num_frames=frames), rows, frames)
    assert sum(one.macs for one in layers) == config.macs(rows, frames)
    # The first block's convolution and its shortcut have no input gradient to compute.
    assert [one.needs_input_gradient for one in layers].count(False) == 2
    mflop = sum(2 * one.macs * (2 + one.needs_input_gradient) for one in layers) / 1e6
    assert mflop == pytest.approx(
        {1: 76_727, 80: 498}[rows], rel=2e-3
    )  # forward and backward, as computed for the floor


def test_a_layer_takes_the_longer_of_arithmetic_and_traffic() -> None:
    layer = Layer(macs=1000, inputs=10, outputs=20, weights=50, needs_input_gradient=True)
    # 2 windows: 2 * 1000 * 2 = 4000 operations; (2 * 30 + 50) values of 2 bytes = 220 bytes.
    assert layer.forward_s(2, peak=4000, bandwidth=1e9, size=2) == 1.0
    assert layer.forward_s(2, peak=1e9, bandwidth=220, size=2) == 1.0
    # Backward: twice the operations; in, its gradient, out, its gradient, weights and their gradient: 220 values.
    assert layer.backward_s(2, peak=8000, bandwidth=1e9, size=2) == 1.0
    assert layer.backward_s(2, peak=1e9, bandwidth=440, size=2) == 1.0


def test_the_floor_grows_with_epochs_and_steps() -> None:
    model, known = build_network(CnnConfig(width=0.0625), 80), Ceilings({"fp32": 1.0}, 100.0, 1.0)
    config = TrainingConfig(epochs=2, batch_size=4)
    amount = Amount(windows=16, scored=8)
    once = floor_s(model, (80, 64), amount, config, known)
    assert floor_s(model, (80, 64), amount, config.model_copy(update={"epochs": 4}), known) == pytest.approx(
        2 * once
    )
    assert floor_s(model, (80, 64), Amount(32, 16), config, known) == pytest.approx(2 * once)
