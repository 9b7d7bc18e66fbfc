"""`harness data verify`: whether what the store holds is what its sources give.

Every file is held against its stored sha256; of every prepared split a few windows, and of every folder of features a
few batches, are made again and compared. What cannot be made again here (a corpus that is elsewhere) is told.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ValidationError

from data.errors import DataError
from data.parts import SPLITS
from data.plugins import load_plugins
from data.preparation.prepared import WINDOWS_FILE
from data.preparation.recompute import open_recomputer
from data.store.content_store import altered, is_complete, missing
from data.store.eviction import StoredFolder, inventory
from harness.core.settings import Settings
from harness.training.feature_cache import FEATURE_BATCH, FEATURES_FILE, SOURCE, featurise
from models.front_ends.build import build_front_end
from models.front_ends.config import parse_front_end

# Features are float32: another machine or another number of threads may round them otherwise.
TOLERANCE = 1e-4

State = Literal["ok", "differs", "skipped"]


@dataclass(frozen=True)
class Checked:
    """One stored folder.

    Attributes
    ----------
    state : `skipped` where its digests are right and it cannot be made again here, or it went away meanwhile
    text : what was compared, what differs, or why nothing could be
    """

    folder: Path
    state: State
    text: str

    def as_json(self) -> dict[str, str]:
        """One entry of `checked` in the document of `harness data verify --json`."""
        return {"folder": str(self.folder), "state": self.state, "text": self.text}


class _Source(BaseModel):
    front_end: dict[str, Any]
    front_end_digest: str
    manifest_digest: str
    windows: str
    count: int


def check_store(settings: Settings, sample: int, seed: int) -> Iterator[Checked]:
    """Check everything stored in the cache, in order of its path.

    Parameters
    ----------
    sample : windows of each split that are made again; of features as many whole batches as hold that many windows
    seed : of the choice; the same seed and the same store give the same sample
    """
    draw = random.Random(seed)
    for item in sorted(inventory(settings.cache), key=lambda item: item.path):
        try:
            checked = _checked(item, settings, sample, draw)
        except FileNotFoundError as error:  # a sweep's quota, or `gc`, at the same time
            checked = Checked(item.path, "skipped", f"{error.filename} was deleted while it was checked")
        if checked.state == "differs" and not item.path.exists():
            checked = Checked(item.path, "skipped", "it was deleted while it was checked")
        yield checked


def _checked(item: StoredFolder, settings: Settings, sample: int, draw: random.Random) -> Checked:
    checked = _digests(item)
    if checked.state == "ok" and item.kind == "prepared":
        checked = _windows(item.path, settings, sample, draw)
    elif checked.state == "ok" and item.kind == "features":
        checked = _features(item.path, sample, draw)
    return checked


def _digests(item: StoredFolder) -> Checked:
    if not is_complete(item.path):
        return Checked(item.path, "differs", f"it is not whole: {missing(item.path)}")
    if changed := altered(item.path):
        return Checked(item.path, "differs", "; ".join(changed))
    return Checked(item.path, "ok", "digests")


def _windows(folder: Path, settings: Settings, sample: int, draw: random.Random) -> Checked:
    """Cut windows of a prepared folder again."""
    try:
        again = open_recomputer(folder, settings.data_root, settings.cache)
        compared = 0
        for split in SPLITS:
            part = again.prepared.splits[split]
            rows = sorted(draw.sample(range(len(part.manifest)), min(sample, len(part.manifest))))
            with tempfile.TemporaryDirectory(prefix="harness-verify-") as place:
                made = again.windows(split, rows, Path(place))
            stored = part.windows()[rows]
            if wrong := [row for row, one, two in zip(rows, made, stored, strict=True) if (one != two).any()]:
                at = part.folder / WINDOWS_FILE
                return Checked(folder, "differs", f"{at}: {split} {_rows(wrong)} differ from the corpus")
            compared += len(rows)
    except (DataError, OSError) as error:
        return Checked(folder, "skipped", f"digests; windows cannot be made again here: {error}")
    return Checked(folder, "ok", f"digests, and {compared} windows made again")


def _features(folder: Path, sample: int, draw: random.Random) -> Checked:
    """Compute batches again: whole ones, as they were made."""
    try:
        source = _Source.model_validate_json((folder / SOURCE).read_bytes())
    except (OSError, ValidationError):
        return Checked(folder, "skipped", "digests; an earlier version made it, and did not say of what")
    windows = folder / source.windows
    if not is_complete(windows):
        return Checked(folder, "skipped", f"digests; its windows are not in {windows.resolve()} any more")
    try:
        load_plugins()
        front_end = parse_front_end(source.front_end)
        if front_end.digest() != source.front_end_digest:
            return Checked(folder, "skipped", "digests; another implementation made it, and no trial uses it")
        module = build_front_end(front_end).eval()
    except ValueError as error:
        return Checked(folder, "skipped", f"digests; its front end cannot be computed here: {error}")
    samples = np.load(windows / WINDOWS_FILE, mmap_mode="c", allow_pickle=False)
    stored = np.load(folder / FEATURES_FILE, mmap_mode="r", allow_pickle=False)
    if len(samples) != len(stored):
        return Checked(folder, "differs", f"{len(stored)} rows of features, {len(samples)} windows")
    starts = range(0, len(samples), FEATURE_BATCH)
    chosen = sorted(draw.sample(starts, min(len(starts), -(-sample // FEATURE_BATCH))))
    for start in chosen:
        made = featurise(module, samples[start : start + FEATURE_BATCH])
        beyond = np.abs(made - stored[start : start + FEATURE_BATCH]) > TOLERANCE * (1 + np.abs(made))
        if beyond.any():
            wrong = [start + int(row) for row in np.flatnonzero(beyond.reshape(len(made), -1).any(axis=1))]
            text = f"{folder / FEATURES_FILE}: {_rows(wrong)} differ from {front_end.kind} of the windows"
            return Checked(folder, "differs", text)
    count = sum(min(FEATURE_BATCH, len(samples) - start) for start in chosen)
    return Checked(folder, "ok", f"digests, and {front_end.kind} of {count} windows made again")


def _rows(rows: list[int]) -> str:
    shown = ", ".join(map(str, rows[:5]))
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return f"window{'s' * (len(rows) > 1)} {shown}{more}"
