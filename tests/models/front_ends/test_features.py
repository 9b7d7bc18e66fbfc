"""Laws of the feature modules: librosa's numbers, one window at a time, exportable."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.front_ends.build import build_front_end
from models.front_ends.config import FRONT_ENDS, FrontEnd, LogMel, Mfcc, MfccDelta, SpectralFrontEnd, Waveform
from models.window import WINDOW_SAMPLES

SPECTRAL: list[type[SpectralFrontEnd]] = [LogMel, Mfcc, MfccDelta]
UNUSUAL: list[FrontEnd] = [
    Waveform(normalize=False),
    LogMel(n_mels=40, n_fft=1024, win_length=640, hop_length=200, f_min=60, f_max=7600, top_db=None),
    LogMel(win_length=399, hop_length=161),  # odd window: its centre is half a sample off
    Mfcc(n_mfcc=13, n_mels=23, n_fft=400, win_length=400, cmvn=False),
    MfccDelta(n_mfcc=20, delta_width=5),
]
CORPUS = Path(__file__).parents[4] / "shared" / "corpora" / "LibriSpeech"


def voices(count: int, seed: int = 0) -> np.ndarray:
    """Make buzzes of changing pitch with noise and pauses, (count, 48000) float32, at levels 20 dB apart."""
    rng = np.random.default_rng(seed)
    t = np.arange(WINDOW_SAMPLES) / 16_000
    pitch = rng.uniform(80, 250, (count, 1)) * (
        1 + 0.2 * np.sin(2 * np.pi * rng.uniform(1, 3, (count, 1)) * t)
    )
    phase = 2 * np.pi * np.cumsum(pitch, axis=1) / 16_000
    buzz = sum(np.cos(k * phase) / k for k in range(1, 25))
    gate = np.sin(2 * np.pi * rng.uniform(1, 4, (count, 1)) * t) > -0.6
    level = 10 ** rng.uniform(-2, -1, (count, 1))
    noise = rng.standard_normal((count, WINDOW_SAMPLES))
    return (level * (buzz * gate + 0.01 * noise)).astype(np.float32)


def by_librosa(config: SpectralFrontEnd, waveform: np.ndarray) -> np.ndarray:
    """Compute the same features, before CMVN, the way the notebooks should have."""
    mel = librosa.feature.melspectrogram(
        y=waveform,
        sr=16_000,
        n_fft=config.n_fft,
        win_length=config.win_length,
        hop_length=config.hop_length,
        n_mels=config.n_mels,
        fmin=config.f_min,
        fmax=config.f_max_hz,
        pad_mode="constant",
    )
    decibels = librosa.power_to_db(mel, top_db=config.top_db)
    if isinstance(config, LogMel):
        return decibels
    assert isinstance(config, Mfcc | MfccDelta)
    cepstra = librosa.feature.mfcc(S=decibels, n_mfcc=config.n_mfcc)
    if isinstance(config, Mfcc):
        return cepstra
    return np.concatenate([cepstra, librosa.feature.delta(cepstra, width=config.delta_width, mode="nearest")])


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Give the norm of the difference over the norm of the reference."""
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def without_cmvn(config: FrontEnd) -> FrontEnd:
    return config.model_copy(update={"cmvn": False} if isinstance(config, SpectralFrontEnd) else {})


def assert_parity(config: SpectralFrontEnd, windows: np.ndarray) -> None:
    module = build_front_end(config)
    for extractor in (module, module.exportable()):
        features = extractor(torch.from_numpy(windows)).numpy()
        for found, waveform in zip(features, windows, strict=True):
            expected = by_librosa(config, waveform)
            assert relative(found, expected) <= 1e-5
            # Also where it is worst, in a band just above the floor 80 dB down: thousandths of a decibel.
            assert np.abs(found - expected).max() <= 5e-3


@pytest.mark.parametrize("front_end", SPECTRAL)
def test_features_are_librosas(front_end: type[SpectralFrontEnd]) -> None:
    assert_parity(front_end(cmvn=False), voices(6))


@pytest.mark.parametrize("config", [c for c in UNUSUAL if isinstance(c, SpectralFrontEnd)], ids=repr)
def test_features_are_librosas_at_other_parameters(config: SpectralFrontEnd) -> None:
    assert_parity(config.model_copy(update={"cmvn": False}), voices(2))


@pytest.mark.needs_corpora
@pytest.mark.parametrize("front_end", SPECTRAL)
def test_features_are_librosas_on_real_speech(front_end: type[SpectralFrontEnd]) -> None:
    soundfile = pytest.importorskip("soundfile")
    paths = sorted(CORPUS.rglob("*.flac"))
    if not paths:
        pytest.skip(f"no LibriSpeech at {CORPUS}")
    read = [
        soundfile.read(path, frames=WINDOW_SAMPLES, dtype="float32")[0] for path in paths[:: len(paths) // 12]
    ]
    assert_parity(front_end(cmvn=False), np.stack([w for w in read if len(w) == WINDOW_SAMPLES]))


@pytest.mark.parametrize(
    "config", [*(c() for c in FRONT_ENDS.values() if not c.external), *UNUSUAL], ids=repr
)
def test_every_front_end_keeps_the_protocol(config: FrontEnd) -> None:
    """Shape as the value says, finite, float32, and the exportable twin gives the same numbers."""
    windows = torch.from_numpy(voices(3))
    module = build_front_end(config)
    features = module(windows)
    assert features.shape == (3, config.num_features, config.num_frames())
    assert features.dtype == torch.float32
    assert torch.isfinite(features).all()
    assert relative(module.exportable()(windows).numpy(), features.numpy()) <= 1e-5
    assert relative(module(windows).numpy(), features.numpy()) == 0  # exportable() changed nothing


@pytest.mark.parametrize(
    "config", [*(c() for c in FRONT_ENDS.values() if not c.external), LogMel(cmvn=False)], ids=repr
)
@given(seed=st.integers(0, 2**16), mates=st.integers(1, 4), gain_db=st.sampled_from([-60, 0, 60]))
@settings(max_examples=6, deadline=None)
def test_a_window_does_not_depend_on_its_batch(config: FrontEnd, seed: int, mates: int, gain_db: int) -> None:
    module = build_front_end(config)
    window = torch.from_numpy(voices(1, seed))
    others = torch.from_numpy(voices(mates, seed + 1)) * 10 ** (gain_db / 20)  # 60 dB: one very loud mate
    alone = module(window)[0]
    for place in (0, mates):
        batch = torch.cat([others[:place], window, others[place:]])
        assert relative(module(batch)[place].numpy(), alone.numpy()) <= 1e-5


@pytest.mark.parametrize("config", [c() for c in FRONT_ENDS.values() if not c.external], ids=repr)
def test_rows_have_mean_0_and_variance_1(config: FrontEnd) -> None:
    features = build_front_end(config)(torch.from_numpy(voices(3))).double()
    assert features.mean(dim=-1).abs().max() < 1e-4
    np.testing.assert_allclose(features.std(dim=-1, correction=0).numpy(), 1, atol=1e-4)


@pytest.mark.parametrize("config", [c() for c in FRONT_ENDS.values() if not c.external], ids=repr)
@pytest.mark.parametrize("level", [0.0, 1e-9, 0.25])
def test_constant_windows_give_finite_small_features(config: FrontEnd, level: float) -> None:
    """Silence has no variance to divide by; rounding must not be blown up into features either."""
    windows = torch.full((2, WINDOW_SAMPLES), level)
    for module in (build_front_end(config), build_front_end(config).exportable()):
        features = module(windows)
        assert torch.isfinite(features).all()
        assert level == 0.25 or features.abs().max() < 0.1


def test_the_louder_the_same_after_cmvn() -> None:
    """A gain shifts all decibels alike, so CMVN removes it."""
    windows = torch.from_numpy(voices(2))
    module = build_front_end(LogMel())
    assert relative(module(windows * 4).numpy(), module(windows).numpy()) < 1e-3


def test_slopes_of_a_ramp_are_its_step() -> None:
    """Worked by hand: frames 0, 2, 4 ... have slope 2 wherever the 9 frames around are real ones."""
    module = build_front_end(MfccDelta(n_mfcc=4, cmvn=False))
    module.decibels = lambda _: torch.linalg.pinv(module.dct) @ (2.0 * torch.arange(301.0)).expand(1, 4, 301)  # type: ignore[operator, assignment]
    rows = module.rows(torch.zeros(1, WINDOW_SAMPLES))
    np.testing.assert_allclose(rows[0, 4:, 4:-4].numpy(), 2.0, rtol=1e-4)
    # At the first frame the missing four count as 0: 2 * (1*1 + 2*2 + 3*3 + 4*4) / 60 = 1.
    np.testing.assert_allclose(rows[0, 4:, 0].numpy(), 1.0, rtol=1e-4)
