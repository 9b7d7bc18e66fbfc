"""What learns in a stack: the members' networks, optimizers, scalers and averages as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from harness.training.learner import Learner, WeightAverage, learning_rate_at
from harness.training.stacking.stacked_adamw import StackedAdamW
from harness.training.stacking.stacked_scaler import StackedScaler
from models.networks.stacked import Stacked, stack


class StackedLearner:
    """Takes the members' steps all at once; each is given back to its own `Learner` to be kept, scored or left.

    Parameters
    ----------
    learners : of the members; they stay where they are, mostly on the CPU
    taken : steps that all of them have taken
    """

    def __init__(self, learners: Sequence[Learner], taken: int) -> None:
        first = learners[0]
        self.learners, self.taken = list(learners), taken
        self.device, self.dtype = first.device, first.dtype
        self.model = stack([one.model for one in learners]).to(self.device)
        self.optimizer = StackedAdamW(list(self.model.parameters()), [one.optimizer for one in learners])
        self.scaler = StackedScaler([one.scaler for one in learners], self.device)
        averages = [one.average for one in learners if one.average is not None]
        self.average = WeightAverage(self.model, averages[0].decay) if averages else None
        if self.average and taken:
            self.average.load_state_dict(stack([one.module for one in averages]).state_dict(), taken)

    @property
    def eval_model(self) -> Stacked:
        """What is scored, kept and exported: the averaged networks where an average is kept, else the networks."""
        judged = self.average.module if self.average else self.model
        assert isinstance(judged, Stacked)
        return judged

    def rates(self, first: int, steps: int) -> torch.Tensor:
        """Rates of some steps of the training, (step, member) float64: on the device, so that no step waits."""
        rates = [
            [learning_rate_at(number, one.steps, one.config) for one in self.learners]
            for number in range(first, first + steps)
        ]
        return torch.tensor(rates, dtype=torch.float64).to(self.device)

    def step(self, features: torch.Tensor, labels: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
        """Take the next step; mean losses (member,), which nobody has waited for.

        Parameters
        ----------
        features : (member, window, feature, frame), or (window, feature, frame) for all
        labels : (member, window)
        rates : (member,) float64
        """
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            logits = self.model(features)
            each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
            losses = each.view(labels.shape).mean(dim=1)
        for parameter in self.optimizer.parameters:
            parameter.grad = None
        self.scaler.scaled(losses).sum().backward()  # type: ignore[no-untyped-call]
        gradients = [one.grad for one in self.optimizer.parameters if one.grad is not None]
        finite = self.scaler.unscale(gradients)
        self.optimizer.step(gradients, rates, finite)
        self.scaler.update(finite)
        if self.average:
            self.average.update(self.model, self.taken)
        self.taken += 1
        return losses.detach()

    def unstack_member(self, index: int, *, weights_only: bool = False) -> None:
        """Put a member's weights and their average, and what its optimizer and scaler hold, into its own learner."""
        learner = self.learners[index]
        learner.model.load_state_dict(self.model.member(index))
        if learner.average:
            learner.average.load_state_dict(self.eval_model.member(index), self.taken)
        if self.taken and not weights_only:
            rate = learning_rate_at(self.taken - 1, learner.steps, learner.config)
            self.optimizer.unstack_member(index, learner.optimizer, rate)
            self.scaler.unstack_member(index, learner.scaler)

    def keep(self, indices: Sequence[int]) -> None:
        """Go on with the members at these positions only."""
        self.learners = [self.learners[index] for index in indices]
        if self.average:
            self.eval_model.keep(indices)
        self.model.keep(indices)
        self.optimizer.keep(indices, list(self.model.parameters()))
        self.scaler.keep(indices)
