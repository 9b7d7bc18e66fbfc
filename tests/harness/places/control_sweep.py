"""A sweep with both controls, and the labels of a study whose speakers alternate."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.config.sweep import Sweep


def sweep(**changes: Any) -> Sweep:
    base = {
        "name": "x",
        "data": {"train_windows": 240, "val_windows": 96, "test_windows": 96},
        "parameters": {"feature": ["waveform", "mfcc"], "width": [0.125, 1.0]},
        "controls": ["unseen", "shuffled_labels"],
        "budget": {"trials": 1},
    }
    return Sweep.model_validate(base | changes)


def windows(speakers: int, each: int) -> tuple[np.ndarray, list[str]]:
    """Labels (window,) and clusters of speakers whose classes alternate."""
    return np.repeat(np.arange(speakers) % 2, each), [f"s{k}" for k in range(speakers) for _ in range(each)]
