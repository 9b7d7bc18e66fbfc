"""Features of a split's windows, made once for all trials and workers, kept beside what they were made of.

::

    CACHE/features/KEY/features.npy   (window, feature, frame) float32, memory-mapped by every worker
                       source.json    what it was made of: enough to make it again (`harness data verify`)
    CACHE/features/built.jsonl        one line each time somebody made some, with the windows that it cost

KEY is the digest of the windows' manifest, and of the front end's with its parameters and IMPLEMENTATION
(`models.front_ends`): another implementation finds nothing of this one's.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.preparation.manifest import Manifest
from data.preparation.prepared import SplitData
from data.store.content_store import reserve
from data.store.leases import build_and_lease
from harness.core.files import to_share
from models.front_ends.build import build_front_end
from models.front_ends.config import FrontEnd

FEATURES_FILE, SOURCE, LOG = "features.npy", "source.json", "built.jsonl"
# Windows featurised at once; fixed, so that stored features do not depend on who built them.
FEATURE_BATCH = 64


def feature_key(manifest: Manifest, front_end: FrontEnd) -> str:
    """Name of the folder that holds the features of a split: 32 hex digits of the sha256 of what they are made of."""
    return hashlib.sha256(f"{manifest.digest}/{front_end.digest()}".encode()).hexdigest()[:32]


def stored_features(
    part: SplitData, front_end: FrontEnd, cache: Path, step: Callable[[], object] = lambda: None
) -> Any:
    """Features of a split, (window, feature, frame) float32, memory-mapped copy-on-write; made where nobody did yet.

    They are leased: the cache's quota does not evict them while this process lives. `step` is called again and again
    while they are made, here or by another process; what it raises ends the making.
    """
    key = feature_key(part.manifest, front_end)

    def build(folder: Path) -> None:
        began, done = time.monotonic(), 0

        def count(windows: int) -> None:
            nonlocal done
            done += windows

        try:
            write_features(part.windows(), front_end, folder / FEATURES_FILE, step, count)
            (folder / SOURCE).write_text(json.dumps(_source(part, front_end), indent=1), encoding="utf-8")
        finally:
            _log(cache, {"key": key, "windows": done, "s": round(time.monotonic() - began, 3)})

    with to_share():
        folder = build_and_lease(cache, cache / "features" / key, build, step, intact=True)
    return np.load(folder / FEATURES_FILE, mmap_mode="c", allow_pickle=False)


def write_features(
    windows: Any,
    front_end: FrontEnd,
    path: Path,
    step: Callable[[], object] = lambda: None,
    count: Callable[[int], object] = lambda windows: None,
) -> None:
    """Featurise every window once, on the CPU, (window, sample) int16 -> (window, feature, frame) float32.

    `step` is called before each batch, `count` with the windows of each that is done.
    """
    module = build_front_end(front_end).eval()
    shape = (len(windows), front_end.num_features, front_end.num_frames())
    stored = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    reserve(path)
    for start in range(0, len(windows), FEATURE_BATCH):
        step()
        batch = featurise(module, windows[start : start + FEATURE_BATCH])
        stored[start : start + len(batch)] = batch
        count(len(batch))
    stored.flush()


def featurise(module: Any, windows: Any) -> Any:
    """One batch on the CPU, (batch, sample) int16 -> (batch, feature, frame) float32; samples go in as [-1, 1)."""
    with torch.no_grad():
        return module(torch.from_numpy(np.asarray(windows)).float() / 32768).numpy()


def _source(part: SplitData, front_end: FrontEnd) -> dict[str, Any]:
    return {
        "front_end": front_end.model_dump(mode="json"),
        "front_end_digest": front_end.digest(),
        "manifest_digest": part.manifest.digest,
        "windows": f"../../windows/{part.folder.name}",
        "count": len(part.manifest),
    }


def _log(cache: Path, line: dict[str, Any]) -> None:
    """Append one line, whole also where several processes write."""
    text = json.dumps({**line, "pid": os.getpid(), "time": round(time.time(), 3)}) + "\n"
    handle = os.open(cache / "features" / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def build_log(cache: Path) -> list[dict[str, Any]]:
    """What the log says of a cache: key, windows, s, pid and time (s since 1970) of every building, in order."""
    path = cache / "features" / LOG
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]
