"""The training of the other arms in plain torch: the loop of a notebook, with the harness's hyper-parameters and seeds.

It shares no code with `harness.training`, and the same weights, order of windows, dropout and rates: from equal
features it gives equal numbers, so that nobody is faster by training less.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

Batch = tuple[torch.Tensor, torch.Tensor]  # features (batch, feature, frame) float32, labels (batch,) int64


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of one training."""

    learning_rate: float
    epochs: int
    seed: int
    batch_size: int = 32
    weight_decay: float = 1e-2
    warmup_share: float = 0.1


def train(
    model: nn.Module,
    recipe: Recipe,
    windows: int,
    batches: Callable[[int], Iterable[Batch]],
    val: Callable[[], Iterable[Batch]],
) -> Iterator[dict[str, float]]:
    """Train a model in place, on one thread, epoch by epoch; the metrics of each.

    windows : in an epoch, before the last batch that is not full is left out
    batches, val : give the batches of an epoch, and those of the validation windows
    """
    steps = windows // recipe.batch_size
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    for epoch in range(recipe.epochs):
        model.train()
        torch.manual_seed(derived(recipe.seed, epoch, "draws"))
        loss_sum, right = 0.0, 0
        for step, (features, labels) in enumerate(batches(epoch)):
            optimizer.param_groups[0]["lr"] = rate(epoch * steps + step, recipe.epochs * steps, recipe)
            logits = model(features)
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss_sum += loss.item()
            right += int((logits.argmax(dim=1) == labels).sum())
        metrics = {"train/loss": loss_sum / steps, "train/accuracy": right / (steps * recipe.batch_size)}
        yield metrics | validate(model, val())


def validate(model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
    """Score a model in evaluation mode: loss (nats), accuracy, balanced accuracy."""
    model.eval()
    with torch.no_grad():
        scored = [(model(features), labels) for features, labels in batches]
    logits, labels = torch.cat([one for one, _ in scored]), torch.cat([one for _, one in scored])
    right = (logits.argmax(dim=1) == labels).double()
    recalls = [float(right[labels == label].mean()) for label in (0, 1)]
    return {
        "val/loss": float(F.cross_entropy(logits, labels)),
        "val/accuracy": float(right.mean()),
        "val/balanced_accuracy": sum(recalls) / 2,
    }


def resident(
    features: torch.Tensor, labels: torch.Tensor, recipe: Recipe
) -> Callable[[int], Iterable[Batch]]:
    """Batches of an epoch from windows in memory."""

    def batches(epoch: int) -> Iterable[Batch]:
        for index in torch.split(order_of(epoch, len(labels), recipe), recipe.batch_size):
            yield features[index], labels[index]

    return batches


def in_turn(features: torch.Tensor, labels: torch.Tensor, size: int) -> Iterable[Batch]:
    """Batches of windows in memory, in their order."""
    return zip(torch.split(features, size), torch.split(labels, size), strict=True)


def order_of(epoch: int, windows: int, recipe: Recipe) -> torch.Tensor:
    """Windows of an epoch in the order in which they are learned from; the last batch is full."""
    generator = torch.Generator().manual_seed(derived(recipe.seed, epoch, "order"))
    order = torch.randperm(windows, generator=generator)
    return order[: windows // recipe.batch_size * recipe.batch_size]


def rate(step: int, steps: int, recipe: Recipe) -> float:
    """Learning rate of a 0-based step: a linear warm-up, then half a cosine."""
    warmup = round(recipe.warmup_share * steps)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    return recipe.learning_rate * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def derived(seed: int, epoch: int, purpose: str) -> int:
    """Seed of one epoch's draws."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}/{purpose}".encode()).digest()[:8], "big") >> 1
