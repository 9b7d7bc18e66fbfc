"""Laws of augmentation: what was drawn is what happened, from one seed, and where nothing was drawn nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.augmentation import (
    SAMPLE_RATE,
    SNR_SPAN_DB,
    Augmentation,
    Draws,
    EpochAugmentation,
    coloured_noise,
    covered,
    impulse_responses,
)
from models.front_ends.build import build_front_end
from models.front_ends.config import LogMel
from models.window import WINDOW_SAMPLES

CPU = torch.device("cpu")
SHAPE = {"num_features": 40, "num_frames": 301}
ALL = {
    "noise_snr_db": 0.0,
    "gain_db": 12.0,
    "reverb_rt60_s": 0.6,
    "freq_mask": 8,
    "time_mask": 40,
    "masks": 2,
}
quick = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**62)


def epoch(windows: int = 8, seed: int = 0, **ranges: float | None) -> EpochAugmentation:
    return EpochAugmentation(Augmentation(**SHAPE, **ranges), windows, seed, CPU)  # type: ignore[arg-type]


def speech(windows: int = 8, seed: int = 0, samples: int = WINDOW_SAMPLES) -> torch.Tensor:
    """Noise in bursts, at levels 20 dB apart, (window, sample)."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(samples) / SAMPLE_RATE
    level = 10 ** -(torch.rand(windows, 1, generator=generator) + 1)
    bursts = 0.05 + (torch.sin(2 * math.pi * 2 * t + torch.arange(windows)[:, None]) > 0)
    return level * bursts * torch.randn(windows, samples, generator=generator)


def power_db(waves: torch.Tensor) -> torch.Tensor:
    return 10 * torch.log10(waves.double().square().mean(dim=-1))


@quick
@given(seeds, st.floats(-20, 40), st.floats(0, 1))
def test_the_measured_snr_is_the_drawn_one(seed: int, lowest: float, share: float) -> None:
    clean = speech(seed=seed % 7)
    augmented = epoch(seed=seed, noise_snr_db=lowest, share=share)
    noisy = augmented.waveforms(clean, 0)
    hit = augmented.drawn.snr_db.isfinite()
    measured = power_db(clean) - power_db(noisy.double() - clean.double())
    torch.testing.assert_close(measured[hit].float(), augmented.drawn.snr_db[hit], atol=0.02, rtol=0)
    assert torch.equal(noisy[~hit], clean[~hit])
    drawn = augmented.drawn.snr_db[hit]
    assert ((drawn >= lowest - 1e-4) & (drawn <= lowest + SNR_SPAN_DB + 1e-4)).all()


@quick
@given(seeds, st.floats(0.5, 24))
def test_the_measured_gain_is_the_drawn_one(seed: int, most: float) -> None:
    clean = speech()
    augmented = epoch(seed=seed, gain_db=most)
    gain = power_db(augmented.waveforms(clean, 0)) - power_db(clean)
    torch.testing.assert_close(gain.float(), augmented.drawn.gain_db, atol=1e-3, rtol=0)
    assert (augmented.drawn.gain_db.abs() <= most).all()


def decay_time_s(response: np.ndarray) -> float:
    """RT60 by Schroeder's backward integration, from the slope between -8 and -28 dB (direct sound: -3 dB)."""
    energy = np.cumsum(response[::-1].astype(np.float64) ** 2)[::-1]
    level_db = 10 * np.log10(energy / energy[0] + 1e-30)
    part = (level_db < -8) & (level_db > -28)
    slope = np.polyfit(np.flatnonzero(part) / SAMPLE_RATE, level_db[part], 1)[0]
    return float(-60 / slope)


@quick
@given(seeds, st.floats(0.1, 2.0))
def test_the_decay_of_a_room_is_the_drawn_one(seed: int, rt60_s: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.tensor([rt60_s, rt60_s / 2])
    responses = impulse_responses(drawn, rt60_s, generator)
    for response, expected in zip(responses.numpy(), drawn.tolist(), strict=True):
        assert decay_time_s(response) == pytest.approx(expected, rel=0.15)
    torch.testing.assert_close(responses.square().sum(dim=1), torch.ones(2))
    assert (responses[:, 0] == responses.abs().amax(dim=1)).all()  # the direct sound comes first, and loudest
    torch.testing.assert_close(responses[:, 0] ** 2, torch.full((2,), 0.5))


def test_a_room_answers_after_the_sound_and_keeps_its_time_and_level() -> None:
    click = torch.zeros(4, WINDOW_SAMPLES)
    click[:, 16_000] = 0.5
    augmented = epoch(4, reverb_rt60_s=0.5)
    wet = augmented.waveforms(click, 0)
    assert wet[:, :16_000].abs().max() < 1e-6
    assert (wet.abs().argmax(dim=1) == 16_000).all()
    assert [decay_time_s(one) for one in wet[:, 16_000:].numpy()] == pytest.approx(
        augmented.drawn.rt60_s.tolist(), rel=0.2
    )
    loud = speech(4)
    assert (power_db(epoch(4, reverb_rt60_s=0.5).waveforms(loud, 0)) - power_db(loud)).abs().max() < 1.5


@pytest.mark.parametrize("rt60_s", [0.0, 1e-7, 2.0])
def test_a_room_of_any_size_gives_finite_samples(rt60_s: float) -> None:
    response = impulse_responses(torch.tensor([rt60_s]), max(rt60_s, 1e-3), torch.Generator().manual_seed(0))
    assert response.isfinite().all()


def test_the_noise_goes_from_white_to_pink() -> None:
    exponent = torch.tensor([0.0, 0.5, 1.0]).repeat_interleave(20)
    spectrum = torch.fft.rfft(coloured_noise(exponent, 48_000, torch.Generator().manual_seed(0))).abs() ** 2
    # an octave higher: 3 dB less for pink noise, for each of its frequencies
    low, high = spectrum[:, 1000:2000].mean(dim=1), spectrum[:, 8000:16_000].mean(dim=1)
    slope = (torch.log2(low / high) / 3).view(3, 20).mean(dim=1)
    torch.testing.assert_close(slope, torch.tensor([0.0, 0.5, 1.0]), atol=0.02, rtol=0)


def test_silence_stays_silent_and_finite() -> None:
    silence = torch.zeros(8, WINDOW_SAMPLES)
    assert torch.equal(epoch(**ALL).waveforms(silence, 0), silence)


@quick
@given(seeds, st.integers(0, 60), st.integers(0, 200), st.integers(1, 8), st.floats(0, 1))
def test_masks_stay_within_their_bounds(seed: int, rows: int, frames: int, masks: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(32, 40, 301, generator=generator)
    features = features - features.mean(dim=-1, keepdim=True)  # as CMVN leaves them
    augmented = epoch(32, seed, freq_mask=rows, time_mask=frames, masks=masks, share=share)
    masked = augmented.features(features, 0)
    changed = masked != features
    assert masked[changed].abs().max() < 1e-6 if changed.any() else torch.equal(masked, features)
    full_rows, full_frames = changed.all(dim=2).sum(dim=1), changed.all(dim=1).sum(dim=1)
    assert (full_rows <= min(20, rows * masks)).all()
    assert (full_frames <= min(150, frames * masks)).all()
    # nothing else was changed
    assert (changed == (changed.all(dim=2)[:, :, None] | changed.all(dim=1)[:, None, :])).all()
    assert torch.equal(full_rows, covered(augmented.drawn.rows))
    assert torch.equal(full_frames, covered(augmented.drawn.frames))
    if rows and share:
        assert augmented.means["freq_masked"] == pytest.approx(float(full_rows.double().mean()) / 40)
    if frames and share:
        assert augmented.means["time_masked"] == pytest.approx(float(full_frames.double().mean()) / 301)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), min_size=1, max_size=6))
def test_covered_counts_each_position_once(spans: list[tuple[int, int]]) -> None:
    ends = torch.tensor([[[first, first + width] for first, width in spans]])
    positions = {k for first, width in spans for k in range(first, first + width)}
    assert covered(ends).tolist() == [len(positions)]


def test_without_cmvn_a_mask_is_the_mean_of_its_row() -> None:
    features = build_front_end(LogMel(cmvn=False))(speech(4))
    augmented = EpochAugmentation(Augmentation(80, 301, time_mask=100), 4, 3, CPU)
    masked = augmented.features(features, 0)
    changed = masked != features
    assert changed.any()
    means = features.mean(dim=-1, keepdim=True).expand_as(features)
    assert torch.equal(masked[changed], means[changed])


def test_one_row_and_one_frame_are_never_masked_away() -> None:
    waveform = torch.randn(4, 1, 48_000)
    augmented = EpochAugmentation(Augmentation(1, 48_000, freq_mask=8, time_mask=4000), 4, 0, CPU)
    masked = augmented.features(waveform, 0)
    assert 0 < int((masked != waveform).sum()) <= 4 * 4000
    embedding = torch.randn(4, 192, 1)
    augmented = EpochAugmentation(Augmentation(192, 1, freq_mask=8, time_mask=40), 4, 0, CPU)
    assert 0 < int((augmented.features(embedding, 0) != embedding).sum()) <= 4 * 8


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    clean, features = speech(), torch.randn(8, 40, 301)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, again, other = epoch(seed=5, **ALL), epoch(seed=5, **ALL), epoch(seed=6, **ALL)
    first = one.waveforms(clean, 0)
    torch.manual_seed(99)  # the global generator has no say
    assert torch.equal(again.waveforms(clean, 0), first)
    assert torch.equal(again.features(features, 0), one.features(features, 0))
    assert one.means == again.means
    changed = other.waveforms(clean, 0)
    assert all(not torch.equal(a, b) for a, b in zip(changed, first, strict=True))
    torch.manual_seed(0)
    epoch(seed=5, **ALL).waveforms(clean, 0)
    assert torch.equal(torch.get_rng_state(), before)  # nor is it asked: dropout draws what it always drew


def test_what_one_kind_draws_does_not_hang_on_the_others() -> None:
    everything, generator = Augmentation(**SHAPE, **ALL), torch.Generator  # type: ignore[arg-type]
    drawn = everything.draw(50, generator().manual_seed(1))
    alone = Augmentation(**SHAPE, noise_snr_db=0.0, masks=2).draw(50, generator().manual_seed(1))
    assert torch.equal(drawn.snr_db, alone.snr_db)
    alone = Augmentation(**SHAPE, time_mask=40, masks=2).draw(50, generator().manual_seed(1))
    assert torch.equal(drawn.frames, alone.frames)
    assert not alone.rows.diff(dim=-1).any()


def test_windows_meet_their_own_draws_wherever_a_batch_begins() -> None:
    features = torch.randn(64, 40, 301)
    augmented = epoch(64, freq_mask=8, time_mask=40, gain_db=6.0)
    whole = augmented.features(features, 0)
    parts = [augmented.features(features[k : k + 16], k) for k in range(0, 64, 16)]
    assert torch.equal(torch.cat(parts), whole)
    waves = speech(64, samples=4800)
    parts = [augmented.waveforms(waves[k : k + 16], k) for k in range(0, 64, 16)]
    torch.testing.assert_close(torch.cat(parts), augmented.waveforms(waves, 0))


def test_each_kind_meets_its_share_of_the_windows_by_itself() -> None:
    means = epoch(20_000, 3, share=0.25, **ALL).means
    for kind in ("noise_share", "gain_share", "reverb_share"):
        assert means[kind] == pytest.approx(0.25, abs=0.02)
    drawn = epoch(20_000, 3, share=0.25, **ALL).drawn
    both = drawn.snr_db.isfinite() & (drawn.rt60_s > 0)
    assert float(both.double().mean()) == pytest.approx(0.0625, abs=0.01)
    assert means["snr_db"] == pytest.approx(SNR_SPAN_DB / 2, abs=0.3)
    assert means["noise_exponent"] == pytest.approx(0.5, abs=0.03)
    assert means["gain_db"] == pytest.approx(6, abs=0.3)
    assert means["rt60_s"] == pytest.approx(0.3, abs=0.02)


def test_what_is_off_is_not_told_and_nothing_is_touched() -> None:
    off = epoch()
    waves, features = speech(2), torch.randn(2, 40, 301)
    assert off.means == {}
    assert off.waveforms(waves, 0) is waves
    assert off.features(features, 0) is features
    assert epoch(share=0.0, noise_snr_db=5.0).means == {"noise_share": 0.0}  # and no mean of nothing


def test_draws_keep_their_columns_together() -> None:
    drawn = Augmentation(**SHAPE, **ALL).draw(10, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    part = drawn.at(3, 4)
    assert isinstance(part, Draws)
    assert torch.equal(part.frames, drawn.frames[3:7])
    assert torch.equal(part.snr_db, drawn.snr_db[3:7])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_the_same_is_drawn_and_nothing_waits() -> None:
    device, clean = torch.device("cuda"), speech()
    ranges = Augmentation(**SHAPE, **ALL)  # type: ignore[arg-type]
    there, here = EpochAugmentation(ranges, 8, 5, device), epoch(seed=5, **ALL)
    assert there.means == here.means
    batch, features = clean.to(device), torch.randn(8, 40, 301, device=device)
    there.features(there.waveforms(batch, 0)[:, None, :301].expand(8, 40, 301), 0)  # plans are made
    torch.cuda.set_sync_debug_mode("error")
    try:
        there.waveforms(batch, 0)
        masked = there.features(features, 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(masked.cpu(), here.features(features.cpu(), 0))
