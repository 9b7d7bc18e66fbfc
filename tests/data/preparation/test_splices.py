"""Both classes are processed alike: what processing leaves behind says nothing about the class.

The sources are smooth noise below 1 kHz, one spectrum for everybody, so that nothing but a splice, a
cut or a fade makes anything above it. A classifier sees only that: how sharp the sharpest moments of a
window are, against the sound around them.
"""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
from scipy.signal import butter, sosfilt
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import cross_val_predict

from data.audio.decode import to_int16
from data.audio.speech_activity import Speech
from data.digests import rank
from data.preparation.windows import mix
from data.tasks.base import Draw, Piece
from tests.data.task_pools import DIARIZATION, plan, pool_of, read_speech

WINDOWS = 300
FRAME = 80  # samples, 5 ms: as long as a fade
# Half of WINDOWS right by chance, within 3.3 binomial standard errors: one false alarm in 1,000.
CHANCE = 0.5 + 3.3 * 0.5 / np.sqrt(WINDOWS)


@cache
def smooth(key, num_samples):
    noise = np.random.default_rng(int(rank(key), 16)).normal(size=num_samples)
    low = sosfilt(butter(8, 1_000, fs=16_000, output="sos"), noise)
    return (0.03 * low / low.std()).astype(np.float32)


def sharpness(window):
    """The sharpest 5 ms frames of a window: energy of its third difference against the sound around."""
    third = np.diff(window.astype(np.float64) / 32_768, n=3) ** 2
    frames = third[: len(third) // FRAME * FRAME].reshape(-1, FRAME).mean(axis=1)
    sound = (window.astype(np.float64)[: len(frames) * FRAME].reshape(-1, FRAME) ** 2).mean(axis=1)
    around = np.convolve(sound, np.ones(9) / 9, mode="same") + 1
    ratio = np.sort(np.log(frames / around + 1e-20))
    return [*ratio[-6:], np.median(ratio), ratio[-1] - np.median(ratio)]


def accuracy(windows):
    def excerpt(piece):
        samples = smooth(piece.recording.key, piece.recording.num_samples)
        return samples[piece.start_sample : piece.start_sample + piece.num_samples]

    features = [sharpness(to_int16(mix(w, [excerpt(p) for p in w.pieces]))) for w in windows]
    labels = np.array([w.label for w in windows])
    model = HistGradientBoostingClassifier(max_iter=30, random_state=0)
    return float((cross_val_predict(model, np.array(features), labels, cv=5) == labels).mean())


@pytest.fixture(scope="module")
def planned():
    recordings = read_speech(speakers=30, utterances=1)
    speech = {r.key: Speech(((0, r.num_samples),), -30.0) for r in recordings}
    draw = Draw({"train": WINDOWS, "val": 8, "test": 8}, 0, None)
    return {
        name: plan(task, pool_of(recordings, speech), draw).splits["train"]
        for name, task in DIARIZATION.items()
    }


@pytest.mark.parametrize("name", DIARIZATION)
def test_a_classifier_of_splice_artefacts_stays_at_chance(planned, name):
    assert accuracy(planned[name]) < CHANCE


@pytest.fixture
def unspliced(planned):
    """The mistake that SCIENCE measured: negatives left whole (.84 becomes .905)."""
    return [
        w if w.label else dataclasses.replace(w, pieces=(Piece(w.pieces[0].recording, 8_000),))
        for w in planned["speaker_change"]
    ]


def test_the_same_classifier_finds_unspliced_negatives(unspliced):
    assert accuracy(unspliced) > CHANCE


def test_the_same_classifier_finds_cuts_without_a_fade(unspliced, monkeypatch):
    monkeypatch.setattr("data.preparation.windows.FADE", 1)
    assert accuracy(unspliced) > 0.9
