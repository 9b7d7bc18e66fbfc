"""What a training carries from epoch to epoch, and its one checkpoint file.

The score is a trailing median of three epochs, so the weights of the last three epochs and of the best
one so far are kept. Nothing else needs keeping: the learning rate is a function of the step, and every
epoch draws its random numbers from the seed and its own number.
"""

import io
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch.amp.grad_scaler import GradScaler

from harness.statistics import Score, lower_median, trailing_median_score

CHECKPOINT = "last.pt"
SCORED = "val/balanced_accuracy"
SCORE_WINDOW = 3  # epochs
_FORMAT = 2

State = dict[str, torch.Tensor]
Stopped = Literal["", "pruned", "interrupted"]


class CheckpointError(ValueError):
    """A checkpoint that belongs to another training."""


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch: its 0-based number and its metrics by name."""

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
class Progress:
    """Reports so far, the last three snapshots, and the one that holds the score."""

    reports: list[EpochReport] = field(default_factory=list)
    recent: list[Snapshot] = field(default_factory=list)
    best: Snapshot | None = None

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
    stopped: Stopped
    last: Snapshot | None = None


def fit_result(progress: Progress, scored: torch.Tensor, stopped: Stopped) -> FitResult:
    """Sum a training up; `scored` are the training windows of ``train_logits``."""
    reports, best = tuple(progress.reports), progress.best
    if best is None:
        nothing = torch.empty(0, 2)
        return FitResult(reports, math.nan, -1, {}, nothing, nothing, scored, stopped)
    score = progress.score.value
    return FitResult(
        reports, score, best.epoch, best.state, best.val_logits, best.train_logits, scored, stopped,
        progress.recent[-1],
    )  # fmt: skip


def of_last_epoch(result: FitResult) -> FitResult:
    """The same training judged by its last epoch, which was fixed beforehand: nothing is chosen by its score."""
    last = result.last
    assert last is not None, "a training of no epoch has no last one"
    return replace(
        result, score=result.reports[-1].metrics[SCORED], best_epoch=last.epoch, best_state=last.state,
        val_logits=last.val_logits, train_logits=last.train_logits,
    )  # fmt: skip


def copy_state(module: torch.nn.Module) -> State:
    """Weights and buffers of a module, copied to the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


def save_checkpoint(
    folder: Path,
    progress: Progress,
    optimizer: torch.optim.Optimizer,
    scaler: GradScaler,
    identity: Mapping[str, Any],
    raw: State | None = None,
) -> None:
    """Write ``last.pt`` aside, then rename it: a reader sees the old one or the new one, whole.

    `raw` are the weights that the training goes on with, where they are not those of the last snapshot.
    """
    assert progress.best is not None, "a checkpoint is written after an epoch"
    content = {
        "format": _FORMAT,
        "identity": dict(identity),
        "reports": [{"epoch": one.epoch, "metrics": one.metrics} for one in progress.reports],
        # shared tensors (best is mostly one of recent) are stored once
        "recent": [vars(one) for one in progress.recent],
        "best": vars(progress.best),
        "raw": raw,
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{CHECKPOINT}.{os.getpid()}"
    try:
        with aside.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(folder / CHECKPOINT)
    finally:
        aside.unlink(missing_ok=True)


def load_checkpoint(
    folder: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: GradScaler,
    identity: Mapping[str, Any],
) -> Progress:
    """Restore model and optimizer from ``last.pt``; a fresh `Progress` where there is none to use.

    A file that cannot be read counts as none: starting over gives the same numbers, only later.

    Raises
    ------
    CheckpointError
        It is whole, and of another training (seed, configuration or number of windows differ).
    """
    content = _read(folder / CHECKPOINT)
    if content is None:
        return Progress()
    if content["identity"] != dict(identity):
        raise CheckpointError(_difference(folder / CHECKPOINT, content["identity"], identity))
    recent = [Snapshot(**one) for one in content["recent"]]
    model.load_state_dict(recent[-1].state if content["raw"] is None else content["raw"])
    optimizer.load_state_dict(content["optimizer"])
    scaler.load_state_dict(content["scaler"])
    return Progress([EpochReport(**one) for one in content["reports"]], recent, Snapshot(**content["best"]))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # damaged bytes make the reader raise nearly anything
        return None
    known = isinstance(content, dict) and content.get("format") == _FORMAT
    return content if known else None


def _difference(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    names = sorted({*found, *wanted})
    parts = [
        f"{n} {found.get(n)!r} there, {wanted.get(n)!r} here" for n in names if found.get(n) != wanted.get(n)
    ]
    return f"{path} is the checkpoint of another training ({'; '.join(parts)}); remove it to start over"
