"""Laws of utterance variants: pitch, length, one drawing for all machines, one decoding for all loads."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from data.audio import decode
from data.audio.decode import load_audio
from data.audio.voice_variants import Variant, load_variant, variants_for, vary
from data.errors import AudioError, DataError

SAMPLE_RATE = 16_000
F0 = 140.0  # Hz
RANGES = {"pitch_semitones": 2.0, "stretch": 0.1}


def vowel(duration_s: float = 1.5) -> np.ndarray:
    """An /a/: harmonics of 140 Hz under two formants."""
    t = np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE
    wave = np.zeros_like(t)
    for k in range(1, 30):
        near = sum(1 / (1 + ((k * F0 - formant) / 120) ** 2) for formant in (700, 1100))
        wave += (near + 0.02) * np.sin(2 * np.pi * k * F0 * t + k)
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


def pitch(samples: np.ndarray) -> float:
    """The fundamental between 70 and 300 Hz whose harmonics hold most, in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 18))
    candidates = np.arange(70, 300, 0.1)
    bins = np.rint(np.outer(np.arange(1, 8), candidates) * (1 << 18) / SAMPLE_RATE).astype(int)
    # The logarithm asks all harmonics to be there: an octave below, every second one is missing.
    return float(candidates[np.log(spectrum[bins] + 1e-3 * spectrum.max()).sum(axis=0).argmax()])


def semitones(one: float, other: float) -> float:
    return float(12 * np.log2(one / other))


@pytest.mark.parametrize("rate", [1.0, 0.9, 1.2])
@pytest.mark.parametrize("raised", [-4.0, -1.5, 0.0, 2.0, 5.0])
def test_the_pitch_moves_by_the_semitones_and_the_length_by_the_rate(raised: float, rate: float) -> None:
    samples = vowel()
    varied = vary(samples, Variant(raised, rate))
    assert varied.dtype == np.float32
    assert len(varied) == round(len(samples) / rate)
    assert semitones(pitch(varied), pitch(samples)) == pytest.approx(raised, abs=0.1)
    assert np.square(varied).mean() == pytest.approx(np.square(samples).mean(), rel=1e-3)
    assert np.square(varied[-1600:]).mean() > 0.1 * np.square(varied).mean()  # it sounds to its end


@given(st.integers(1, 9000), st.floats(-12, 12), st.floats(0.5, 2))
@settings(max_examples=40, deadline=None)
def test_the_length_is_exact_for_every_length(length: int, raised: float, rate: float) -> None:
    variant = Variant(raised, rate)
    varied = vary(np.ones(length, np.float32), variant)
    assert len(varied) == round(length / rate) == variant.num_samples(length)
    assert np.isfinite(varied).all()


def test_an_event_stays_where_its_time_says() -> None:
    samples = np.zeros(2 * SAMPLE_RATE, np.float32)
    samples[SAMPLE_RATE : SAMPLE_RATE + 3200] = vowel(0.2)
    for variant in (Variant(3.0, 1.0), Variant(0.0, 0.8), Variant(-3.0, 1.25)):
        power = np.square(vary(samples, variant))
        centre_s = (power * np.arange(len(power))).sum() / power.sum() / SAMPLE_RATE
        assert centre_s == pytest.approx(1.1 / variant.rate, abs=0.02)


def grid(semitones: float, stretch: float) -> set[tuple[float, float]]:
    shares = [step / 4 for step in range(-4, 5)]  # numpy rounds otherwise than Python
    return {(round(semitones * a, 1) + 0.0, round(1 + stretch * b, 2)) for a in shares for b in shares}


@given(st.text(max_size=20), st.integers(0, 80), st.floats(0.1, 12), st.floats(0.01, 0.5))
def test_variants_are_different_in_range_and_never_the_utterance_itself(
    key: str, count: int, semitones: float, stretch: float
) -> None:
    most = len(grid(semitones, stretch)) - 1
    if count > most:
        with pytest.raises(DataError, match=f"gives {most}: ask for that many"):
            variants_for(key, count, semitones, stretch)
        return
    found = variants_for(key, count, semitones, stretch)
    assert len(set(found)) == len({variant.name for variant in found}) == count
    assert Variant(0.0, 1.0) not in found
    assert all(abs(variant.pitch_semitones) <= semitones + 0.05 + 1e-9 for variant in found)
    assert all(abs(variant.rate - 1) <= stretch + 0.005 + 1e-9 for variant in found)
    assert variants_for(key, count, semitones, stretch) == found
    assert variants_for(key, count // 2, semitones, stretch) == found[: count // 2]


def test_recordings_draw_their_own_variants_evenly() -> None:
    drawn = [variant for k in range(500) for variant in variants_for(f"part/{k}", 2, **RANGES)]
    assert len(set(drawn)) == 9 * 9 - 1
    assert abs(np.mean([variant.pitch_semitones for variant in drawn])) < 0.15
    assert np.mean([variant.rate for variant in drawn]) == pytest.approx(1, abs=0.01)
    assert {abs(variant.pitch_semitones) for variant in drawn} == {0.0, 0.5, 1.0, 1.5, 2.0}


def test_variants_are_the_same_in_every_process() -> None:
    program = "from data.audio.voice_variants import variants_for; print([v.name for v in variants_for('a/b', 3, 2.0, 0.1)])"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == str([variant.name for variant in variants_for("a/b", 3, 2.0, 0.1)])
    assert Variant(2.0, 0.9).name == "p+2.0r0.90"


def test_importing_the_module_is_light() -> None:
    program = "import sys, data.audio.voice_variants; print({'numpy', 'librosa', 'soxr', 'torch'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Variant(13.0, 1.0), "pitch_semitones 13 is outside -12..12"),
        (lambda: Variant(float("nan"), 1.0), "pitch_semitones nan"),
        (lambda: Variant(0.0, 2.5), "rate 2.5 is outside 0.5..2"),
        (lambda: variants_for("a", 1, 0.0, 0.0), "1 voice variants are wanted.*gives 0"),
        (lambda: variants_for("a", 9, 2.0, 0.0), "gives 8: ask for that many, or widen"),
        (lambda: variants_for("a", 1, 2.0, 1.0), "rate 0 is outside"),
    ],
)
def test_what_cannot_be_is_refused_with_its_value(make, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()


def test_a_variant_is_made_once_and_decodes_nothing_afterwards(tmp_path, monkeypatch) -> None:
    path, variant = tmp_path / "a.flac", Variant(2.0, 0.9)
    soundfile.write(path, vowel(), SAMPLE_RATE)
    first = load_variant(path, variant, tmp_path / "store")
    expected = vary(load_audio(path).samples, variant)
    assert np.abs(first.samples - expected).max() <= 0.5 / 32_768 + 1e-9
    assert first.samples.dtype == np.float32
    assert first.sha256 == load_audio(path).sha256  # whose voice it is

    def refuse(*given: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(decode, "load_audio", refuse)
    again = load_variant(path, variant, tmp_path / "store")
    assert again.sha256 == first.sha256
    np.testing.assert_array_equal(again.samples, first.samples)
    moved = path.rename(tmp_path / "b.flac")  # the store knows contents, not names
    np.testing.assert_array_equal(load_variant(moved, variant, tmp_path / "store").samples, first.samples)
    with pytest.raises(AssertionError, match="decoded again"):
        load_variant(moved, Variant(1.0, 0.9), tmp_path / "store")


def test_other_audio_under_the_same_name_is_another_variant(tmp_path) -> None:
    path, variant = tmp_path / "a.wav", Variant(0.0, 1.1)
    soundfile.write(path, vowel(), SAMPLE_RATE)
    one = load_variant(path, variant, tmp_path / "store")
    soundfile.write(path, vowel(1.0), SAMPLE_RATE)
    other = load_variant(path, variant, tmp_path / "store")
    assert (len(one.samples), len(other.samples)) == (round(24_000 / 1.1), round(16_000 / 1.1))
    assert one.sha256 != other.sha256


def test_unusable_audio_is_told_and_leaves_nothing(tmp_path) -> None:
    silent, broken = tmp_path / "silent.wav", tmp_path / "broken.flac"
    soundfile.write(silent, np.zeros(16_000, np.float32), SAMPLE_RATE)
    broken.write_bytes(b"fLaC and then nothing")
    for path, message in ((silent, "silent"), (broken, "unreadable"), (tmp_path / "none.flac", "unreadable")):
        with pytest.raises(AudioError, match=message):
            load_variant(path, Variant(1.0, 1.0), tmp_path / "store")
    assert not list((tmp_path / "store").rglob("*.npy"))
