"""Windows made a second time, from the corpus and the manifest, to be compared with the stored ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.corpora.base import Recording
from data.digests import digest_of
from data.errors import DataError
from data.parts import Split
from data.preparation.manifest import Window
from data.preparation.prepare import state_of, varied
from data.preparation.prepared import Prepared, load_prepared
from data.preparation.sources import open_sources, scan_all
from data.preparation.windows import RecordingExaminer, WindowMaker
from data.tasks.base import Piece, PlannedWindow

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def _quiet(message: str) -> None:
    del message


@dataclass(frozen=True)
class Recomputer:
    """Makes windows of one prepared folder again; `recordings` are those of its corpus, by their key."""

    prepared: Prepared
    cache: Path
    recordings: dict[str, Recording]

    def windows(self, split: Split, rows: Sequence[int], folder: Path) -> npt.NDArray[np.int16]:
        """Return ``(len(rows), 48000)`` int16, cut from the corpus anew; ``folder`` is used for that.

        Raises
        ------
        DataError
            A recording is gone, or has other samples than when the manifest was made.
        """
        import numpy as np

        manifest = self.prepared.splits[split].manifest
        planned = [self._plan(manifest.windows[row]) for row in rows]
        examiner = RecordingExaminer(self.cache, _quiet)
        examiner.examine((piece.recording for window in planned for piece in window.pieces), speech=False)
        for window, row in zip(planned, rows, strict=True):
            for piece, source in zip(window.pieces, manifest.windows[row].sources, strict=True):
                found = examiner.sha256.get(piece.recording.key)
                if found != source.audio_sha256:
                    reason = examiner.failures.get(piece.recording.key, "its samples are others")
                    raise DataError(f"{piece.recording.path}: {reason}")
        WindowMaker(examiner.sha256, self.cache, _quiet).write(planned, folder)
        again: npt.NDArray[np.int16] = np.load(folder / "windows.npy", allow_pickle=False)
        return again

    def _plan(self, window: Window) -> PlannedWindow:
        pieces = []
        for source in window.sources:
            key = f"{source.part}/{source.recording_id}"
            if key not in self.recordings:
                raise DataError(f"the corpus has no recording {key} any more")
            pieces.append(
                Piece(
                    self.recordings[key],
                    source.start_sample,
                    source.num_samples,
                    source.at_sample,
                    source.gain_db,
                )
            )
        return PlannedWindow(
            tuple(pieces),
            label=window.label,
            speaker=window.speaker,
            cluster=window.cluster,
            speakers=window.speakers,
            subset=window.subset,
            level_dbfs=window.level_dbfs,
        )


def open_recomputer(folder: Path, data_root: Path | None, cache: Path) -> Recomputer:
    """Open a prepared folder and the corpus that it was made of; nothing is downloaded.

    Raises
    ------
    DataError
        The folder is damaged; or the corpus is not here, or is in another state than when it was prepared.
    """
    prepared = load_prepared(folder)
    # A copy that is not validated again: no sweep may ask for downloads of nothing, this must.
    config = prepared.config.model_copy(update={"max_download_gb": 0.0})
    sources = open_sources(config, data_root, cache, _quiet)
    if digest_of(state_of(prepared.config, sources))[:32] != folder.name:
        raise DataError("the corpus, or the code that prepares it, is another than when it was prepared")
    scan = scan_all(sources)
    known = [recording for found in scan.recordings.values() for recording in found]
    every = [one for recording in known for one in (recording, *varied(config, recording))]
    return Recomputer(prepared, cache, {recording.key: recording for recording in every})
