"""AdamW over a stack: every member with a rate, a weight decay and a step count of its own.

torch's has one of each for a whole parameter, and a stack has all members in one. The recurrence is torch's (Adam of
Kingma & Ba 2015, weight decay decoupled as in Loshchilov & Hutter 2019), with what differs between members as tensors
(member,), so that nothing is compiled or waited for when it changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from models.networks.stacked import stack_tensors

Tensors = list[torch.Tensor]


class StackedAdamW:
    """Takes steps for parameters (member, *shape); made from, and given back to, the members' own optimizers."""

    def __init__(self, parameters: Sequence[torch.Tensor], optimizers: Sequence[torch.optim.AdamW]) -> None:
        self.parameters = list(parameters)
        device = self.parameters[0].device
        groups = [one.param_groups[0] for one in optimizers]
        self.betas, self.eps = groups[0]["betas"], groups[0]["eps"]
        decays = [group["weight_decay"] for group in groups]
        self.weight_decay = torch.tensor(decays, dtype=torch.float64, device=device)
        taken = [_steps_taken(one) for one in optimizers]
        self.steps = torch.tensor(taken, dtype=torch.float64, device=device)  # float32 would round .999 ** 1
        self.means, self.squares = (_moments(optimizers, name, device) for name in ("exp_avg", "exp_avg_sq"))

    @torch.no_grad()
    def step(self, gradients: Tensors, rates: torch.Tensor, finite: torch.Tensor | None = None) -> None:
        """Take a step, in place, with the rate r, weight decay w and step count t of each member.

        ::

            m = b1 m + (1 - b1) g               v = b2 v + (1 - b2) g^2
            p = (1 - r w) p - r / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)

        Parameters
        ----------
        gradients : as the parameters
        rates : (member,) float64
        finite : (member,) of bool; the others stay as they are, None: all step
        """
        before = None if finite is None else [one.clone() for one in self._changing()]
        self.steps += 1
        (beta1, beta2), parameters = self.betas, self.parameters
        size = rates / (1 - beta1**self.steps)
        root = (1 - beta2**self.steps).sqrt()
        torch._foreach_lerp_(self.means, gradients, 1 - beta1)
        torch._foreach_mul_(self.squares, beta2)
        torch._foreach_addcmul_(self.squares, gradients, gradients, 1 - beta2)
        scale = torch._foreach_sqrt(self.squares)
        torch._foreach_div_(scale, self.each(root))
        torch._foreach_add_(scale, self.eps)
        change = torch._foreach_div(self.means, scale)
        torch._foreach_mul_(change, self.each(size))
        torch._foreach_mul_(parameters, self.each(1 - rates * self.weight_decay))
        torch._foreach_sub_(parameters, change)
        if before is not None and finite is not None:
            for now, then in zip(self._changing(), before, strict=True):
                now.copy_(torch.where(_like(finite, now), now, then))

    def each(self, values: torch.Tensor) -> Tensors:
        """Shape one value a member, (member,), so that it multiplies each parameter (member, *shape)."""
        values = values.to(self.parameters[0].dtype)
        return [_like(values, parameter) for parameter in self.parameters]

    def unstack_member(self, index: int, optimizer: torch.optim.AdamW, rate: float) -> None:
        """Put a copy of a member's state into its own optimizer, on its device; `rate` is that of its last step."""
        optimizer.param_groups[0]["lr"] = rate
        for parameter, mean, square in zip(
            optimizer.param_groups[0]["params"], self.means, self.squares, strict=True
        ):
            optimizer.state[parameter] = {
                "step": self.steps[index].to(parameter.device, torch.float32, copy=True),
                "exp_avg": mean[index].to(parameter.device, copy=True),
                "exp_avg_sq": square[index].to(parameter.device, copy=True),
            }

    def keep(self, indices: Sequence[int], parameters: Sequence[torch.Tensor]) -> None:
        """Go on with the members at these positions only; `parameters` are theirs, packed anew."""
        self.parameters = list(parameters)
        self.weight_decay, self.steps = self.weight_decay[list(indices)], self.steps[list(indices)]
        self.means, self.squares = (
            [stack_tensors([one[i] for i in indices]) for one in moments]
            for moments in (self.means, self.squares)
        )

    def _changing(self) -> Tensors:
        return [*self.parameters, *self.means, *self.squares, self.steps]


def _like(values: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    return values.view(-1, *[1] * (parameter.ndim - 1))


def _steps_taken(optimizer: torch.optim.AdamW) -> float:
    states = list(optimizer.state.values())
    return float(states[0]["step"]) if states else 0.0


def _moments(optimizers: Sequence[torch.optim.AdamW], name: str, device: torch.device) -> Tensors:
    """One moment of all members, (member, *shape) for each parameter; 0 before the first step."""
    columns = zip(*(one.param_groups[0]["params"] for one in optimizers), strict=True)
    return [
        stack_tensors(
            [
                optimizer.state[parameter][name] if optimizer.state else torch.zeros_like(parameter)
                for optimizer, parameter in zip(optimizers, column, strict=True)
            ]
        ).to(device)
        for column in columns
    ]
