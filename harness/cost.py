"""What a study will cost, said before it is paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.search_space import SearchSpace
from harness.trial_config import TrialConfig

# Multiply-accumulates a second that training reaches, one worker, all overheads in: measured on a 2-core
# machine for the CPU, conservative for a GPU. Estimates only; the live view goes by the real pace.
SPEED = {"cpu": 18e9, "cuda": 2e12}
# A worker's start, the server's start and what a trial costs beside its training, in seconds.
START_S = 15.0
TRIAL_S = 2.0
SAMPLES = 100
# Figures, predictions and labels of one trial, in bytes.
TRIAL_BYTES = 300_000
# Three passes of arithmetic a training window (forward, and twice backward), one a scored window.
PASSES = 3


@dataclass(frozen=True)
class Cost:
    """Trials, wall time and disk of what is still to be run."""

    trials: int
    seconds: float
    disk_bytes: float
    workers: int
    controls: int = 0


Windows = Mapping[str, tuple[int, int]]


def estimate(
    space: SearchSpace,
    trials: int,
    workers: int,
    device: str,
    windows: Windows,
    controls: Sequence[TrialConfig] = (),
) -> Cost:
    """Cost of the next `trials` trials, from random configurations of the space, and of the given controls.

    Parameters
    ----------
    windows : training and validation windows of each data configuration, by its digest
    """
    configs = space.samples(SAMPLES)

    def seconds(config: TrialConfig) -> float:
        return _macs(config, *windows[config.data.digest()]) / SPEED[device] + TRIAL_S

    outputs = fmean(
        2
        * 4
        * config.model.num_parameters(config.feature.num_features, num_frames=config.feature.num_frames())
        for config in configs
    )
    rounds = -(-trials // workers)
    training = rounds * fmean(map(seconds, configs)) + sum(map(seconds, controls)) / workers
    disk = (
        trials * outputs + (trials + len(controls)) * TRIAL_BYTES + _feature_bytes(configs, trials, windows)
    )
    return Cost(trials, START_S + training if training else 0.0, disk, workers, len(controls))


def window_macs(config: TrialConfig) -> int:
    """Multiply-accumulates of the network for one window."""
    return config.model.macs(config.feature.num_features, config.feature.num_frames())


def _macs(config: TrialConfig, train: int, val: int) -> float:
    scored = val + min(config.training.train_score_windows, train)
    return float(window_macs(config) * config.training.epochs * (PASSES * train + scored))


def _feature_bytes(configs: list[TrialConfig], trials: int, windows: Windows) -> float:
    """What the feature store holds: float32, once for each front end and data configuration."""
    stored = {}
    for config in configs[:trials]:
        if config.feature.kind != "waveform":
            size = 4 * config.feature.num_features * config.feature.num_frames()
            stored[config.data.digest(), config.feature.digest()] = size * sum(windows[config.data.digest()])
    return float(sum(stored.values()))
