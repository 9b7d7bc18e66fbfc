"""A small network that learned to tell voices apart in a second, exported with its specification."""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from models.export.export import export_onnx
from models.export.specification import Specification
from models.front_ends.build import build_front_end
from models.front_ends.config import FrontEnd
from models.networks.cnn import FastDiarizationModel, build_network
from models.networks.config import CnnConfig
from tests.embedding_network import voices

WIDTH = CnnConfig(width=0.125)


def task(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows (count, 48000) of four voices in noise, two a class."""
    windows, speakers = voices(count, seed)
    noise = np.random.default_rng(seed + 100).normal(scale=0.05, size=windows.shape)
    return (windows + noise).astype(np.float32), speakers // 2


def learned(front_end: FrontEnd, config: CnnConfig = WIDTH, steps: int = 40) -> FastDiarizationModel:
    windows, labels = task(32, 0)
    features = build_front_end(front_end)(torch.from_numpy(windows))
    torch.manual_seed(0)
    cnn = build_network(config, front_end.num_features, num_frames=front_end.num_frames())
    optimizer = torch.optim.AdamW(cnn.parameters(), lr=3e-3)
    for _ in range(steps):
        pick = torch.randint(len(features), (16,))
        optimizer.zero_grad()
        F.cross_entropy(cnn(features[pick]), torch.from_numpy(labels)[pick]).backward()
        optimizer.step()
    return cnn.eval()


def specification(**fields: object) -> Specification:
    """A specification of some network; `fields` say which."""
    stated = {
        "task": "pseudo",
        "variant": "seen",
        "label_meaning": {"0": "class 0", "1": "class 1"},
        "front_end": None,
        "architecture": None,
        "label_map_digest": "a" * 64,
        "manifest_digests": {"train": "b" * 64, "val": "c" * 64},
        "fingerprint": "d" * 64,
        "run_id": "e" * 32,
        "versions": {"torch": torch.__version__},
        "created": "2025-01-31T12:00:00+00:00",
    }
    return Specification.model_validate(stated | fields)


def export(front_end: FrontEnd, cnn: FastDiarizationModel, path: Path) -> Path:
    export_onnx(front_end, cnn, specification(front_end=front_end, architecture=cnn.config), path)
    return path
