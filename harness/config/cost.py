"""What a study will cost, said before it is paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.config.search_space import SearchSpace
from harness.config.trial.trial_config import TrialConfig

# Multiply-accumulates a second that training reaches, one worker, all overheads in: measured on a 2-core
# machine for the CPU, conservative for a GPU. Estimates only; the live view goes by the real pace.
SPEED = {"cpu": 18e9, "cuda": 2e12}
# What a pass over a window costs beside its arithmetic, in seconds: it makes narrow networks slower than their
# multiply-accumulates say (0.8 ms instead of 0.3 a training window at width 0.125). On a GPU not measured.
PASS_S = {"cpu": 1.7e-4, "cuda": 0.0}
# Augmented waveforms, seconds a window on one core: their features are made anew in every step. A GPU does it beside
# its training, in a time that was not measured.
FEATURE_S, NOISE_S, REVERB_S = 2.1e-3, 1.3e-3, 1.1e-3
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
    """Trials, wall time and disk of what is still to be run; an estimate, made before anything is.

    Attributes
    ----------
    seconds : wall time of the whole, `workers` trainings at once
    disk_bytes : what it will write: features, exported files, figures
    controls : trainings of negative controls among them, not counted in `trials`
    """

    trials: int
    seconds: float
    disk_bytes: float
    workers: int
    controls: int = 0


Windows = Mapping[str, tuple[int, int]]  # digest of a data configuration -> training and validation windows


def estimate(
    space: SearchSpace,
    trials: int,
    workers: int,
    device: str,
    windows: Windows,
    controls: Sequence[TrialConfig] = (),
) -> Cost:
    """Cost of the next `trials` trials, from the mean of 100 random configurations of the space, and of the controls.

    Trials come in rounds of as many as there are workers; controls are shared out among them::

        seconds = START_S + ceil(trials / workers) mean(training_s) + sum(training_s of the controls) / workers

    Parameters
    ----------
    device : `cpu` or `cuda`
    windows : training and validation windows of each data configuration, by its digest
    """
    configs = space.random_configs(SAMPLES)

    def seconds(config: TrialConfig) -> float:
        return training_s(config, device, windows)

    outputs = fmean(map(_output_bytes, configs))
    rounds = -(-trials // workers)
    training = rounds * fmean(map(seconds, configs)) + sum(map(seconds, controls)) / workers
    disk = (
        trials * outputs + (trials + len(controls)) * TRIAL_BYTES + _feature_bytes(configs, trials, windows)
    )
    return Cost(trials, START_S + training if training else 0.0, disk, workers, len(controls))


def estimate_trainings(
    trainings: Sequence[tuple[TrialConfig, float | None]], workers: int, device: str, windows: Windows
) -> Cost:
    """Cost of these very trainings; the wall time is at least that of the longest of them.

    Parameters
    ----------
    trainings : each with the pace at which it was trained before (training windows a second), where that is known
    windows : as for `estimate`; their features are stored already
    """
    seconds = [training_s(config, device, windows, pace) for config, pace in trainings]
    wall = START_S + max(sum(seconds) / workers, max(seconds)) if seconds else 0.0
    disk = sum(_output_bytes(config) + TRIAL_BYTES for config, _ in trainings)
    return Cost(len(trainings), wall, disk, workers)


def training_s(config: TrialConfig, device: str, windows: Windows, pace: float | None = None) -> float:
    """Seconds of one training on one worker.

    Without a `pace`: passes over a window, each its multiply-accumulates at the device's `SPEED` and `PASS_S` more.
    A `pace` (training windows a second, measured) replaces that: a scored window counts as a third of a trained one.
    """
    train, val = windows[config.data.digest()]
    if pace is not None:
        return _passes(config, train, val) / PASSES / pace + TRIAL_S
    passes = _passes(config, train, val)
    augmented = config.training.epochs * train * augmentation_s(config) if device == "cpu" else 0.0
    return passes * (window_macs(config) / SPEED[device] + PASS_S[device]) + augmented + TRIAL_S


def window_macs(config: TrialConfig) -> int:
    """Multiply-accumulates of one forward pass over one window: the network's, without the front end's."""
    return config.model.macs(config.feature.num_features, config.feature.num_frames())


def augmentation_s(config: TrialConfig) -> float:
    """Seconds on one core that augmented waveforms cost a training window: the augmentation, and the features anew.

    0 for masks alone, which are laid over features that are stored.
    """
    ours = config.augmentation
    noise, reverb = ours.noise_snr_db is not None, ours.reverb_rt60_s > 0
    if not (noise or reverb or ours.gain_db > 0) or ours.augment_share == 0:
        return 0.0
    anew = 0.0 if config.feature.kind == "waveform" else FEATURE_S
    return anew + ours.augment_share * (NOISE_S * noise + REVERB_S * reverb)


def _output_bytes(config: TrialConfig) -> int:
    """The weights, and the exported file that holds them again, float32."""
    return 8 * config.model.num_parameters(
        config.feature.num_features, num_frames=config.feature.num_frames()
    )


def _passes(config: TrialConfig, train: int, val: int) -> int:
    """Passes of a network over a window in a whole training."""
    scored = val + min(config.training.train_score_windows, train)
    return config.training.epochs * (PASSES * train + scored)


def _feature_bytes(configs: list[TrialConfig], trials: int, windows: Windows) -> float:
    """What the feature store holds: float32, once for each front end and data configuration."""
    stored = {}
    for config in configs[:trials]:
        if config.feature.kind != "waveform":
            size = 4 * config.feature.num_features * config.feature.num_frames()
            stored[config.data.digest(), config.feature.digest()] = size * sum(windows[config.data.digest()])
    return float(sum(stored.values()))
