"""What preparation leaves behind: quick to load, checked against its own digests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, PlainValidator, TypeAdapter, model_validator

from data.audio.format import WINDOW_SAMPLES
from data.config import DataConfig
from data.corpora.base import LostRecording
from data.errors import DataError
from data.labels import LabelMap
from data.parts import SPLITS, Split
from data.preparation.manifest import Manifest
from data.store.content_store import MARKER, altered, is_complete
from data.store.leases import lease_folders
from data.store.safe_read import read_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

RECORD = "prepared.json"
LABEL_MAP = "label_map.json"
WINDOWS_FILE = "windows.npy"


class _StoredSplit(BaseModel):
    manifest_digest: str
    windows: str
    count: int


class _Stored(BaseModel):
    """What `data.preparation.prepare` wrote down."""

    config: Annotated[DataConfig, PlainValidator(DataConfig.model_validate)]
    split_rule: str
    flags: tuple[str, ...]
    dropped: dict[Split, dict[str, int]]
    examined: int
    lost: tuple[LostRecording, ...]
    splits: dict[Split, _StoredSplit]

    @model_validator(mode="after")
    def _every_split(self) -> _Stored:
        if set(self.splits) != set(SPLITS):
            raise ValueError(f"the splits are {', '.join(self.splits) or 'missing'}, not {', '.join(SPLITS)}")
        return self


_STORED = TypeAdapter(_Stored)


@dataclass(frozen=True)
class SplitData:
    """A split: its manifest, and the folder that stores its windows."""

    manifest: Manifest
    folder: Path

    def windows(self) -> npt.NDArray[np.int16]:
        """Return ``(window, 48000)`` int16, memory-mapped copy-on-write and shared between processes.

        Raises
        ------
        DataError
            They are not the windows that were stored; a process reads them for that once (a second for 1 GB).
        """
        import numpy as np

        path = self.folder / WINDOWS_FILE
        shape = (len(self.manifest), WINDOW_SAMPLES)
        if not self.manifest.windows:  # an empty file cannot be mapped
            return np.empty(shape, dtype=np.int16)
        _require_unchanged(self.folder)
        stored: npt.NDArray[np.int16] = np.load(path, mmap_mode="c", allow_pickle=False)
        if stored.shape != shape or stored.dtype != np.int16:
            raise DataError(
                f"{path} holds {stored.shape} {stored.dtype}, its manifest says {shape} int16; "
                "remove its folder and prepare again"
            )
        return stored


@dataclass(frozen=True)
class Prepared:
    """Audited input of a study; everything a worker needs is under ``folder`` and the window store."""

    folder: Path
    config: DataConfig
    label_map: LabelMap
    split_rule: str
    flags: tuple[str, ...]
    dropped: Mapping[Split, Mapping[str, int]]
    lost: tuple[LostRecording, ...]
    examined: int
    splits: Mapping[Split, SplitData]

    @property
    def train(self) -> SplitData:
        """The split that weights are fitted to."""
        return self.splits["train"]

    @property
    def val(self) -> SplitData:
        """The split that epochs and trials are chosen by: scores on it are optimistic."""
        return self.splits["val"]

    @property
    def test(self) -> SplitData:
        """The test split; promotion alone opens its windows."""
        return self.splits["test"]

    @property
    def dropped_line(self) -> str:
        """Ambiguous windows that were dropped, counted by split and reason; "" for none."""
        reasons = (
            f"{split} {sum(counts.values())} ({', '.join(f'{n} {why}' for why, n in sorted(counts.items()))})"
            for split, counts in self.dropped.items()
            if counts
        )
        return "; ".join(reasons)

    @property
    def digests(self) -> dict[str, str]:
        """Split -> digest of its manifest: how runs and exported models say what they were trained and scored on."""
        return {split: self.splits[split].manifest.digest for split in SPLITS}


def _require_unchanged(folder: Path) -> None:
    if not is_complete(folder):
        raise DataError(f"{folder} is not a finished prepared folder; prepare the data again")
    if changed := altered(folder):
        raise DataError(f"{'; '.join(changed)}; remove {folder} and prepare the data again")


def manifest_path(folder: Path, split: Split) -> Path:
    """Return where the manifest of ``split`` stands in a prepared folder."""
    return folder / f"manifest_{split}.json"


def load_prepared(folder: Path) -> Prepared:
    """Open a prepared folder, without decoding or reading any window.

    Raises
    ------
    DataError
        An unfinished or changed folder (digests are compared), or windows that are gone.
    """
    _require_unchanged(folder)
    prepared = _parsed(folder.absolute(), (folder / MARKER).read_bytes())
    lease_folders(folder.parent.parent, [folder, *(part.folder for part in prepared.splits.values())])
    for split, part in prepared.splits.items():
        if not is_complete(part.folder):
            raise DataError(f"the {split} windows are not in {part.folder} any more; prepare the data again")
    return prepared


@lru_cache(maxsize=4)
def _parsed(folder: Path, marker: bytes) -> Prepared:
    """Read a folder whose files are those of its ``marker``, which names their sha256: so once is enough."""
    del marker
    record = read_json(folder / RECORD, _STORED)
    splits: dict[Split, SplitData] = {}
    for split in SPLITS:
        manifest = Manifest.load(manifest_path(folder, split))
        stored = record.splits[split]
        if manifest.digest != stored.manifest_digest:
            raise DataError(f"{folder}: the {split} manifest is not the recorded one; prepare the data again")
        # Relative, so that a cache can be moved as a whole.
        splits[split] = SplitData(manifest, (folder / stored.windows).resolve())
    return Prepared(
        folder=folder,
        config=record.config,
        label_map=LabelMap.load(folder / LABEL_MAP),
        split_rule=record.split_rule,
        flags=record.flags,
        dropped=record.dropped,
        lost=record.lost,
        examined=record.examined,
        splits=splits,
    )
