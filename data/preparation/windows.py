"""Making windows: recordings are examined once, then excerpts are faded, scaled, summed and stored."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from data.audio.decode import (
    WINDOW_SAMPLES,
    Audio,
    Float,
    Int16,
    digest_audio,
    load_audio,
    read_excerpt,
    to_int16,
)
from data.audio.speech_activity import Speech, measure_speech
from data.audio.voice_variants import load_variant
from data.corpora.base import Progress, Recording
from data.errors import AudioError, DataError
from data.preparation.prepared import WINDOWS_FILE
from data.store.content_store import reserve
from data.tasks.base import Piece, PlannedWindow

FADE = 80  # samples, 5 ms: of every end of an excerpt that is not the window's own end
_LIMIT = 0.99  # no sum may clip: clipping would mark the windows that hold more voices
_CHUNK = 64
_KEPT_SAMPLES = 64_000_000  # of decoded utterances, 256 MB
T = TypeVar("T")


class RecordingExaminer:
    """Decodes recordings once: the digest of each, or why it is lost, and the speech of an utterance.

    Threads decode (libsndfile and sha256 release the interpreter lock); results are stored in the order
    of the keys, so nothing depends on their timing.
    """

    def __init__(self, cache: Path, progress: Progress) -> None:
        self.sha256: dict[str, str] = {}
        self.speech: dict[str, Speech] = {}
        self.failures: dict[str, str] = {}
        self._cache, self._progress = cache, progress

    def examine(self, recordings: Iterable[Recording], *, speech: bool) -> None:
        """Look at what was not looked at yet; failures are noted by the recording's key, not raised.

        ``speech`` measures the speech of utterances too, by decoding again what has a digest only.
        """
        seen = self.speech if speech else self.sha256
        todo = {r.key: r for r in recordings if r.key not in seen and r.key not in self.failures}
        jobs = [todo[key] for key in sorted(todo)]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for done, chunk in _chunks(jobs):
                results = pool.map(partial(_examined, cache=self._cache, speech=speech), chunk)
                for recording, result in zip(chunk, results, strict=True):
                    self._note(recording, result)
                _tell(self._progress, "reading audio files", done, len(jobs))

    def _note(self, recording: Recording, result: tuple[str, Speech | None] | str) -> None:
        if isinstance(result, str):
            self.failures[recording.key] = result
            return
        self.sha256[recording.key], speech = result
        if speech is not None:
            self.speech[recording.key] = speech


def _chunks(items: Sequence[T]) -> Iterator[tuple[int, list[T]]]:
    iterator, done = iter(items), 0
    while chunk := list(islice(iterator, _CHUNK)):
        done += len(chunk)
        yield done, chunk


def _tell(progress: Progress, what: str, done: int, total: int) -> None:
    """Say how far it is about ten times, and at the end."""
    step = max(_CHUNK, total // 10)
    if done == total or done % step < _CHUNK:
        progress(f"{what}: {done} of {total}")


def _load(recording: Recording, cache: Path) -> Audio:
    """Return the audio of an utterance, or of its voice variant."""
    if recording.variant is None:
        audio = load_audio(recording.path)
    else:
        audio = load_variant(recording.path, recording.variant, cache / "variants")
    if len(audio.samples) != recording.num_samples:
        raise AudioError("changed since its header was read")
    return audio


def _examined(recording: Recording, cache: Path, speech: bool) -> tuple[str, Speech | None] | str:
    """Return the digest and the speech, or the reason why the recording is lost."""
    try:
        if recording.conversation:
            return digest_audio(recording.path), None
        audio = _load(recording, cache)
    except AudioError as error:
        return str(error)
    return audio.sha256, measure_speech(audio.samples) if speech else None


@contextmanager
def _still_sound(recording: Recording) -> Iterator[None]:
    """What was examined and found sound is refused by its name where it no longer is."""
    try:
        yield
    except AudioError as error:
        raise DataError(
            f"{recording.path} changed while it was being prepared: {error}; prepare again"
        ) from error


class WindowMaker:
    """Makes planned windows; utterances in use are kept decoded, conversations are read by seeking."""

    def __init__(self, sha256: dict[str, str], cache: Path, progress: Progress) -> None:
        self._sha256, self._cache, self._progress = sha256, cache, progress
        self._kept: OrderedDict[str, Float] = OrderedDict()
        self._kept_samples = 0

    def write(self, windows: Sequence[PlannedWindow], folder: Path) -> None:
        """Write ``windows`` as ``windows.npy``, ``(window, 48000)`` int16, in their order."""
        shape = (len(windows), WINDOW_SAMPLES)
        if not windows:
            np.save(folder / WINDOWS_FILE, np.empty(shape, dtype=np.int16))
            return
        target = np.lib.format.open_memmap(folder / WINDOWS_FILE, mode="w+", dtype=np.int16, shape=shape)
        reserve(folder / WINDOWS_FILE)
        # Neighbours share recordings, so that few are decoded twice.
        order = sorted(range(len(windows)), key=lambda row: (windows[row].pieces[0].recording.key, row))
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for done, rows in _chunks(order):
                self._keep(rows, windows, pool)
                for row, window in zip(rows, pool.map(self._make, [windows[r] for r in rows]), strict=True):
                    target[row] = window
                _tell(self._progress, "making windows", done, len(windows))
        target.flush()

    def _keep(self, rows: Sequence[int], windows: Sequence[PlannedWindow], pool: ThreadPoolExecutor) -> None:
        """Decode the utterances of a chunk; forget those that were used longest ago."""
        wanted = {p.recording.key: p.recording for r in rows for p in windows[r].pieces}
        utterances = [wanted[key] for key in sorted(wanted) if not wanted[key].conversation]
        for recording in utterances:
            if recording.key in self._kept:
                self._kept.move_to_end(recording.key)
        missing = [recording for recording in utterances if recording.key not in self._kept]
        for recording, samples in zip(missing, pool.map(self._decode, missing), strict=True):
            self._kept[recording.key] = samples
            self._kept_samples += len(samples)
        while self._kept_samples > _KEPT_SAMPLES and len(self._kept) > len(utterances):
            self._kept_samples -= len(self._kept.popitem(last=False)[1])

    def _decode(self, recording: Recording) -> Float:
        with _still_sound(recording):
            audio = _load(recording, self._cache)
            if audio.sha256 != self._sha256[recording.key]:
                raise AudioError("its samples are others")
        return audio.samples

    def _make(self, window: PlannedWindow) -> Int16:
        return to_int16(mix(window, [self._excerpt(piece) for piece in window.pieces]))

    def _excerpt(self, piece: Piece) -> Float:
        recording, start, end = piece.recording, piece.start_sample, piece.start_sample + piece.num_samples
        if recording.conversation:
            with _still_sound(recording):
                return read_excerpt(recording.path, start, piece.num_samples)
        return self._kept[recording.key][start:end]


def mix(window: PlannedWindow, excerpts: Sequence[Float]) -> Float:
    """Return ``(48000,)`` float32: the sum of ``excerpts``, one a piece, scaled, faded and levelled.

    ::

        A     |----------\\                  two pieces that share 5 ms cross-fade: a splice
        B               \\/-----------|
        C          /-------\\                a piece inside fades in and out
              0                    3 s      ends at the window's ends are not faded
    """
    total = np.zeros(WINDOW_SAMPLES, dtype=np.float32)
    for piece, excerpt in zip(window.pieces, excerpts, strict=True):
        end = piece.at_sample + piece.num_samples
        shaped = excerpt * np.float32(10 ** (piece.gain_db / 20))
        # Raised cosines: two that cross sum to 1, and neither has a corner to be heard.
        ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(FADE) + 0.5) / FADE)).astype(np.float32)
        if piece.at_sample > 0:
            shaped[:FADE] *= ramp
        if end < WINDOW_SAMPLES:
            shaped[-FADE:] *= ramp[::-1]
        total[piece.at_sample : end] += shaped
    if window.level_dbfs is None:
        return total
    level = float(np.sqrt(np.mean(total.astype(np.float64) ** 2)))
    gain = 10 ** (window.level_dbfs / 20) / max(level, 1e-8)
    peak = float(np.abs(total).max()) * gain
    return total * np.float32(gain * min(1.0, _LIMIT / max(peak, 1e-8)))
