"""Kaldi's filter bank: two maintained libraries and the exportable module agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from models.front_ends.kaldi_fbank import FLOOR, RECIPES, KaldiFbank, library_fbank, num_fbank_frames
from models.window import WINDOW_SAMPLES

MODULES = {recipe: KaldiFbank(recipe) for recipe in RECIPES}


@st.composite
def signals(draw: st.DrawFn) -> np.ndarray:
    """Noise of any level under tones, clicks, silence and a constant offset; 25 ms to 1 s."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(400, 16_000))
    level = 10 ** draw(st.floats(-4.5, -1))
    signal = rng.normal(scale=level, size=count)
    for _ in range(draw(st.integers(0, 3))):
        frequency = draw(st.floats(20, 7_900))
        signal += 10 ** draw(st.floats(-3, -0.7)) * np.sin(2 * np.pi * frequency * np.arange(count) / 16_000)
    if draw(st.booleans()):
        signal[rng.integers(count, size=3)] = 0.9
    if draw(st.booleans()):
        signal[: count // 2] = 0
    return np.clip(signal + draw(st.floats(-0.2, 0.2)), -1, 1).astype(np.float32)


def torchaudio_fbank(signal: np.ndarray, recipe: str) -> np.ndarray:
    samples = torch.from_numpy(signal * np.float32(RECIPES[recipe].scale)).unsqueeze(0)
    fbank = torchaudio.compliance.kaldi.fbank(
        samples, num_mel_bins=80, dither=0.0, window_type=RECIPES[recipe].window, sample_frequency=16_000.0
    )
    return np.asarray(fbank.numpy())


def assert_alike(one: np.ndarray, other: np.ndarray, signal: np.ndarray, scale: float) -> None:
    """Energies agree to 1e-3 of themselves or 1e-8 of the frame's, whichever is more; so do logarithms, above the noise.

    A band is what is left of 400 terms of the samples' size, each rounded to 24 bits: what is far below the frame's
    energy is rounding. Measured over such signals: logarithms of bands less than 60 dB below differ by 1.2e-4.
    """
    assert one.shape == other.shape == (num_fbank_frames(len(signal)), 80)
    energies = np.exp(one.astype(float)), np.exp(other.astype(float))
    starts = np.arange(len(one)) * 160
    frames = np.stack([signal[start : start + 400] for start in starts]).astype(float) * scale
    whole = (frames**2).sum(axis=1, keepdims=True) * 400  # of all bins, at most
    assert (np.abs(energies[0] - energies[1]) <= 1e-8 * whole + 1e-3 * energies[0] + FLOOR).all()
    loud = np.minimum(*energies) > 1e-6 * whole + 10 * FLOOR
    assert (np.abs(one - other)[loud] <= 2e-3).all()


@given(signal=signals())
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_the_two_libraries_agree(recipe: str, signal: np.ndarray) -> None:
    ours, theirs = library_fbank(signal, recipe), torchaudio_fbank(signal, recipe)
    assert_alike(ours, theirs, signal, RECIPES[recipe].scale)


@given(signal=signals())
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_the_exportable_module_agrees_with_the_library(recipe: str, signal: np.ndarray) -> None:
    ours = MODULES[recipe](torch.from_numpy(signal).unsqueeze(0))[0].numpy()
    assert_alike(ours, library_fbank(signal, recipe), signal, RECIPES[recipe].scale)


@pytest.mark.needs_corpora
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_all_three_agree_on_real_speech(recipe: str, real_speech: np.ndarray) -> None:
    module = MODULES[recipe](torch.from_numpy(real_speech)).numpy()
    for index, window in enumerate(real_speech):
        library = library_fbank(window, recipe)
        assert np.abs(module[index] - library).max() <= 5e-3  # measured: 9e-4 at most, 8e-6 in the mean
        assert np.abs(module[index] - library).mean() <= 5e-5
        assert np.abs(torchaudio_fbank(window, recipe) - library).max() <= 5e-3


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_silence_is_the_floor_and_short_signals_have_no_frame(recipe: str) -> None:
    silence = np.zeros(800, np.float32)
    for fbank in (
        library_fbank(silence, recipe),
        MODULES[recipe](torch.from_numpy(silence)[None])[0].numpy(),
    ):
        np.testing.assert_allclose(fbank, np.full((3, 80), np.log(FLOOR)), rtol=1e-6)
    assert library_fbank(silence[:399], recipe).shape == (0, 80)
    assert [num_fbank_frames(count) for count in (0, 399, 400, 24_000, WINDOW_SAMPLES)] == [0, 0, 1, 148, 298]


def test_the_recipes_differ_in_scale_and_window_only() -> None:
    signal = np.random.default_rng(0).normal(scale=0.05, size=1_600).astype(np.float32)
    wespeaker, speaker3d = (library_fbank(signal, recipe) for recipe in ("wespeaker", "3dspeaker"))
    # An energy grows with the square of the scale: 2 ln 32768 = 20.79; the windows' energies differ by .2 or so.
    assert abs((wespeaker - speaker3d).mean() - 2 * np.log(32_768)) < 0.5
