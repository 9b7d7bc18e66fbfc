"""Manifests: the chosen windows of a split, with a digest of their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import DataError
from data.parts import Split

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Window:
    """One labelled window of 48 000 samples from ``start_sample`` (at 16 kHz) of a recording."""

    recording_id: str
    part: str
    audio_sha256: str
    start_sample: int
    label: int
    speaker: str
    chapter: str
    sex: str
    cluster: str


_COLUMNS = tuple(column.name for column in fields(Window))


@dataclass(frozen=True)
class Manifest:
    """Windows of one split, in the order of the stored array; any prefix is nearly balanced."""

    split: Split
    windows: tuple[Window, ...]

    @cached_property
    def digest(self) -> str:
        """Sha256 over audio digest, start, label and speaker of each window, in order.

        File names, folders and times are left out: the same audio gives the same digest anywhere.
        """
        digest = hashlib.sha256()
        for window in self.windows:
            row = [window.audio_sha256, window.start_sample, window.label, window.speaker]
            digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.windows)

    def labels(self) -> npt.NDArray[np.int64]:
        """Return the labels, ``(window,)`` int64."""
        import numpy as np

        return np.array([window.label for window in self.windows], dtype=np.int64)

    def clusters(self) -> list[str]:
        """Return the cluster of each window; predictions within one are not independent."""
        return [window.cluster for window in self.windows]

    @property
    def share_1(self) -> float:
        """Share of windows labelled 1; nan for no windows."""
        return sum(window.label for window in self.windows) / len(self) if self.windows else float("nan")

    def save(self, path: Path) -> None:
        """Write the manifest as JSON, one list a window under named columns."""
        rows = ",\n".join(json.dumps(astuple(window), ensure_ascii=False) for window in self.windows)
        head = json.dumps({"split": self.split, "digest": self.digest, "columns": _COLUMNS})[:-1]
        path.write_text(f'{head}, "windows": [\n{rows}\n]}}\n', encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a manifest and check it against the digest written with it (DataError if it differs)."""
        content = json.loads(path.read_text(encoding="utf-8"))
        if tuple(content["columns"]) != _COLUMNS:
            raise DataError(f"{path} has columns {content['columns']}; remove its folder and prepare again")
        manifest = cls(content["split"], tuple(Window(*row) for row in content["windows"]))
        if manifest.digest != content["digest"]:
            raise DataError(
                f"{path} was changed: its digest is {manifest.digest[:12]}, recorded "
                f"{content['digest'][:12]}; remove its folder and prepare again"
            )
        return manifest


def label_histogram(manifest: Manifest) -> dict[str, dict[str, object]]:
    """Return, for each class, its windows and speakers, in all and by sex."""
    histogram: dict[str, dict[str, object]] = {}
    for label in (0, 1):
        of_class = [window for window in manifest.windows if window.label == label]
        sexes = sorted({window.sex for window in of_class})
        histogram[str(label)] = {
            **_counts(of_class),
            "sexes": {sex: _counts([w for w in of_class if w.sex == sex]) for sex in sexes},
        }
    return histogram


def _counts(windows: Sequence[Window]) -> dict[str, int]:
    return {"windows": len(windows), "speakers": len({window.speaker for window in windows})}
