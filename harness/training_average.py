"""Weight averaging: an exponential moving average of the weights over the steps of a training.

After step t (from 0), with a decay that warms up, so that the random first weights are soon forgotten::

    decay_t  = min(decay, (1 + t) / (10 + t))
    average <- decay_t * average + (1 - decay_t) * weights

A decay of .99 remembers about the last 100 steps, .999 the last 1,000. What BatchNorm has counted (its
running means and variances) is averaged by the same rule: statistics of the raw weights would not be those
of the averaged ones, and recounting them would cost a pass over the training windows every epoch. Its
counter of batches has no meaning in an average, and nothing reads it.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def decay_at(step: int, decay: float) -> float:
    """The decay of the 0-based step."""
    return min(decay, (1 + step) / (10 + step))


class WeightAverage:
    """The averaged twin of a model in training; the model itself is only read."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._averaged = AveragedModel(model, use_buffers=True)

    @property
    def module(self) -> nn.Module:
        """The model with the averaged weights."""
        return self._averaged.module

    def update(self, model: nn.Module, step: int) -> None:
        """Take the weights after the 0-based step in; the first ones are taken as they are."""
        self._averaged.multi_avg_fn = get_ema_multi_avg_fn(decay_at(step, self.decay))  # type: ignore[no-untyped-call]
        self._averaged.update_parameters(model)

    def restore(self, state: dict[str, torch.Tensor], steps: int) -> None:
        """Go on from the average after so many steps."""
        self.module.load_state_dict(state)
        self._averaged.n_averaged.fill_(steps)
