"""Where things lie and run: the options that mean the same in every command."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path


@dataclass(frozen=True)
class Settings:
    """The record, the corpora, the cache, the workers and the device.

    Attributes
    ----------
    record : folder of the studies, runs and artifacts
    cache : folder of prepared data and fetched corpora, shared by processes
    data_root : folder of the corpora on disk; None where a corpus needs none
    workers : trainings at once; None is one a core, or a GPU slot
    device : auto, cpu or cuda, see `resolved_device`
    """

    record: Path
    cache: Path
    data_root: Path | None = None
    workers: int | None = None
    device: str = "auto"

    @property
    def resolved_device(self) -> str:
        """`cpu` or `cuda`; `auto` means a GPU where the machine shows one (whether it works, a worker finds out)."""
        if self.device != "auto":
            return self.device
        present = any(Path(node).exists() for node in ("/dev/nvidiactl", "/dev/dxg"))
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
        return "cuda" if present and not hidden else "cpu"


def default_cache() -> Path:
    """The cache folder where neither `--cache` nor HARNESS_CACHE names one."""
    return user_cache_path("diarization-harness")
