"""What a training is given: the rate of each step, its precision, its windows and its configuration."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from harness.config.trial.training_config import TrainingConfig
from harness.training.fit import Split, SplitError, learning_rate_at, mixed_precision
from tests.harness.places.separable_training import CPU


def test_the_rate_by_hand() -> None:
    # 20 steps, 4 of warm-up: 1/4, 2/4, 3/4, 1; then (1 + cos(pi k/16))/2 for k = 0..15
    config = TrainingConfig(learning_rate=0.4, warmup_share=0.2)
    rates = [learning_rate_at(step, 20, config) for step in range(20)]
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert rates[12] == pytest.approx(0.2)  # k = 8: half way down
    assert rates[19] == pytest.approx(0.2 * (1 + math.cos(math.pi * 15 / 16)))
    assert learning_rate_at(0, 20, TrainingConfig(learning_rate=0.4, warmup_share=0)) == 0.4


def test_a_cpu_trains_in_fp32() -> None:
    assert mixed_precision(CPU, TrainingConfig()) is None
    assert mixed_precision(torch.device("cuda"), TrainingConfig(precision="fp32")) is None


@pytest.mark.parametrize(
    ("features", "labels", "clusters", "says"),
    [
        (torch.zeros(4, 2, 2), torch.tensor([0, 1, 0]), ["a"] * 4, "4, 3, 4"),
        (torch.zeros(2, 2, 2), torch.tensor([1, 1]), ["a"] * 2, r"hold \[1\]"),
        (torch.zeros(2, 2, 2), torch.tensor([1, 2]), ["a"] * 2, r"hold \[1, 2\]"),
        (torch.zeros(2, 2, dtype=torch.int64), torch.tensor([0, 1]), ["a"] * 2, "int64"),
    ],
)
def test_a_bad_split_is_named(
    features: torch.Tensor, labels: torch.Tensor, clusters: list[str], says: str
) -> None:
    with pytest.raises(SplitError, match=says):
        Split(features, labels, clusters)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 1},
        {"learning_rate": 0},
        {"learning_rate": math.nan},
        {"learning_rate": math.inf},
        {"weight_decay": -1},
        {"warmup_share": 1},
        {"precision": "fp8"},
        {"checkpoint_every": 0},
        {"train_score_windows": 1},
        {"epoch": 3},
    ],
)
def test_a_bad_config_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TrainingConfig.model_validate(wrong)


def test_the_config_is_described_and_light() -> None:
    assert all(field.description for field in TrainingConfig.model_fields.values())
    code = "import sys, harness.config.trial.training_config; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
