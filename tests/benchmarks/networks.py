"""Networks at the notebooks' size for the benchmarks that need no training, with the specification they are exported under."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from models.export.specification import Specification
from models.front_ends.config import FrontEnd
from models.networks.cnn import FastDiarizationModel, build_network
from models.networks.config import CnnConfig
from models.window import WINDOW_SAMPLES

WIDTH_1 = CnnConfig()


def noise(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Windows (count, sample) float32 of noise at levels from 0.001 to 0.3."""
    rng = np.random.default_rng(seed)
    level = 10 ** rng.uniform(-3, -0.5, (count, 1))
    return (level * rng.standard_normal((count, WINDOW_SAMPLES))).clip(-1, 1).astype(np.float32)


def network(front_end: FrontEnd, seed: int, config: CnnConfig = WIDTH_1) -> FastDiarizationModel:
    """Make a network of random weights whose BatchNorms have seen data, in evaluation mode."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        cnn = build_network(config, front_end.num_features, num_frames=front_end.num_frames())
        for _ in range(2):
            cnn.train()(torch.randn(4, front_end.num_features, min(front_end.num_frames(), 320)))
    return cnn.eval()


def stated(front_end: FrontEnd, config: CnnConfig = WIDTH_1) -> Specification:
    """Give the specification of a network that belongs to no run."""
    return Specification.model_validate(
        {
            "task": "benchmark",
            "variant": "none",
            "label_meaning": {"0": "class 0", "1": "class 1"},
            "front_end": front_end,
            "architecture": config,
            "label_map_digest": "0" * 64,
            "manifest_digests": {},
            "fingerprint": "0" * 64,
            "run_id": "0" * 32,
            "versions": {"torch": str(torch.__version__)},
            "created": "2025-01-31T12:00:00+00:00",
        }
    )
