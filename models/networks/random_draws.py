"""Random numbers that torch draws from its own generators, one of each device, and how others take their place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

Generators = Sequence[torch.Generator]  # at most one of a device


def default_generators(device: torch.device) -> list[torch.Generator]:
    """List the generators that torch draws from where nobody names one: the CPU's, and a CUDA device's own."""
    return [torch.default_generator] + ([_default(device)] if device.type == "cuda" else [])


def new_generators(device: torch.device) -> list[torch.Generator]:
    """Make generators that can take the place of `default_generators`, one of each device and in the same order.

    They are unseeded: every member of a stack seeds its own.
    """
    return [torch.Generator()] + ([torch.Generator(device)] if device.type == "cuda" else [])


@contextmanager
def using_generators(generators: Generators) -> Iterator[None]:
    """Have what draws from torch's own generators draw from these; torch's own are as before afterwards."""
    replaced = [_default(generator.device) for generator in generators]
    before = [default.get_state() for default in replaced]
    try:
        for default, generator in zip(replaced, generators, strict=True):
            default.set_state(generator.get_state())
        yield
        for default, generator in zip(replaced, generators, strict=True):
            generator.set_state(default.get_state())
    finally:
        for default, state in zip(replaced, before, strict=True):
            default.set_state(state)


def _default(device: torch.device) -> torch.Generator:
    if device.type == "cpu":
        return torch.default_generator
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]
