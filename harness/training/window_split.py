"""The windows a training reads: one split as tensors."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from harness.core.errors import InputError

# Of a GPU's memory, for windows that nobody trains on at the moment; a worker's next trial mostly wants them again.
GPU_CACHE_SHARE = 0.25


class SplitError(InputError):
    """Windows that cannot be trained on or scored; the message says why."""


@dataclass(frozen=True)
class Split:
    """Windows of one split, in the order of their manifest.

    features : (window, feature, frame) float32, or (window, sample) int16 waveforms; may be memory-mapped
    labels : (window,) of 0 or 1, both present
    clusters : (window,) names, for the intervals; training does not read them
    key : names the features in this process: equal keys, equal features; empty: nobody else has them
    """

    features: torch.Tensor
    labels: torch.Tensor
    clusters: Sequence[str]
    key: str = ""

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


class TensorCache:
    """Tensors by their keys; of those that take too many bytes together, the ones used longest ago go."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, torch.Tensor] = OrderedDict()

    @property
    def num_bytes(self) -> int:
        """Bytes that all of them take together."""
        return sum(one.nbytes for one in self._kept.values())

    def get(self, key: str, make: Callable[[], torch.Tensor], most: float) -> torch.Tensor:
        """Give the tensor of a key, made where it is not here; those used longest ago go until `most` bytes are kept.

        The tensor itself may be let go too: whoever got it has it all the same.
        """
        tensor = self._kept.pop(key, None)
        tensor = make() if tensor is None else tensor
        self._kept[key] = tensor
        while self.num_bytes > most:
            self._kept.popitem(last=False)
        return tensor

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    def forget(self) -> None:
        """Let all of them go: somebody needs the memory."""
        self._kept.clear()


# Of this process, on its one GPU.
gpu_cache = TensorCache()


def cache_on_gpu(split: Split, device: torch.device) -> Split:
    """Move a split to a GPU where it leaves half of its free memory to the network; it is there for the next trial."""
    features = split.features
    if device.type == "cuda":
        if split.key not in gpu_cache and not _fits(features, device):
            gpu_cache.forget()
            torch.cuda.empty_cache()
        if split.key in gpu_cache or (split.key and _fits(features, device)):
            _, total = torch.cuda.mem_get_info(device)
            features = gpu_cache.get(split.key, lambda: split.features.to(device), GPU_CACHE_SHARE * total)
        elif _fits(features, device):
            features = features.to(device)
    return replace(split, features=features, labels=split.labels.to(features.device))


def _fits(features: torch.Tensor, device: torch.device) -> bool:
    return bool(features.nbytes < torch.cuda.mem_get_info(device)[0] / 2)


def scored_windows(labels: torch.Tensor, count: int) -> torch.Tensor:
    """Choose the training windows to re-score, (window,) ascending: half of `count` of each class, or all of it.

    They are the same in every trial on the split, whatever its seed, so that training scores compare.
    """
    generator = torch.Generator().manual_seed(0)  # not the seed: the subset is common to all replicates
    picked = []
    for label in (0, 1):
        windows = (labels == label).nonzero().flatten()
        shuffled = windows[torch.randperm(len(windows), generator=generator)]
        picked.append(shuffled[: count // 2])
    return torch.cat(picked).sort().values
