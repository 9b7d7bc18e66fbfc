"""What learns: a model with its optimizer, loss scaler and, where one is kept, the average of its weights."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.nn import functional as F

from harness.training_average import WeightAverage
from harness.training_config import TrainingConfig
from harness.training_state import State, copy_state


class Learner:
    """Takes steps; all that a step changes is in what `kept` gives, and in the states of what draws.

    Parameters
    ----------
    steps : of the whole training; the schedule of the learning rate spans them
    """

    def __init__(self, model: nn.Module, config: TrainingConfig, steps: int, device: torch.device) -> None:
        self.model, self.config, self.steps, self.device = model, config, steps, device
        self.dtype = mixed_precision(device, config)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.scaler = GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.average = WeightAverage(model, config.ema_decay) if config.ema_decay is not None else None

    @property
    def judged(self) -> nn.Module:
        """What is scored, kept and exported."""
        return self.average.module if self.average else self.model

    def step(self, features: torch.Tensor, labels: torch.Tensor, number: int) -> torch.Tensor:
        """Take the 0-based step of the training; its mean loss, which nobody has waited for."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            loss = F.cross_entropy(self.model(features), labels)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(number, self.steps, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update(self.model, number)
        return loss.detach()

    def kept(self, judged: State | None = None) -> dict[str, Any]:
        """Give it as plain values and tensors; `judged` is a copy of the judged weights where there is one already."""
        judged = copy_state(self.judged) if judged is None else judged
        return {
            "weights": copy_state(self.model) if self.average else judged,
            "average": judged if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, kept: Mapping[str, Any], steps: int) -> None:
        """Go on from what `kept` gave after so many steps."""
        self.model.load_state_dict(kept["weights"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.scaler.load_state_dict(kept["scaler"])
        if self.average:
            self.average.restore(kept["average"], steps)


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
