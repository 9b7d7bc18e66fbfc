"""What learns: a model with its optimizer, loss scaler and, where one is kept, the average of its weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.nn import functional as F

from harness.config.trial.training_config import TrainingConfig
from harness.training.cuda_graph import GraphedStep, should_capture
from harness.training.state import State, copy_state


class Learner:
    """Takes steps of AdamW; all that a step changes is in `state_dict`, and in the states of what draws.

    Parameters
    ----------
    steps : of the whole training; the schedule of the learning rate spans them
    record : whether steps may be recorded as a CUDA graph where that pays
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig,
        steps: int,
        device: torch.device,
        *,
        record: bool = True,
    ) -> None:
        self.model, self.config, self.steps, self.device = model, config, steps, device
        self.dtype = mixed_precision(device, config)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.scaler = GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.average = WeightAverage(model, config.ema_decay) if config.ema_decay is not None else None
        # On a GPU the rate is a tensor there: nothing is recorded or compiled again when it changes.
        self.rate = torch.zeros((), device=device) if device.type == "cuda" else None
        self._may_record = record
        self._recorded: GraphedStep | None = None
        self._tune()

    @property
    def eval_model(self) -> nn.Module:
        """What is scored, kept and exported: the averaged model where an average is kept, else the model itself."""
        return self.average.module if self.average else self.model

    def step(self, features: torch.Tensor, labels: torch.Tensor, number: int) -> torch.Tensor:
        """Take the 0-based step `number` of the training; its mean cross-entropy (), which nobody has waited for.

        Parameters
        ----------
        features : (window, feature, frame) float32, on the device
        labels : (window,) int64 of 0 or 1, on the device
        """
        rate = learning_rate_at(number, self.steps, self.config)
        if self.rate is not None:
            self.rate.fill_(rate)
        else:
            self.optimizer.param_groups[0]["lr"] = rate
        if self._recorded is None and self._may_record and should_capture(self.device, features):
            self._recorded = GraphedStep(self._learn, self._changing, self.device)
        loss = (self._recorded or self._learn)(features, labels)
        if self.average:
            self.average.update(self.model, number)
        return loss

    def release_graph(self) -> None:
        """Give back what a recorded step holds; the next step would be recorded anew."""
        self._recorded = None

    def _learn(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Take a step at the rate that is set."""
        with torch.autocast(
            self.device.type, self.dtype, enabled=self.dtype is not None, cache_enabled=False
        ):
            loss = F.cross_entropy(self.model(features), labels)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def _changing(self) -> dict[str, torch.Tensor]:
        """Every tensor that `_learn` changes, once it has taken a step."""
        changing = dict(self.model.state_dict(keep_vars=True))
        for at, state in enumerate(self.optimizer.state.values()):
            changing |= {f"optimizer/{at}/{name}": tensor for name, tensor in state.items()}
        if self.scaler.is_enabled():
            scale, since = self.scaler._scale, self.scaler._growth_tracker
            assert scale is not None
            assert since is not None
            changing |= {"scaler/scale": scale, "scaler/since": since}
        return changing

    def _tune(self) -> None:
        """Make the optimizer one whose steps can be recorded."""
        if self.rate is not None:
            for group in self.optimizer.param_groups:
                group["lr"], group["capturable"] = self.rate, True

    def state_dict(self, judged: State | None = None) -> dict[str, Any]:
        """Give it as plain values and tensors; `judged` is a copy of the judged weights where there is one already."""
        judged = copy_state(self.eval_model) if judged is None else judged
        return {
            "weights": copy_state(self.model) if self.average else judged,
            "average": judged if self.average else None,
            "optimizer": self._optimizer_state(),
            "scaler": self.scaler.state_dict(),
        }

    def _optimizer_state(self) -> dict[str, Any]:
        """The optimizer's state as on any device: a checkpoint may go on elsewhere."""
        kept = self.optimizer.state_dict()
        for group in kept["param_groups"]:
            group["lr"], group["capturable"] = float(group["lr"]), False
        return kept

    def load_state_dict(self, kept: Mapping[str, Any], steps: int) -> None:
        """Go on from `kept`, what `state_dict` gave after so many steps, on this device or another."""
        self.model.load_state_dict(kept["weights"])
        self.optimizer.load_state_dict(kept["optimizer"])
        if kept["scaler"]:  # a CPU, or a GPU with bf16, kept none
            self.scaler.load_state_dict(kept["scaler"])
        self._tune()
        self._recorded = None  # what it recorded were other tensors
        if self.average:
            self.average.load_state_dict(kept["average"], steps)


def learning_rate_at(step: int, steps: int, config: TrainingConfig) -> float:
    """Rate of the 0-based `step` of `steps`: a straight climb, then half a cosine (Loshchilov & Hutter 2017).

    After w warm-up steps of n: ``rate (step + 1) / w`` before, ``rate (1 + cos(pi (step - w) / (n - w))) / 2`` from w.

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


def decay_at(step: int, decay: float) -> float:
    """The decay of the 0-based step: ``min(decay, (1 + step) / (10 + step))``.

    It grows to `decay`, so that the first weights are soon forgotten, as in TensorFlow's `ExponentialMovingAverage`.
    """
    return min(decay, (1 + step) / (10 + step))


class WeightAverage:
    """The averaged twin of a model in training; the model itself is only read.

    After each step ``average = d average + (1 - d) weights``, d of `decay_at`; buffers of integers are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._begun = False
        self.module = copy.deepcopy(model)  # the model with the averaged weights

    def update(self, model: nn.Module, step: int) -> None:
        """Take the weights after the 0-based step in; the first ones are taken as they are."""
        averaged: list[tuple[torch.Tensor, torch.Tensor]] = []
        with torch.no_grad():
            for own, other in zip(_tensors(self.module), _tensors(model), strict=True):
                if self._begun and own.is_floating_point():
                    averaged.append((own, other))
                else:
                    own.copy_(other)
            if averaged:  # all in one kernel, or two
                own_ones, others = zip(*averaged, strict=True)
                torch._foreach_lerp_(own_ones, others, 1 - decay_at(step, self.decay))
        self._begun = True

    def load_state_dict(self, state: dict[str, torch.Tensor], steps: int) -> None:
        """Go on from the average after so many steps; after none, the next weights are taken as they are."""
        self.module.load_state_dict(state)
        self._begun = steps > 0


def _tensors(model: nn.Module) -> chain[torch.Tensor]:
    return chain(model.parameters(), model.buffers())
