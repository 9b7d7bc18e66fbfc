"""The windows a training reads: one split as tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch


class SplitError(ValueError):
    """Windows that cannot be trained on or scored; the message says why."""


@dataclass(frozen=True)
class Split:
    """Windows of one split, in the order of their manifest.

    features : (window, feature, frame) float32, or (window, sample) int16 waveforms; may be memory-mapped
    labels : (window,) of 0 or 1, both present
    clusters : (window,) names, for the intervals; training does not read them
    """

    features: torch.Tensor
    labels: torch.Tensor
    clusters: Sequence[str]

    def __post_init__(self) -> None:
        sizes = (len(self.features), len(self.labels), len(self.clusters))
        if len(set(sizes)) != 1:
            raise SplitError("features, labels and clusters differ in length: {}, {}, {}".format(*sizes))
        if not (self.features.is_floating_point() or self.features.dtype == torch.int16):
            raise SplitError(f"features are floating point or int16 waveforms, not {self.features.dtype}")
        classes = sorted(set(self.labels.tolist()))
        if classes != [0, 1]:
            raise SplitError(f"labels must hold the classes 0 and 1, and hold {classes}")

    def __len__(self) -> int:
        return len(self.labels)


def resident(split: Split, device: torch.device) -> Split:
    """Move a split to a GPU where it leaves half of its free memory to the network."""
    features = split.features
    if device.type == "cuda" and features.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
        features = features.to(device)
    return replace(split, features=features, labels=split.labels.to(features.device))


def scored_windows(labels: torch.Tensor, count: int) -> torch.Tensor:
    """Choose the training windows to re-score: half of each class, equal in every trial on the split."""
    generator = torch.Generator().manual_seed(0)  # not the seed: the subset is common to all replicates
    picked = []
    for label in (0, 1):
        windows = (labels == label).nonzero().flatten()
        shuffled = windows[torch.randperm(len(windows), generator=generator)]
        picked.append(shuffled[: count // 2])
    return torch.cat(picked).sort().values
