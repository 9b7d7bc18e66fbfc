"""Laws of the front ends as values: registry, digests, refusals."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, Literal

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from models.front_ends.config import (
    FRONT_ENDS,
    AnyFrontEnd,
    LogMel,
    Mfcc,
    MfccDelta,
    XVector,
    parse_front_end,
)
from models.front_ends.mel_scale import empty_filters, filter_edges, most_filters
from models.networks.config import CnnConfig

# What has no default: which file.
REQUIRED = {"xvector": {"path": "speaker.onnx", "sha256": 64 * "0"}}


def test_config_modules_load_no_torch_and_no_numpy() -> None:
    code = (
        "import sys, models.front_ends.config, models.networks.config, models.export.specification;"
        "print(sorted({'torch', 'numpy', 'onnx', 'onnxruntime', 'torchaudio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", list(FRONT_ENDS))
def test_registry_key_is_the_kind_and_the_value_survives_json(kind: str) -> None:
    given = REQUIRED.get(kind, {})
    front_end = FRONT_ENDS[kind](**given)
    assert front_end.kind == kind
    again = TypeAdapter(AnyFrontEnd).validate_json(front_end.model_dump_json())
    assert again == front_end
    assert again.digest() == front_end.digest()
    assert parse_front_end({"kind": kind, **given}) == front_end


class Doubled(LogMel):
    kind: Literal["doubled"] = "doubled"  # type: ignore[assignment]
    times: int = 2


def test_what_is_registered_later_is_a_front_end_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = TypeAdapter[Any](AnyFrontEnd)
    with pytest.raises(
        ValidationError, match=r"'doubled' .* 'waveform', 'mfcc', 'mfcc_delta', 'log_mel', 'xvector'"
    ):
        adapter.validate_python({"kind": "doubled"})
    monkeypatch.setitem(FRONT_ENDS, "doubled", Doubled)
    assert parse_front_end({"kind": "doubled", "n_mels": 40}) == Doubled(n_mels=40)
    stored = adapter.dump_json(Doubled(times=3))
    assert adapter.validate_json(stored) == Doubled(times=3)
    with pytest.raises(ValidationError) as told:
        adapter.validate_python({"kind": "doubled", "times": "x"})
    assert [detail["loc"] for detail in told.value.errors()] == [("doubled", "times")]
    with pytest.raises(ValueError, match="did you mean 'doubled'"):
        parse_front_end({"kind": "double"})


@pytest.mark.parametrize("kind", list(FRONT_ENDS))
def test_every_parameter_is_described(kind: str) -> None:
    fields = FRONT_ENDS[kind].model_fields.items()
    assert all(field.description for name, field in fields if name != "kind")


def test_digests_tell_every_front_end_and_parameter_apart() -> None:
    values = [front_end(**REQUIRED.get(kind, {})) for kind, front_end in FRONT_ENDS.items()]
    values += [Mfcc(n_mfcc=39), Mfcc(cmvn=False), Mfcc(hop_length=128), Mfcc(f_min=20), Mfcc(top_db=None)]
    x = REQUIRED["xvector"]
    values += [
        XVector(**{**x, **other})
        for other in ({"sha256": 64 * "a"}, {"recipe": "3dspeaker"}, {"windows": "whole"})
    ]
    assert len({value.digest() for value in values}) == len(values)
    assert XVector(**{**x, "path": "elsewhere/same.onnx"}).digest() == XVector(**x).digest()


def test_numbers_the_front_ends_tell_about_themselves() -> None:
    # 48000 samples / 160 a hop = 300 hops, and frames stand at both ends: 301.
    assert (Mfcc().num_features, Mfcc().num_frames()) == (40, 301)
    assert (MfccDelta().num_features, MfccDelta().num_frames()) == (80, 301)
    assert (LogMel().num_features, LogMel().num_frames()) == (80, 301)
    assert LogMel().frame_shift_s == 0.01
    assert FRONT_ENDS["waveform"]().num_frames() == 48_000
    # 3 s hold 1.5 s windows at 0, .25, ... 1.5 s: 7 of them.
    sliding, whole = (
        XVector(**REQUIRED["xvector"], windows=windows, dim=192) for windows in ("sliding", "whole")
    )
    assert (sliding.num_features, sliding.num_frames(), sliding.frame_shift_s) == (192, 7, 0.25)
    assert (whole.num_features, whole.num_frames(), whole.frame_shift_s) == (192, 1, 3.0)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kind": "mfc"}, "'mfc'; did you mean 'mfcc'"),
        ({}, "unknown front end None"),
        ({"kind": "mfcc", "win_length": 600}, "win_length 600 is longer than n_fft 512"),
        ({"kind": "mfcc", "hop_length": 500}, "hop_length 500 is longer than win_length 400"),
        ({"kind": "mfcc", "n_mfcc": 81}, "n_mfcc 81 is more than n_mels 80"),
        ({"kind": "log_mel", "f_min": 5000, "f_max": 4000}, "f_min 5000 Hz is not below f_max 4000 Hz"),
        ({"kind": "log_mel", "n_mels": 256}, "n_mels 256 leaves mel bands without any FFT bin"),
        (
            {"kind": "mfcc_delta", "delta_width": 8},
            "delta_width 8 has no middle frame: give an odd one, 7 or 9",
        ),
        ({"kind": "mfcc", "n_mfc": 20}, "n_mfc"),
    ],
)
def test_bad_parameters_are_refused_with_the_law_and_the_value(
    parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        parse_front_end(parameters)


def test_values_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Mfcc().n_mfcc = 20  # type: ignore[misc]


@pytest.mark.parametrize(("value", "near"), [(4, "3 or 5"), (2, "1 or 3")])
def test_even_kernels_are_refused(value: int, near: str) -> None:
    with pytest.raises(ValidationError, match=near):
        CnnConfig(kernel_size=value)


@given(n_mels=st.integers(8, 200), f_min=st.floats(0, 3000), span=st.floats(500, 5000))
@settings(max_examples=40, deadline=None)
def test_mel_edges_are_librosas(n_mels: int, f_min: float, span: float) -> None:
    expected = librosa.mel_frequencies(n_mels=n_mels + 2, fmin=f_min, fmax=f_min + span)
    np.testing.assert_allclose(filter_edges(n_mels, f_min, f_min + span), expected, rtol=1e-9, atol=1e-9)


@given(n_mels=st.integers(8, 250), n_fft=st.sampled_from([128, 256, 400, 512]))
@settings(max_examples=40, deadline=None)
@pytest.mark.filterwarnings("ignore:Empty filters detected:UserWarning")
def test_empty_filters_are_librosas_zero_rows(n_mels: int, n_fft: int) -> None:
    filters = librosa.filters.mel(sr=16_000, n_fft=n_fft, n_mels=n_mels)
    assert empty_filters(n_mels, n_fft, 0, 8000, 16_000) == np.flatnonzero(~filters.any(axis=1)).tolist()
    assert not empty_filters(most_filters(n_mels, n_fft, 0, 8000, 16_000), n_fft, 0, 8000, 16_000)
