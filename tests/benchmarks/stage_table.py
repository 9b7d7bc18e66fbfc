"""Stages that a clocked worker wrote down, as milliseconds a trial."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

Ms = dict[str, dict[str, float]]


def stages_ms(lines: str) -> Ms:
    """Median CPU and wall milliseconds of each stage over trials, the largest first.

    Parameters
    ----------
    lines : a line of JSON a trial, {stage: [CPU seconds, wall seconds]}
    """
    trials = [json.loads(line) for line in lines.splitlines() if line]
    names = {name for trial in trials for name in trial}
    found = {
        name: {
            unit: round(float(np.median([1000 * trial.get(name, (0.0, 0.0))[at] for trial in trials])), 2)
            for at, unit in enumerate(("cpu_ms", "wall_ms"))
        }
        for name in names
    }
    return dict(sorted(found.items(), key=lambda item: (-item[1]["wall_ms"], item[0])))


def per_trial_ms(taken: Mapping[str, tuple[float, float]], trials: int) -> Ms:
    """Stages of a process that served several trials, as milliseconds a trial."""
    mean = {name: [cpu_s / trials, wall_s / trials] for name, (cpu_s, wall_s) in taken.items()}
    return stages_ms(json.dumps(mean))
