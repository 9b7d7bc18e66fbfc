"""Manifests: the chosen windows of a split, with a digest of their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, FiniteFloat, TypeAdapter

from data.errors import DataError
from data.parts import Split
from data.store.safe_read import read_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Source:
    """An excerpt of a recording in a window; samples at 16 kHz, as in `data.tasks.base.Piece`.

    ``speaker`` and ``chapter`` are an utterance's; a conversation has its ``group`` and no one speaker.
    ``audio_sha256`` is of the file, whatever voice ``variant`` ("": none) was made of it.
    """

    recording_id: str
    part: str
    speaker: str
    chapter: str
    group: str
    audio_sha256: str
    variant: str
    start_sample: int
    num_samples: int
    at_sample: int
    gain_db: float

    @property
    def content(self) -> list[str | int | float]:
        """What decides the samples: names and folders are left out."""
        where = [self.start_sample, self.num_samples, self.at_sample, self.gain_db]
        return [self.audio_sha256, self.variant, *where]


@dataclass(frozen=True, slots=True)
class Window:
    """One labelled window of 48 000 samples at 16 kHz: the sum of its sources, at ``level_dbfs``.

    ``speaker`` is whom it is counted for, ``speakers`` all who may be heard in it, ``subset`` where its
    score belongs, ``cluster`` what its prediction is not independent of.
    """

    sources: tuple[Source, ...]
    label: int
    subset: str
    speaker: str
    speakers: tuple[str, ...]
    sex: str
    cluster: str
    level_dbfs: float | None = None


_COLUMNS = tuple(column.name for column in fields(Window))
_SOURCE_COLUMNS = tuple(column.name for column in fields(Source))
_Names = tuple[str, ...]
_SourceRow = tuple[str, str, str, str, str, str, str, int, int, int, FiniteFloat]
_Row = tuple[tuple[_SourceRow, ...], Literal[0, 1], str, str, _Names, str, str, FiniteFloat | None]


class _Head(BaseModel):
    split: Split
    digest: str
    columns: _Names
    source_columns: _Names = ()


class _Body(BaseModel):
    windows: tuple[_Row, ...]


_HEAD, _BODY = TypeAdapter(_Head), TypeAdapter(_Body)


@dataclass(frozen=True)
class Manifest:
    """Windows of one split, in the order of the stored array; any prefix is nearly balanced."""

    split: Split
    windows: tuple[Window, ...]

    @cached_property
    def digest(self) -> str:
        """Sha256 over the sources' content, level, label and speakers of each window, in order.

        File names, folders and times are left out: the same audio gives the same digest anywhere.
        """
        digest = hashlib.sha256()
        for window in self.windows:
            sources = [source.content for source in window.sources]
            row = [sources, window.level_dbfs, window.label, list(window.speakers)]
            digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        return digest.hexdigest()

    @cached_property
    def label_histogram(self) -> dict[str, dict[str, object]]:
        """For each class, its windows and speakers, in all and by sex."""
        histogram: dict[str, dict[str, object]] = {}
        for label in (0, 1):
            of_class = [window for window in self.windows if window.label == label]
            sexes = sorted({window.sex for window in of_class})
            histogram[str(label)] = {
                **_counts(of_class),
                "sexes": {sex: _counts([w for w in of_class if w.sex == sex]) for sex in sexes},
            }
        return histogram

    def __len__(self) -> int:
        return len(self.windows)

    def labels(self) -> npt.NDArray[np.int64]:
        """Return the labels, ``(window,)`` int64."""
        import numpy as np

        return np.array([window.label for window in self.windows], dtype=np.int64)

    def clusters(self) -> list[str]:
        """Return the cluster of each window; predictions within one are not independent."""
        return [window.cluster for window in self.windows]

    def subsets(self) -> list[str]:
        """Return the evaluation subset of each window, in which its score counts."""
        return [window.subset for window in self.windows]

    @property
    def share_1(self) -> float:
        """Share of windows labelled 1, .5 where classes are balanced; nan for no windows."""
        return sum(window.label for window in self.windows) / len(self) if self.windows else float("nan")

    def save(self, path: Path) -> None:
        """Write the manifest as JSON, one list a window (and a source) under named columns."""
        rows = ",\n".join(json.dumps(astuple(window), ensure_ascii=False) for window in self.windows)
        columns = {"columns": _COLUMNS, "source_columns": _SOURCE_COLUMNS}
        head = json.dumps({"split": self.split, "digest": self.digest, **columns})[:-1]
        path.write_text(f'{head}, "windows": [\n{rows}\n]}}\n', encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a manifest and check it against the digest written with it (else DataError; of another form too)."""
        head = read_json(path, _HEAD)
        if (head.columns, head.source_columns) != (_COLUMNS, _SOURCE_COLUMNS):
            raise DataError(f"{path} has columns {list(head.columns)}; remove its folder and prepare again")
        rows = read_json(path, _BODY).windows
        manifest = cls(head.split, tuple(Window(tuple(Source(*s) for s in row[0]), *row[1:]) for row in rows))
        if manifest.digest != head.digest:
            raise DataError(
                f"{path} was changed: its digest is {manifest.digest[:12]}, recorded {head.digest[:12]}; remove "
                "its folder and prepare again"
            )
        return manifest


def _counts(windows: Sequence[Window]) -> dict[str, int]:
    return {"windows": len(windows), "speakers": len({s for w in windows for s in w.speakers})}
