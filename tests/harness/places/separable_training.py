"""A training of a second: a small network with all that could break a resume, and classes that it can tell apart."""

import math

import torch
from torch import nn

from harness.config.trial.training_config import TrainingConfig
from harness.training.fit import EpochReport, FitResult, Split, fit

CPU = torch.device("cpu")
CONFIG = TrainingConfig(
    epochs=6, batch_size=16, learning_rate=5e-3, train_score_windows=40, checkpoint_every=1
)


class Tiny(nn.Module):
    """Everything that could break a resume: batch norm's buffers, dropout's draws, weights."""

    def __init__(self, inputs: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(inputs, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(8, 2))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(features).mean(dim=2))
        return logits


def model(seed: int = 1) -> Tiny:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Tiny()


def split(windows: int, seed: int, shift: float = 1.0) -> Split:
    """Class 1 lies higher in row 0; `shift` 0 makes the classes equal."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(windows) % 2
    features = torch.randn(windows, 4, 12, generator=generator)
    features[:, 0] += shift * labels[:, None]
    return Split(features, labels, [f"s{k % 6}" for k in range(windows)])


TRAIN, VAL = split(90, 0), split(40, 1)


def run(
    config: TrainingConfig = CONFIG, seed: int = 7, net: nn.Module | None = None, **named: object
) -> FitResult:
    return fit(net or model(), TRAIN, VAL, config, seed=seed, device=CPU, **named)  # type: ignore[arg-type]


def numbers(report: EpochReport) -> dict[str, float]:
    """Everything but the clock, which runs."""
    assert 0 < report.metrics["windows_per_s"] < math.inf
    return {name: value for name, value in report.metrics.items() if name != "windows_per_s"}


def same(left: FitResult, right: FitResult) -> None:
    assert [numbers(one) for one in left.reports] == [numbers(one) for one in right.reports]
    assert [one.epoch for one in left.reports] == [one.epoch for one in right.reports]
    assert (left.score, left.best_epoch, left.stopped) == (right.score, right.best_epoch, right.stopped)
    assert left.best_state.keys() == right.best_state.keys()
    for name, tensor in left.best_state.items():
        assert torch.equal(tensor, right.best_state[name]), name
    assert torch.equal(left.val_logits, right.val_logits)
    assert torch.equal(left.train_logits, right.train_logits)
    assert torch.equal(left.train_index, right.train_index)


def same_weights(left: nn.Module, right: nn.Module) -> None:
    for name, tensor in left.state_dict().items():
        assert torch.equal(tensor, right.state_dict()[name]), name
