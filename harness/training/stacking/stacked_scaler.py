"""Loss scaling for fp16 over a stack: every member with a scale of its own, as torch's GradScaler has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler


class StackedScaler:
    """Made from, and given back to, the members' own scalers; disabled where they are (only fp16 needs one).

    scale : (member,) by which a loss is multiplied, so that small gradients do not vanish in fp16
    streak : (member,) finite steps since the scale last changed
    """

    def __init__(self, scalers: Sequence[GradScaler], device: torch.device) -> None:
        states: list[dict[str, Any]] = [one.state_dict() for one in scalers]
        self.enabled, self._settings = bool(states[0]), states[0]
        self.scale = torch.tensor([one.get("scale", 1.0) for one in states], device=device)
        self.streak = torch.tensor([one.get("_growth_tracker", 0) for one in states], device=device)

    def scaled(self, losses: torch.Tensor) -> torch.Tensor:
        """Multiply the losses (member,) by the scales; disabled, they are given back."""
        return losses * self.scale if self.enabled else losses

    def unscale(self, gradients: list[torch.Tensor]) -> torch.Tensor | None:
        """Scale gradients (member, *shape) back, in place; (member,) whose are all finite, or None where disabled."""
        if not self.enabled:
            return None
        inverse = self.scale.double().reciprocal().float()
        finite = torch.ones_like(self.scale, dtype=torch.bool)
        for gradient in gradients:
            finite &= gradient.isfinite().flatten(1).all(dim=1)
            gradient.mul_(inverse.view(-1, *[1] * (gradient.ndim - 1)))
        return finite

    def update(self, finite: torch.Tensor | None) -> None:
        """Halve the scale of each member whose gradients were not finite, double that of who was so for long.

        Factors and length are torch's: 0.5, 2, and 2,000 steps. `finite` is (member,), as `unscale` gave it.
        """
        if finite is None:
            return
        streak = torch.where(finite, self.streak + 1, 0)
        grows = streak == self._settings["growth_interval"]
        larger = self.scale * self._settings["growth_factor"]
        grown = torch.where(grows & larger.isfinite(), larger, self.scale)
        self.scale = torch.where(finite, grown, self.scale * self._settings["backoff_factor"])
        self.streak = torch.where(grows, 0, streak)

    def unstack_member(self, index: int, scaler: GradScaler) -> None:
        """Put a member's state into its own scaler."""
        if self.enabled:
            own = {"scale": float(self.scale[index]), "_growth_tracker": int(self.streak[index])}
            scaler.load_state_dict({**self._settings, **own})

    def keep(self, indices: Sequence[int]) -> None:
        """Go on with the members at these positions only."""
        self.scale, self.streak = self.scale[list(indices)], self.streak[list(indices)]
