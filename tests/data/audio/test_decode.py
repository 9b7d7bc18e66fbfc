import unicodedata

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data.audio.decode import load_audio, read_audio, read_header, to_int16
from data.errors import AudioError

RATE = 16_000


def tone(seconds=1.0, rate=RATE, hz=440.0):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@given(arrays(np.int16, st.integers(0, 50)))
def test_int16_survives_the_way_through_float(samples):
    assert np.array_equal(to_int16(samples.astype(np.float32) / 32_768), samples)


def test_to_int16_rounds_and_clips():
    # 0.6 / 32768 rounds to 1, not to 0; what is beyond full scale stays at full scale.
    given = np.array([0.6 / 32_768, -0.6 / 32_768, 1.0, -1.5, 3.0], dtype=np.float32)
    assert to_int16(given).tolist() == [1, -1, 32_767, -32_768, 32_767]


def test_stereo_is_averaged(tmp_path):
    left, right = tone(hz=300), tone(hz=500)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    assert np.allclose(read_audio(tmp_path / "a.wav"), (left + right) / 2, atol=1e-6)


def test_float_wav_is_not_read_as_zeros(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), RATE, subtype="FLOAT")
    assert np.array_equal(read_audio(tmp_path / "a.wav"), tone())


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled_to_the_length_the_header_promised(tmp_path, rate):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1.2345, rate), rate, subtype="FLOAT")
    samples = read_audio(path)
    assert samples.dtype == np.float32
    assert len(samples) == read_header(path).num_samples == int(1.2345 * rate) * RATE // rate
    middle = slice(2_000, 16_000)  # away from the edges, where a resampler rings
    assert np.abs(samples[middle] - tone(1.2345)[middle]).max() < 1e-3


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_beyond_ascii_are_read(tmp_path, form):
    path = tmp_path / unicodedata.normalize(form, "Żółć-ü.flac")
    soundfile.write(path, tone(), RATE)
    assert len(read_audio(path)) == RATE


def test_wav_and_flac_of_the_same_samples_have_one_digest(tmp_path):
    samples = to_int16(tone())
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    soundfile.write(tmp_path / "a.flac", samples, RATE)
    soundfile.write(tmp_path / "b.flac", samples[::-1], RATE)
    digests = [load_audio(tmp_path / name).sha256 for name in ("a.wav", "a.flac", "b.flac")]
    assert digests[0] == digests[1] != digests[2]


def write_nothing(path):
    path.write_bytes(b"")


def write_header_only(path):
    soundfile.write(path, np.zeros(0, dtype=np.int16), RATE)


def write_garbage(path):
    path.write_bytes(b"this is no audio at all" * 50)


def write_silence(path):
    soundfile.write(path, np.zeros(RATE, dtype=np.int16), RATE)


def write_opposite_channels(path):
    soundfile.write(path, np.stack([tone(), -tone()], axis=1), RATE)


def write_nan(path):
    samples = tone()
    samples[100] = np.nan
    soundfile.write(path, samples, RATE, subtype="FLOAT")


def write_integers_as_float(path):
    soundfile.write(path, 32_768 * tone(), RATE, subtype="FLOAT")


def write_low_rate(path):
    soundfile.write(path, tone(), 100)


def write_claiming_flac(path):
    """STREAMINFO's 36-bit count of samples, at byte 21 of the file, says 2^36 - 1."""
    soundfile.write(path, tone(), RATE, format="FLAC")
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)


def write_cut_flac(path):
    noise = np.random.default_rng(0).normal(0, 0.1, 4 * RATE)
    soundfile.write(path, noise, RATE, format="FLAC")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (write_nothing, "empty"),
        (write_header_only, "empty"),
        (write_garbage, "unreadable"),
        (write_silence, "silent"),
        (write_opposite_channels, "silent"),
        (write_nan, "not finite"),
        (write_integers_as_float, "out of range"),
        (write_low_rate, "sample rate 100 Hz"),
        (write_claiming_flac, "claims 68719476735 samples"),
        (write_cut_flac, "unreadable|truncated"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_used_has_a_reason(tmp_path, write, reason):
    path = tmp_path / "a.wav"
    write(path)
    with pytest.raises(AudioError, match=reason) as caught:
        read_audio(path)
    assert str(path) not in str(caught.value)  # the path stands beside the reason


def test_a_missing_file_is_unreadable(tmp_path):
    with pytest.raises(AudioError, match="unreadable"):
        read_audio(tmp_path / "none.wav")


def test_a_wav_that_claims_more_than_it_holds_is_not_believed(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), RATE)
    content = bytearray(path.read_bytes())
    content[40:44] = (0x7FFFFFF0).to_bytes(4, "little")  # size of the data chunk
    path.write_bytes(content)
    # libsndfile goes by the file's size: what is read is what is there.
    assert len(read_audio(path)) == RATE
