"""A training whose numbers stopped being finite."""

import torch


class DivergedError(ValueError):
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
    """Raise for the first loss that is not finite."""
    wrong = (~losses.isfinite()).nonzero()
    if len(wrong):
        at = int(wrong[0])
        raise DivergedError(epoch, first_step + at, float(losses[at]))
