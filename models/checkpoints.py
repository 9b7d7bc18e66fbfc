"""Weights on disk: tensors by name, nothing that executes when it is read."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from models.errors import ModelFailedError, one_line
from models.files import write_atomic


class WeightsError(ModelFailedError):
    """A weights file that cannot be read, or holds something other than named tensors."""


def save_weights(weights: nn.Module | Mapping[str, torch.Tensor], path: Path) -> None:
    """Save a module's (or a given) state dict, its tensors on the CPU; written aside and renamed, never half."""
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    buffer = io.BytesIO()
    torch.save({name: tensor.detach().cpu() for name, tensor in state.items()}, buffer)
    write_atomic(path, buffer.getbuffer())


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Load a state dict onto the CPU; pickled classes, which would run code when they are read, are refused.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or holds anything but named tensors.
    """
    if not path.is_file():
        raise WeightsError(f"no weights at {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for damaged and for refused files
        raise WeightsError(f"{path} is not a weights-only state dict: {one_line(error)}") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in state.items()
    ):
        raise WeightsError(f"{path} holds something other than tensors by name")
    return state
