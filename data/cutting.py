"""Cutting planned windows: each recording is decoded once, its windows go to one scratch file."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

from data.audio import WINDOW_SAMPLES, Int16, load_audio, to_int16
from data.corpora.base import Progress, Recording
from data.errors import AudioError
from data.prepared import WINDOWS_FILE
from data.tasks.base import PlannedWindow

_CHUNK = 64  # recordings decoded at a time: bounds memory, keeps the threads busy
_ROW_BYTES = 2 * WINDOW_SAMPLES


class Cutter:
    """Keeps decoded windows in ``folder``; knows each recording's digest, or why it was lost.

    Threads decode (libsndfile and sha256 release the interpreter lock); results are stored in the
    order of the plan, so nothing depends on their timing.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.sha256: dict[str, str] = {}
        self.failures: dict[str, str] = {}
        self._rows: dict[tuple[str, int], int] = {}
        self._path = folder / "scratch.int16"
        self._path.touch()
        self._progress = progress

    def cut(self, windows: Iterable[PlannedWindow]) -> None:
        """Decode what ``windows`` need and was not cut yet; failures are noted, not raised."""
        starts: dict[str, list[int]] = defaultdict(list)
        recordings: dict[str, Recording] = {}
        for window in windows:
            if window.key not in self._rows:
                recordings[window.recording.key] = window.recording
                starts[window.recording.key].append(window.start_sample)
        jobs = [(recordings[key], sorted(set(starts[key]))) for key in sorted(starts)]
        done = 0
        with self._path.open("ab") as scratch, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for chunk in _chunks(jobs):
                for (recording, at), result in zip(chunk, pool.map(_load, chunk), strict=True):
                    if isinstance(result, str):
                        self.failures[recording.key] = result
                        continue
                    cut, self.sha256[recording.key] = result
                    scratch.write(cut.tobytes())
                    for start in at:
                        self._rows[recording.key, start] = len(self._rows)
                done += len(chunk)
                self._progress(f"cutting windows: {done} of {len(jobs)} recordings")

    def write(self, windows: Sequence[PlannedWindow], folder: Path) -> None:
        """Write ``windows`` as ``windows.npy``, ``(window, 48000)`` int16, in their order."""
        shape = (len(windows), WINDOW_SAMPLES)
        if not windows:
            np.save(folder / WINDOWS_FILE, np.empty(shape, dtype=np.int16))
            return
        scratch = np.memmap(self._path, dtype=np.int16, mode="r", shape=(len(self._rows), WINDOW_SAMPLES))
        target = np.lib.format.open_memmap(folder / WINDOWS_FILE, mode="w+", dtype=np.int16, shape=shape)
        for row, window in enumerate(windows):
            target[row] = scratch[self._rows[window.key]]
        target.flush()


Job = tuple[Recording, list[int]]


def _chunks(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    iterator = iter(jobs)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


def _load(job: Job) -> tuple[Int16, str] | str:
    """Return the job's windows ``(window, 48000)`` and the audio's digest, or the reason it is lost."""
    recording, starts = job
    try:
        audio = load_audio(recording.path)
    except AudioError as error:
        return str(error)
    if len(audio.samples) != recording.num_samples:
        return "changed while it was being prepared"
    cut = [to_int16(audio.samples[start : start + WINDOW_SAMPLES]) for start in starts]
    return np.stack(cut), audio.sha256
