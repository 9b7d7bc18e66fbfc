"""Weight averaging: an exponential moving average of the weights over the steps of a training.

After step t (from 0), with a decay that warms up, so that the random first weights are soon forgotten::

    decay_t  = min(decay, (1 + t) / (10 + t))
    average <- decay_t * average + (1 - decay_t) * weights

A decay of .99 remembers about the last 100 steps, .999 the last 1,000. What BatchNorm has counted (its
running means and variances) is averaged by the same rule: statistics of the raw weights would not be those
of the averaged ones, and recounting them would cost a pass over the training windows every epoch. Its
counter of batches has no meaning in an average, and nothing reads it.

torch's own `AveragedModel` counts its updates in a tensor on the CPU, and waits for the GPU at each to copy it there.
"""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import nn


def decay_at(step: int, decay: float) -> float:
    """The decay of the 0-based step."""
    return min(decay, (1 + step) / (10 + step))


class WeightAverage:
    """The averaged twin of a model in training; the model itself is only read."""

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

    def restore(self, state: dict[str, torch.Tensor], steps: int) -> None:
        """Go on from the average after so many steps."""
        self.module.load_state_dict(state)
        self._begun = steps > 0


def _tensors(model: nn.Module) -> chain[torch.Tensor]:
    return chain(model.parameters(), model.buffers())
