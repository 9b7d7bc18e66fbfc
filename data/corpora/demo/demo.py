"""The demo corpus: 96 generated speakers with 3 chapters each, written once in the OpenSLR layout."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from data.audio.decode import to_int16
from data.audio.format import SAMPLE_RATE, WINDOW_SAMPLES
from data.corpora.base import Progress, Request
from data.corpora.demo.voices import BINS_HZ, Float, Voice, make_voice, speak
from data.corpora.librispeech.disk import TABLE, LibriSpeechReader
from data.errors import DataError, unknown
from data.store.content_store import build_once, is_complete

VERSION = "1"
PARTS = ("clean", "other")
SPEAKERS = 96
# Windows in each utterance of the three chapters: 36 s, 15 s and 15 s, and tails that hold no window.
CHAPTERS = ((4, 3, 3, 2), (3, 2), (2, 3))
_SEED = 20_260
_ODD, _PERIOD = 29, SPEAKERS


@dataclass(frozen=True)
class DemoSpeaker:
    """A generated speaker. 29 of 96 ids are odd: ``hash(int(id)) % 2`` deals classes 70/30."""

    index: int

    @property
    def id(self) -> str:
        """Number in digits, as LibriSpeech's are; odd for 29 of 96, so that a rule that hashes ids deals unevenly."""
        odd = self.index * _ODD % _PERIOD < _ODD
        return str(1_000 + 20 * self.index + 2 * (7 * self.index % 10) + odd)

    @property
    def sex(self) -> str:
        """``F`` or ``M``, in turn: 48 of each."""
        return "FM"[self.index % 2]

    @property
    def voice(self) -> Voice:
        """The voice, drawn from the index alone: the same in all chapters and in both parts."""
        return make_voice(_generator("voice", self.index), self.sex)

    def chapter(self, number: int) -> str:
        """Return the id of chapter 0, 1 or 2."""
        return str(100_000 + 10 * self.index + number)


def _generator(purpose: str, *key: int) -> np.random.Generator:
    """Return a generator of its own for each purpose and place, whatever the order of making."""
    words = [_SEED, *purpose.encode(), *key]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


class DemoReader(LibriSpeechReader):
    """Writes the parts that are missing under ``<cache>/demo/<version>``, then reads them like any other."""

    def locate(self, request: Request) -> Path:
        """Return the folder of the generated corpus, making its parts first (about 20 s each)."""
        parts, progress = request.parts, request.progress
        root = request.cache / "demo" / VERSION
        for part in parts:
            if part not in PARTS:
                raise DataError(unknown("part of corpus demo", part, PARTS))
        for part in parts:
            if not is_complete(root / part):
                progress(f"generating demo/{part}: {SPEAKERS} speakers, about 20 s and 205 MB")
                build_once(root / part, partial(_write_part, part, progress))
        if not (root / TABLE).is_file():
            aside = root / f".{TABLE}.{os.getpid()}"
            aside.write_text("\n".join(_table()) + "\n", encoding="utf-8")
            aside.replace(root / TABLE)
        return root


def _table() -> Iterator[str]:
    yield ";ID  |SEX| SUBSET           |MINUTES| NAME"
    for index in range(SPEAKERS):
        speaker = DemoSpeaker(index)
        yield f"{speaker.id:<4} | {speaker.sex} | {'demo':<16} | 1.10  | Generated Voice {index}"


def _write_part(part: str, progress: Progress, folder: Path) -> None:
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for done, _ in enumerate(pool.map(partial(_write_speaker, part, folder), range(SPEAKERS)), 1):
            if done % 24 == 0:
                progress(f"generating demo/{part}: {done} of {SPEAKERS} speakers")


def _write_speaker(part: str, folder: Path, index: int) -> None:
    speaker = DemoSpeaker(index)
    for number, utterances in enumerate(CHAPTERS):
        chapter = folder / speaker.id / speaker.chapter(number)
        chapter.mkdir(parents=True)
        for utterance in range(len(utterances)):
            name = f"{speaker.id}-{speaker.chapter(number)}-{utterance:04d}.wav"
            samples = to_int16(make_utterance(part, index, number, utterance).astype(np.float32))
            soundfile.write(chapter / name, samples, SAMPLE_RATE, subtype="PCM_16")


def make_utterance(part: str, index: int, number: int, utterance: int) -> Float:
    """Return an utterance, ``(sample,)`` float64 in -1..1 at 16 kHz; clean and other say the same in the same voice.

    clean: noise at an SNR of 25 to 40 dB, one for a chapter. other: a room, and noise at 5 to 15 dB.

    Parameters
    ----------
    index : of the speaker; number : of the chapter; utterance : in it
    """
    rng = _generator("speech", index, number, utterance)
    windows = CHAPTERS[number][utterance]
    samples = windows * WINDOW_SAMPLES + int(rng.uniform(0, 0.5) * SAMPLE_RATE)
    sitting = _generator("sitting", index, number)
    condition = _generator(part, index, number, utterance)
    gain = 10 ** (sitting.uniform(-29, -20) / 20)
    signal = speak(DemoSpeaker(index).voice, samples, rng, _microphone(sitting))
    if part == "other":
        signal = _in_room(signal, condition)
        snr_db = condition.uniform(5, 15)
    else:
        snr_db = sitting.uniform(25, 40)
    noise = _noise(samples, condition)
    return gain * (signal / _rms(signal) + 10 ** (-snr_db / 20) * noise)


def _rms(signal: Float) -> float:
    return float(np.sqrt(np.mean(signal**2)))


def _microphone(sitting: np.random.Generator) -> Float:
    """Return a chapter's channel, ``(bin,)``: a tilt and three gentle resonances.

    It changes from chapter to chapter, so that a channel is no sign of a speaker.
    """
    octaves = np.log2(np.maximum(BINS_HZ, 60) / 1_000)
    gain_db = sitting.uniform(-1, 1) * octaves
    for _ in range(3):
        centre, width, depth = sitting.uniform(-3, 3), sitting.uniform(0.4, 1.2), sitting.uniform(-3, 3)
        gain_db += depth * np.exp(-0.5 * ((octaves - centre) / width) ** 2)
    channel: Float = 10 ** (gain_db / 20)
    return channel


def _in_room(signal: Float, rng: np.random.Generator) -> Float:
    """Add a room: the direct sound, then noise that decays by 60 dB in 0.2 to 0.6 s."""
    from scipy.signal import oaconvolve

    decay_s = rng.uniform(0.2, 0.6)
    time_s = np.arange(int(decay_s * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.normal(0, 1, len(time_s)) * 10 ** (-3 * time_s / decay_s)
    tail[: int(0.002 * SAMPLE_RATE)] = 0
    response = rng.uniform(0.15, 0.45) * tail / np.sqrt(np.sum(tail**2))
    response[0] = 1.0
    heard: Float = oaconvolve(signal, response)[: len(signal)]
    return heard


def _noise(samples: int, rng: np.random.Generator) -> Float:
    """Return noise of root mean square 1 whose spectrum falls by 0 to 6 dB an octave, with mains hum."""
    length = -(-samples // 4_800) * 4_800  # of small prime factors: a prime length takes ten times as long
    spectrum = np.fft.rfft(rng.normal(0, 1, length))
    hz = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    falling = (np.maximum(hz, 40) / 1_000) ** -rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum * falling)[:samples]
    hum = np.sin(2 * np.pi * rng.choice([50, 60]) * np.arange(samples) / SAMPLE_RATE)
    mixed: Float = noise / _rms(noise) + rng.uniform(0, 0.4) * hum
    return mixed / _rms(mixed)
