"""One training: windows and a model in, weights and one report per epoch out. Pure torch.

It knows no tracking and no study: the caller's `on_epoch` hears of every epoch and may end the
training, `should_stop` is asked at every step. Equal seed, data and weights give equal numbers, bit for
bit on a CPU, also across a resume from any step. Threads and cuDNN's switches are the caller's business.

    last.pt     between two epochs, every few minutes within one, and at the step where a training is interrupted
                holds: weights, their average, optimizer, scaler; epochs so far; of an epoch that is begun its
                `EpochPosition`. What is a function of (seed, epoch, step) is not in it: data order, learning
                rate, augmentation's parameters
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.config.trial.training_config import TrainingConfig
from harness.core.seeds import epoch_seed
from harness.metrics.classification import binary_metrics
from harness.training.checkpoint import (
    CHECKPOINT_S,
    CheckpointError,
    Checkpoints,
    DamagedCheckpointError,
    due_after,
)
from harness.training.learner import Learner, learning_rate_at, mixed_precision
from harness.training.state import (
    DivergedError,
    EpochPosition,
    EpochReport,
    FitResult,
    Snapshot,
    StopReason,
    TrainingProgress,
    copy_state,
    fit_result,
    require_finite,
)
from harness.training.window_split import Split, SplitError, cache_on_gpu, scored_windows
from models.augmentation import Augmentation, EpochAugmentation
from models.networks.random_draws import Generators, default_generators

__all__ = [
    "CheckpointError",
    "DivergedError",
    "EpochReport",
    "FitResult",
    "Split",
    "SplitError",
    "Training",
    "Transform",
    "fit",
    "learning_rate_at",
    "mixed_precision",
]

Transform = Callable[[torch.Tensor], torch.Tensor]
_log = logging.getLogger(__name__)


class InterruptedTraining(Exception):  # noqa: N818 - a way out, not an error
    """`should_stop` said so, between two steps or two batches of an evaluation."""


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
    checkpoint_s: float = CHECKPOINT_S,
    should_stop: Callable[[], bool] = lambda: False,
    on_restart: Callable[[str], None] = _log.warning,
    record: bool = True,
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
    checkpoint_s : seconds of training that a kill may cost
    should_stop : asked at every step and batch; true ends the training (``interrupted``) with a checkpoint
    on_restart : hears why the training begins at its start although there is a ``last.pt``: it is damaged. Its epochs
        are reported again, with equal numbers
    record : whether the steps of a short network may be recorded as a CUDA graph

    Raises
    ------
    CaptureError
        They could not; this process can use its GPU no more.
    DivergedError
        The loss of a step, or a logit after an epoch, is not finite.
    CheckpointError
        `checkpoints` holds another training.
    SplitError
        `augmentation` wants waveforms and `train` holds features.
    """
    model.to(device)
    run = Training(
        model, train, val, config, seed, device, transform, augmentation, should_stop, record=record
    )
    kept = Checkpoints(checkpoints, checkpoint_s)
    progress, begun = run.resume(kept, on_restart)
    stopped: StopReason = ""
    cuda = list(range(torch.cuda.device_count())) if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), closing(run):
        for epoch in range(len(progress.reports), config.epochs):
            place, augmented = run.begin(epoch, begun)
            begun = None
            try:
                for _ in run.steps_of(place, augmented):
                    if kept.due:
                        kept.write(run.content(progress, place))
                report = progress.add(*run.evaluate_epoch(place, augmented))
            except InterruptedTraining:
                if progress.reports or place.step:
                    kept.write(run.content(progress, place))
                stopped = "interrupted"
                break
            if on_epoch(report) and epoch + 1 < config.epochs:
                stopped = "pruned"
                break
            if epoch + 1 < config.epochs:
                due = due_after(epoch, config.checkpoint_every, [kept])
            else:  # what is made of the result is durable soon, unless there is no time for that
                due = kept.due or should_stop()
            if due:
                kept.write(run.content(progress))
    return fit_result(progress, run.scored, stopped)


class Training:
    """The parts of one training that do not change, and its two passes over windows; parameters as those of `fit`.

    scored : (window,) training windows that are scored after each epoch, in ascending order
    batch : windows of a batch; steps : of an epoch. Windows that fill no batch are left out, others in each epoch
    """

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
        *,
        record: bool = True,
    ) -> None:
        if augmentation is not None and augmentation.on_waveforms and train.features.dtype != torch.int16:
            raise SplitError(f"noise, gain and reverb need int16 waveforms, not {train.features.dtype}")
        self.model, self.config, self.seed, self.device = model, config, seed, device
        self.transform, self.augmentation, self.should_stop = transform, augmentation, should_stop
        self.train, self.val = cache_on_gpu(train, device), cache_on_gpu(val, device)
        self.scored = scored_windows(train.labels.cpu(), config.train_score_windows)
        self.batch = min(config.batch_size, len(train))
        self.steps = len(train) // self.batch
        self.learner = Learner(model, config, config.epochs * self.steps, device, record=record)
        self.eval_model = self.learner.eval_model

    def close(self) -> None:
        """Give back the memory that recorded steps hold on a GPU: they and the learner hold each other."""
        self.learner.release_graph()

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree in to be gone on from; how often one is written changes no number."""
        config = self.config.model_dump(mode="json", exclude={"checkpoint_every"})
        identity = {"seed": self.seed, "config": config, "windows": [len(self.train), len(self.val)]}
        return identity | ({"augmentation": asdict(self.augmentation)} if self.augmentation else {})

    def content(self, progress: TrainingProgress, place: EpochPosition | None = None) -> dict[str, Any]:
        """What a checkpoint holds, between two epochs or at a place within one."""
        last = None if place else progress.recent[-1].state
        return {
            "identity": self.identity,
            **progress.state_dict(),
            **self.learner.state_dict(last),
            "place": place.state_dict() if place else None,
        }

    def resume(
        self, kept: Checkpoints, on_restart: Callable[[str], None]
    ) -> tuple[TrainingProgress, dict[str, Any] | None]:
        """Take the checkpoint on (CheckpointError: another training's); epochs so far, place in one that is begun."""
        try:
            content = kept.read(self.identity)
        except DamagedCheckpointError as damaged:
            on_restart(f"{damaged}; the training begins again from its start")
            return TrainingProgress(), None
        if content is None:
            return TrainingProgress(), None
        try:
            return self._restored(content)
        except torch.OutOfMemoryError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # it was made up
            why = " ".join(str(error).split())
            raise CheckpointError(
                f"the checkpoint in {kept.folder} does not fit this training ({why}); remove it to start over"
            ) from error

    def _restored(self, content: dict[str, Any]) -> tuple[TrainingProgress, dict[str, Any] | None]:
        progress, begun = TrainingProgress.of(content), content["place"]
        self.learner.load_state_dict(
            content, len(progress.reports) * self.steps + (begun["step"] if begun else 0)
        )
        return progress, begun

    def begin(
        self, epoch: int, begun: dict[str, Any] | None, own: Generators = ()
    ) -> tuple[EpochPosition, EpochAugmentation | None]:
        """Draw what happens to each window of an epoch, in their order; its start, or the place where it stopped.

        `own` are the generators of the steps, one of each device, where they are not torch's.
        """
        steps = own or default_generators(self.device)
        for generator in steps:
            generator.manual_seed(epoch_seed(self.seed, epoch, "draws"))
        generators = {f"steps, {generator.device.type}": generator for generator in steps}
        augmented = None
        if self.augmentation is not None:
            seed = epoch_seed(self.seed, epoch, "augmentation")
            augmented = EpochAugmentation(self.augmentation, self.steps * self.batch, seed, self.device)
            generators[f"augmentation, {self.device.type}"] = augmented.generator
        place = EpochPosition(epoch, torch.zeros(self.steps, device=self.device), generators)
        if begun is not None:
            place.load_state_dict(begun)
        return place, augmented

    def steps_of(self, place: EpochPosition, augmented: EpochAugmentation | None) -> Iterator[None]:
        """Take the steps that are left of an epoch, pausing before each; a GPU raises DivergedError at its end."""
        self.model.train()
        order = self.order(place.epoch)
        while place.step < self.steps:
            if self.should_stop():
                raise InterruptedTraining
            yield
            start, first = time.perf_counter(), place.step * self.batch
            index = order[first : first + self.batch]
            features, labels = self.features(self.train, index, (augmented, first) if augmented else None)
            number = place.epoch * self.steps + place.step
            place.losses[place.step] = self.learner.step(features, labels, number)
            if self.device.type == "cpu":  # free there, and a raw epoch can take an hour
                require_finite(place.losses[place.step : place.step + 1], place.epoch, place.step)
            place.step += 1
            place.seconds += time.perf_counter() - start
        start = time.perf_counter()
        require_finite(place.losses, place.epoch, 0)  # an accelerator is waited for here
        place.seconds += time.perf_counter() - start

    def order(self, epoch: int) -> torch.Tensor:
        """Draw the order (window,) in which an epoch sees the training windows; a function of (seed, epoch) alone."""
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, epoch, "order"))
        return torch.randperm(len(self.train), generator=generator).to(self.train.labels.device)

    def evaluate_epoch(
        self, place: EpochPosition, augmented: EpochAugmentation | None
    ) -> tuple[Snapshot, dict[str, float]]:
        """Score the weights after an epoch; its snapshot and its metrics."""
        torch.manual_seed(epoch_seed(self.seed, place.epoch, "scores"))  # wherever the epoch was interrupted
        train_logits = self.logits(self.train, self.scored, place.epoch)
        val_logits = self.logits(self.val, torch.arange(len(self.val)), place.epoch)
        return self.scores(place, augmented, train_logits, val_logits)

    def scores(
        self,
        place: EpochPosition,
        augmented: EpochAugmentation | None,
        train_logits: torch.Tensor,
        val_logits: torch.Tensor,
    ) -> tuple[Snapshot, dict[str, float]]:
        """Sum an epoch up that gave these logits (window, 2): its snapshot and its metrics by name."""
        epoch = place.epoch
        train = binary_metrics(train_logits.numpy(), self.train.labels.cpu()[self.scored].numpy())
        val = binary_metrics(val_logits.numpy(), self.val.labels.cpu().numpy())
        last_step = (epoch + 1) * self.steps - 1
        metrics = {f"train/{name}": value for name, value in train.items()}
        metrics |= {f"val/{name}": value for name, value in val.items()}
        metrics |= {
            "train/running_loss": float(place.losses.mean()),
            "gap": train["balanced_accuracy"] - val["balanced_accuracy"],
            "learning_rate": learning_rate_at(last_step, self.config.epochs * self.steps, self.config),
            "windows_per_s": self.steps * self.batch / place.seconds,
        }
        if augmented is not None:
            metrics |= {f"augment/{name}": value for name, value in augmented.means.items()}
        return Snapshot(epoch, copy_state(self.eval_model), val_logits, train_logits), metrics

    def logits(self, split: Split, index: torch.Tensor, epoch: int) -> torch.Tensor:
        """Logits (window, 2), on the CPU, in evaluation mode and fp32, as the exported model will give them."""
        self.eval_model.eval()
        parts = []
        with torch.no_grad():
            for part in torch.split(index.to(split.labels.device), self.config.batch_size):
                if self.should_stop():
                    raise InterruptedTraining
                parts.append(self.eval_model(self.features(split, part)[0]).float())
        return self.finite(torch.cat(parts).cpu(), epoch)

    def finite(self, logits: torch.Tensor, epoch: int) -> torch.Tensor:
        """Give the logits back; raise DivergedError where one is not finite."""
        if not logits.isfinite().all():
            raise DivergedError(epoch, self.steps - 1, float(logits[~logits.isfinite()][0]))
        return logits

    def features(
        self, split: Split, index: torch.Tensor, place: tuple[EpochAugmentation, int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (window, feature, frame), labels (window,); augmented as drawn from a place of the epoch on."""
        batch = split.features[index].to(self.device, non_blocking=True)
        labels = split.labels[index].to(self.device, torch.int64, non_blocking=True)
        if batch.dtype == torch.int16:
            batch = batch.float() / 32768
            batch = place[0].waveforms(batch, place[1]) if place else batch
        if self.transform and split.features.dtype == self.train.features.dtype:
            batch = self.transform(batch)
        return (place[0].features(batch, place[1]) if place else batch), labels
