"""What a training carries from step to step and from epoch to epoch; `checkpoint` keeps it.

The score is a trailing median of three epochs, so the weights of the last three epochs and of the best one so far are
carried. Of an epoch that is begun it is its `EpochPosition`. Functions of (seed, epoch, step), and so nowhere kept: the
learning rate, the order of the windows, which windows are augmented how, and what an evaluation draws.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from harness.core.errors import InputError
from harness.metrics.intervals import Score, lower_median, trailing_median_score

SCORED = "val/balanced_accuracy"
SCORE_WINDOW = 3  # epochs

State = dict[str, torch.Tensor]
StopReason = Literal["", "pruned", "interrupted"]


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch: its 0-based number and its metrics by name (`train/...`, `val/...`, `score`, `smoothed`)."""

    epoch: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Snapshot:
    """Weights after an epoch (their average, where one is kept) and the logits (window, 2) they give.

    All on the CPU, never written to.
    """

    epoch: int
    state: State
    val_logits: torch.Tensor
    train_logits: torch.Tensor


@dataclass
class TrainingProgress:
    """Reports so far, the last SCORE_WINDOW snapshots, and the one that holds the score.

    No others need be kept: the epoch that holds a trailing median only ever moves to one of the last three.
    """

    reports: list[EpochReport] = field(default_factory=list)
    recent: list[Snapshot] = field(default_factory=list)
    best: Snapshot | None = None

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> "TrainingProgress":
        """Take on what `state_dict` gave; KeyError or TypeError where it did not give that."""
        best = kept["best"]
        reports = [EpochReport(**one) for one in kept["reports"]]
        recent = [Snapshot(**one) for one in kept["recent"]]
        return cls(reports, recent, None if best is None else Snapshot(**best))

    def state_dict(self) -> dict[str, Any]:
        """Give it as plain values and tensors; tensors that are shared (best is mostly one of recent) stay shared."""
        return {
            "reports": [{"epoch": one.epoch, "metrics": one.metrics} for one in self.reports],
            "recent": [dict(vars(one)) for one in self.recent],
            "best": None if self.best is None else dict(vars(self.best)),
        }

    @property
    def score(self) -> Score:
        """Best trailing median so far; at least one epoch must be finished."""
        return trailing_median_score([report.metrics[SCORED] for report in self.reports], SCORE_WINDOW)

    def add(self, snapshot: Snapshot, metrics: Mapping[str, float]) -> EpochReport:
        """Take a finished epoch in; the report is `metrics` with ``score`` and ``smoothed`` added."""
        series = [report.metrics[SCORED] for report in self.reports] + [metrics[SCORED]]
        score = trailing_median_score(series, SCORE_WINDOW)
        smoothed = lower_median(series[-SCORE_WINDOW:])
        report = EpochReport(snapshot.epoch, {**metrics, "score": score.value, "smoothed": smoothed})
        self.reports.append(report)
        self.recent = [*self.recent[1 - SCORE_WINDOW :], snapshot]
        kept = [*self.recent, *([self.best] if self.best else [])]
        self.best = next(one for one in kept if one.epoch == score.epoch)
        return report


@dataclass
class EpochPosition:
    """How far the training pass of an epoch has come.

    step : steps done, of this epoch; losses : (steps,) float32 on the device, of those done
    seconds : spent in them
    generators : by name, what the steps draw from; a name says the device, for states of one kind fit no other
    """

    epoch: int
    losses: torch.Tensor
    generators: Mapping[str, torch.Generator]
    step: int = 0
    seconds: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Give it as plain values and tensors on the CPU."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses.cpu().clone(),
            "draws": {name: generator.get_state() for name, generator in self.generators.items()},
        }

    def load_state_dict(self, kept: Mapping[str, Any]) -> None:
        """Go on from `kept`, what `state_dict` gave in the same epoch.

        Generators of another kind of device stay at the epoch's start: there its draws come out differently.
        """
        self.step, self.seconds = int(kept["step"]), float(kept["seconds"])
        self.losses.copy_(kept["losses"])
        for name, generator in self.generators.items():
            if name in kept["draws"]:
                generator.set_state(kept["draws"][name])


@dataclass(frozen=True)
class FitResult:
    """What a training leaves; after an interruption in the first epoch: no reports, no state.

    ``score`` is the best trailing median, ``best_epoch`` the epoch that holds it, ``best_state`` and the
    logits (window, 2) are of that epoch. ``train_logits`` are of the windows ``train_index``. ``last`` is
    the last epoch, which no score chose.
    """

    reports: tuple[EpochReport, ...]
    score: float
    best_epoch: int
    best_state: State
    val_logits: torch.Tensor
    train_logits: torch.Tensor
    train_index: torch.Tensor
    stopped: StopReason
    last: Snapshot | None = None


def fit_result(progress: TrainingProgress, scored: torch.Tensor, stopped: StopReason) -> FitResult:
    """Sum a training up; `scored` are the training windows of ``train_logits``.

    Without a finished epoch the score is NaN, the best epoch -1, and there are no weights and no logits.
    """
    reports, best = tuple(progress.reports), progress.best
    if best is None:
        nothing = torch.empty(0, 2)
        return FitResult(reports, math.nan, -1, {}, nothing, nothing, scored, stopped)
    return FitResult(
        reports=reports,
        score=progress.score.value,
        best_epoch=best.epoch,
        best_state=best.state,
        val_logits=best.val_logits,
        train_logits=best.train_logits,
        train_index=scored,
        stopped=stopped,
        last=progress.recent[-1],
    )


def of_last_epoch(result: FitResult) -> FitResult:
    """The same training judged by its last epoch, which was fixed beforehand: nothing is chosen by its score."""
    last = result.last
    assert last is not None, "a training of no epoch has no last one"
    return replace(
        result,
        score=result.reports[-1].metrics[SCORED],
        best_epoch=last.epoch,
        best_state=last.state,
        val_logits=last.val_logits,
        train_logits=last.train_logits,
    )


def copy_state(module: torch.nn.Module) -> State:
    """Weights and buffers of a module by name, copied to the CPU: later steps do not change them."""
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


class DivergedError(InputError):
    """The loss stopped being finite; ``epoch`` and ``step`` (within the epoch) count from 0."""

    def __init__(self, epoch: int, step: int, value: float) -> None:
        super().__init__(epoch, step, value)  # plain args, so that it survives the way out of a worker
        self.epoch, self.step, self.value = epoch, step, value

    def __str__(self) -> str:
        return (
            f"training diverged: the loss was {self.value} in epoch {self.epoch}, step {self.step}; "
            "try a lower learning_rate or a longer warmup_share"
        )


def require_finite(losses: torch.Tensor, epoch: int, first_step: int) -> None:
    """Raise DivergedError for the first loss (step,) that is not finite; the losses begin at `first_step`."""
    wrong = (~losses.isfinite()).nonzero()
    if len(wrong):
        at = int(wrong[0])
        raise DivergedError(epoch, first_step + at, float(losses[at]))
