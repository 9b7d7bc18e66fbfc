"""Generated speech, and windows of it that are prepared before the clock runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from data.config import DataConfig
from data.corpora.base import Request
from data.corpora.demo.demo import VERSION, DemoReader
from data.preparation.manifest import Manifest
from data.preparation.prepare import prepare
from data.preparation.prepared import Prepared
from harness.core.settings import default_cache


def shared_cache() -> Path:
    """Where generated speech and the peers' environments are kept between runs."""
    told = os.environ.get("HARNESS_CACHE")
    return Path(told) if told else default_cache()


def demo_data(train: int, val: int) -> dict[str, Any]:
    """The data section of a sweep: so many windows, speakers to be told into two classes by unheard chapters."""
    return {
        "corpus": "demo", "subset": "clean", "task": "pseudo", "variant": "seen",
        "train_windows": train, "val_windows": val, "test_windows": val,
    }  # fmt: skip


def prepared_demo(data: dict[str, Any], place: Path) -> tuple[Prepared, Path]:
    """The prepared windows, and a cache of the benchmark's own that has them and no features."""
    own = cache_with_speech(place, (str(data["subset"]),))
    return prepare(DataConfig.model_validate(data), data_root=None, cache=own), own


def cache_with_speech(place: Path, subsets: tuple[str, ...]) -> Path:
    """A cache of the benchmark's own that has generated speech, made once for this machine, and nothing else."""
    own = place / "cache"
    own.mkdir(exist_ok=True)
    if not (own / "demo").exists():
        DemoReader().locate(Request(subsets, None, shared_cache(), print))
        (own / "demo").symlink_to(shared_cache() / "demo", target_is_directory=True)
    return own


def rows_on_disk(manifest: Manifest, cache: Path) -> list[tuple[str, int, int]]:
    """Audio file, first sample and label of every window, each cut from one utterance as it is."""
    root = cache / "demo" / VERSION
    rows = []
    for window in manifest.windows:
        (source,) = window.sources
        assert window.level_dbfs is None, "its samples are not those of the file"
        name = f"{source.recording_id}.wav"
        path = root / source.part / source.speaker / source.chapter / name
        rows.append((str(path), source.start_sample, window.label))
    return rows
