"""A training to stop anywhere, and its result where nobody stopped it.

Small, with everything that could break it: batch norm's buffers, dropout, the average of the weights, reverb, noise and
masks, a front end that draws random numbers, an optimizer with moments.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.config.trial.training_config import TrainingConfig
from harness.study.storage.trial_spool import CHECKPOINT
from harness.training.checkpoint import read_checkpoint
from harness.training.fit import EpochReport, FitResult, Split, fit
from models.augmentation import Augmentation
from tests.harness.places.separable_training import Tiny, model, numbers

CPU = torch.device("cpu")
CONFIG = TrainingConfig(
    epochs=3, batch_size=8, learning_rate=5e-3, train_score_windows=16, ema_decay=0.9, checkpoint_every=2
)
AUGMENTATION = Augmentation(
    4, 12, 0.7, noise_snr_db=0.0, gain_db=6.0, reverb_rt60_s=0.1, freq_mask=1, time_mask=4
)


def dithered(batch: torch.Tensor) -> torch.Tensor:
    """A front end that draws, in evaluations too."""
    return 10 * (batch + 1e-3 * torch.randn_like(batch)).unflatten(1, (4, 12))


def waves(windows: int, seed: int) -> Split:
    """Class 1 is louder; (window, 48) int16."""
    labels = torch.arange(windows) % 2
    noise = torch.randn(windows, 48, generator=torch.Generator().manual_seed(seed))
    return Split((noise * (1000 + 3000 * labels[:, None])).to(torch.int16), labels, ["s"] * windows)


TRAIN, VAL = waves(37, 0), waves(24, 1)  # 4 steps, 2 + 3 batches of evaluation
STEPS, BATCHES = 4, 5
ASKED = CONFIG.epochs * (STEPS + BATCHES)  # times that `should_stop` is asked in a whole training


class KilledError(BaseException):
    """Nothing is closed and nothing written any more."""


@dataclass
class Stop:
    """What `should_stop` says when it is asked for the n-th time: stop, or nothing because the process is dead."""

    at: float = math.inf
    kill: bool = False
    asked: int = 0

    def __call__(self) -> bool:
        self.asked += 1
        if self.asked > self.at and self.kill:
            raise KilledError
        return self.asked > self.at


def run(
    folder: Path | None = None, stop: Callable[[], bool] = lambda: False, *, net: Tiny | None = None,
    device: torch.device = CPU, config: TrainingConfig = CONFIG, checkpoint_s: float = 0, **named: Any,
) -> FitResult:  # fmt: skip
    return fit(
        net or model(1), TRAIN, VAL, config, seed=7, device=device, transform=dithered, augmentation=AUGMENTATION,
        checkpoints=folder, should_stop=stop, checkpoint_s=checkpoint_s, **named,
    )  # fmt: skip


def bits(value: Any) -> Any:
    """Tensors as bytes, so that equal means equal bit for bit; without the clock's readings."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
    if isinstance(value, dict):
        return {name: bits(one) for name, one in value.items() if name not in ("windows_per_s", "seconds")}
    return [bits(one) for one in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Whole:
    """The training that nobody stopped: its result, the raw weights it left, its last checkpoint."""

    result: FitResult
    net: Tiny
    content: Any

    def assert_same(self, found: FitResult, net: Tiny, folder: Path) -> None:
        assert found.stopped == ""
        assert [numbers(one) for one in found.reports] == [numbers(one) for one in self.result.reports]
        assert (found.score, found.best_epoch) == (self.result.score, self.result.best_epoch)
        for name in ("best_state", "val_logits", "train_logits", "train_index"):
            assert bits(getattr(found, name)) == bits(getattr(self.result, name)), name
        assert bits(net.state_dict()) == bits(self.net.state_dict())
        assert bits(read_checkpoint(folder / CHECKPOINT)) == self.content
        assert [path.name for path in folder.iterdir()] == [CHECKPOINT]


def made_whole(folder: Path, device: torch.device) -> Whole:
    net, stop = model(1), Stop()
    result = run(folder, stop, net=net, device=device)
    assert stop.asked == ASKED
    return Whole(result, net, bits(read_checkpoint(folder / CHECKPOINT)))


def first_life(folder: Path, stop: Stop, **named: Any) -> list[int]:
    """Train until it stops; the epochs reported."""
    heard: list[int] = []

    def on_epoch(report: EpochReport) -> bool:
        heard.append(report.epoch)
        return False

    try:
        assert run(folder, stop, on_epoch=on_epoch, **named).stopped == "interrupted"
    except KilledError:
        assert stop.kill
    return heard
