"""One training: windows and a model in, weights and one report per epoch out. Pure torch.

It knows no tracking and no study: the caller's `on_epoch` hears of every epoch and may end the
training, `should_stop` is asked at every step. Equal seed, data and weights give equal numbers, bit for
bit on a CPU, also across a resume. Threads and cuDNN's switches are the caller's business.
"""

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.nn import functional as F

from harness.metrics import binary_metrics
from harness.training_average import WeightAverage
from harness.training_config import TrainingConfig
from harness.training_split import Split, SplitError, resident, scored_windows
from harness.training_state import (
    CheckpointError,
    EpochReport,
    FitResult,
    Progress,
    Snapshot,
    Stopped,
    copy_state,
    fit_result,
    load_checkpoint,
    save_checkpoint,
)
from models.augmentation import Augmentation, EpochAugmentation

__all__ = [
    "CheckpointError",
    "DivergedError",
    "EpochReport",
    "FitResult",
    "Split",
    "SplitError",
    "Transform",
    "fit",
    "learning_rate_at",
    "mixed_precision",
]

Transform = Callable[[torch.Tensor], torch.Tensor]


class DivergedError(ValueError):
    """The loss stopped being finite; ``epoch`` and ``step`` (within the epoch) count from 0."""

    def __init__(self, epoch: int, step: int, value: float) -> None:
        super().__init__(epoch, step, value)  # plain args, so that it survives the way out of a worker
        self.epoch, self.step, self.value = epoch, step, value

    def __str__(self) -> str:
        return (
            f"training diverged: the loss was {self.value} in epoch {self.epoch}, step {self.step}; "
            "try a lower learning_rate or a longer warmup_share"
        )


class _InterruptedTraining(Exception):  # noqa: N818 - a way out, not an error
    """`should_stop` said so in the middle of an epoch."""


def fit(
    model: nn.Module,
    train: Split,
    val: Split,
    config: TrainingConfig,
    *,
    seed: int,
    device: torch.device,
    transform: Transform | None = None,
    augmentation: Augmentation | None = None,
    on_epoch: Callable[[EpochReport], bool] = lambda report: False,
    checkpoints: Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FitResult:
    """Train `model`, in place, and return the weights of the epoch that holds the score.

    With `config.ema_decay` every score, snapshot and returned weight is of the averaged weights; the
    training goes on with, and leaves in `model`, the raw ones.

    Parameters
    ----------
    model : (batch, feature, frame) float32 -> logits (batch, 2); its initial weights are the caller's
    seed : of the batches' order, dropout, and whatever `transform` draws from torch
    transform : stored batch on the device -> features; int16 waveforms reach it as float32 in [-1, 1).
        Validation windows stored as floats beside int16 training windows are features already
    augmentation : of the batches that are learned from, never of a window that is scored; what happens to
        waveforms needs a `train` of them
    on_epoch : hears of each epoch before its checkpoint is written; true ends the training (``pruned``,
        unless it was the last epoch). After a resume an epoch may be reported again: equal numbers
        except ``windows_per_s``
    checkpoints : folder of ``last.pt``, from which the training goes on where it is present
    should_stop : asked at every step; true ends the training (``interrupted``)

    Raises
    ------
    DivergedError
        The loss of a step, or a logit after an epoch, is not finite.
    CheckpointError
        `checkpoints` holds another training.
    SplitError
        `augmentation` wants waveforms and `train` holds features.
    """
    model.to(device)
    run = _Training(model, train, val, config, seed, device, transform, augmentation, should_stop)
    progress = run.resume(checkpoints)
    stopped: Stopped = ""
    cuda = list(range(torch.cuda.device_count())) if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        for epoch in range(len(progress.reports), config.epochs):
            best = progress.best
            try:
                report = progress.add(*run.epoch(epoch))
            except _InterruptedTraining:
                stopped = "interrupted"
                break
            if on_epoch(report) and epoch + 1 < config.epochs:
                stopped = "pruned"
                break
            due = (epoch + 1) % config.checkpoint_every == 0 or epoch + 1 == config.epochs or should_stop()
            if checkpoints is not None and (due or progress.best is not best):
                raw = copy_state(model) if run.average else None
                save_checkpoint(checkpoints, progress, run.optimizer, run.scaler, run.identity, raw)
    return fit_result(progress, run.scored, stopped)


def learning_rate_at(step: int, steps: int, config: TrainingConfig) -> float:
    """Rate of the 0-based `step` of `steps`: a straight climb, then half a cosine.

    ::

        rate |    /-----.
             |  /         `-.
             |/               `-._
             +-----------------------> step
              warm-up   cosine
    """
    warmup = round(config.warmup_share * steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / (steps - warmup)
    return config.learning_rate * (1 + math.cos(math.pi * done)) / 2


def mixed_precision(device: torch.device, config: TrainingConfig) -> torch.dtype | None:
    """Type to autocast to, or None for fp32; emulated bf16 is slower than fp16 and does not count."""
    if device.type != "cuda" or config.precision == "fp32":
        return None
    real = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if real else torch.float16


class _Training:
    """The parts of one training that do not change, and its two passes over windows."""

    def __init__(
        self,
        model: nn.Module,
        train: Split,
        val: Split,
        config: TrainingConfig,
        seed: int,
        device: torch.device,
        transform: Transform | None,
        augmentation: Augmentation | None,
        should_stop: Callable[[], bool],
    ) -> None:
        if augmentation is not None and augmentation.on_waveforms and train.features.dtype != torch.int16:
            raise SplitError(f"noise, gain and reverb need int16 waveforms, not {train.features.dtype}")
        self.model, self.config, self.seed, self.device = model, config, seed, device
        self.transform, self.augmentation, self.should_stop = transform, augmentation, should_stop
        self.train, self.val = resident(train, device), resident(val, device)
        self.scored = scored_windows(train.labels.cpu(), config.train_score_windows)
        self.batch = min(config.batch_size, len(train))
        self.steps = len(train) // self.batch
        self.dtype = mixed_precision(device, config)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.scaler = GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.average = WeightAverage(model, config.ema_decay) if config.ema_decay is not None else None
        self.judged = self.average.module if self.average else model  # scored, kept and exported

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree in to be gone on from."""
        config = self.config.model_dump(mode="json", exclude={"checkpoint_every"})
        identity = {"seed": self.seed, "config": config, "windows": [len(self.train), len(self.val)]}
        return identity | ({"augmentation": asdict(self.augmentation)} if self.augmentation else {})

    def resume(self, checkpoints: Path | None) -> Progress:
        if checkpoints is None:
            return Progress()
        progress = load_checkpoint(checkpoints, self.model, self.optimizer, self.scaler, self.identity)
        if self.average and progress.reports:
            self.average.restore(progress.recent[-1].state, len(progress.reports) * self.steps)
        return progress

    def epoch(self, epoch: int) -> tuple[Snapshot, dict[str, float]]:
        torch.manual_seed(_derived(self.seed, epoch, "draws"))
        start = time.perf_counter()
        augmented = self.augmented(epoch)
        running_loss = self.pass_over_train(epoch, augmented)
        seconds = time.perf_counter() - start
        train_logits = self.logits(self.train, self.scored, epoch)
        val_logits = self.logits(self.val, torch.arange(len(self.val)), epoch)
        train = binary_metrics(train_logits.numpy(), self.train.labels.cpu()[self.scored].numpy())
        val = binary_metrics(val_logits.numpy(), self.val.labels.cpu().numpy())
        last_step = (epoch + 1) * self.steps - 1
        metrics = {f"train/{name}": value for name, value in train.items()}
        metrics |= {f"val/{name}": value for name, value in val.items()}
        metrics |= {
            "train/running_loss": running_loss,
            "gap": train["balanced_accuracy"] - val["balanced_accuracy"],
            "learning_rate": learning_rate_at(last_step, self.config.epochs * self.steps, self.config),
            "windows_per_s": self.steps * self.batch / seconds,
        }
        if augmented is not None:
            metrics |= {f"augment/{name}": value for name, value in augmented.means.items()}
        return Snapshot(epoch, copy_state(self.judged), val_logits, train_logits), metrics

    def augmented(self, epoch: int) -> EpochAugmentation | None:
        """Draw what happens to each window of the epoch, in the order in which they will come."""
        if self.augmentation is None:
            return None
        seed = _derived(self.seed, epoch, "augmentation")
        return EpochAugmentation(self.augmentation, self.steps * self.batch, seed, self.device)

    def pass_over_train(self, epoch: int, augmented: EpochAugmentation | None) -> float:
        """One epoch of steps; the mean loss. On an accelerator nothing waits for a result until the end."""
        self.model.train()
        generator = torch.Generator().manual_seed(_derived(self.seed, epoch, "order"))
        order = torch.randperm(len(self.train), generator=generator).to(self.train.labels.device)
        losses = torch.zeros(self.steps, device=self.device)
        for step in range(self.steps):
            if self.should_stop():
                raise _InterruptedTraining
            index = order[step * self.batch : (step + 1) * self.batch]
            place = (augmented, step * self.batch) if augmented else None
            losses[step] = self.step(self.features(self.train, index, place), epoch * self.steps + step)
            if self.device.type == "cpu":  # free there, and a raw epoch can take an hour
                _require_finite(losses[step : step + 1], epoch, step)
        _require_finite(losses, epoch, 0)
        return float(losses.mean())

    def step(self, batch: tuple[torch.Tensor, torch.Tensor], number: int) -> torch.Tensor:
        features, labels = batch
        with self.autocast():
            loss = F.cross_entropy(self.model(features), labels)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(number, self.config.epochs * self.steps, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update(self.model, number)
        return loss.detach()

    def logits(self, split: Split, index: torch.Tensor, epoch: int) -> torch.Tensor:
        """Logits (window, 2) in evaluation mode and fp32, as the exported model will give them."""
        self.judged.eval()
        parts = []
        with torch.no_grad():
            for part in torch.split(index.to(split.labels.device), self.config.batch_size):
                if self.should_stop():
                    raise _InterruptedTraining
                parts.append(self.judged(self.features(split, part)[0]).float())
        logits = torch.cat(parts).cpu()
        if not logits.isfinite().all():
            raise DivergedError(epoch, self.steps - 1, float(logits[~logits.isfinite()][0]))
        return logits

    def features(
        self, split: Split, index: torch.Tensor, place: tuple[EpochAugmentation, int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and labels of some windows; augmented by what was drawn from a place of the epoch on."""
        batch = split.features[index].to(self.device, non_blocking=True)
        labels = split.labels[index].to(self.device, torch.int64, non_blocking=True)
        if batch.dtype == torch.int16:
            batch = batch.float() / 32768
            batch = place[0].waveforms(batch, place[1]) if place else batch
        if self.transform and split.features.dtype == self.train.features.dtype:
            batch = self.transform(batch)
        return (place[0].features(batch, place[1]) if place else batch), labels

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext()


def _require_finite(losses: torch.Tensor, epoch: int, first_step: int) -> None:
    """Raise for the first loss that is not finite."""
    wrong = (~losses.isfinite()).nonzero()
    if len(wrong):
        at = int(wrong[0])
        raise DivergedError(epoch, first_step + at, float(losses[at]))


def _derived(seed: int, epoch: int, purpose: str) -> int:
    """Seed of one epoch's draws: resuming needs no generator's state."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
