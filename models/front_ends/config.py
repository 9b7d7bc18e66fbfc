"""Front ends as values: what turns a 3 s waveform into features, without importing torch.

A front end describes itself (``num_features``, ``frame_shift_s``, ``num_frames``) and names the torch
module that computes it (``extractor``), which ``models.front_ends.build`` imports. ``FRONT_ENDS`` is the
one registry, which plug-ins add to; sweep files, the command line, the ONNX metadata and the tests all read it.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    TypeAdapter,
    field_validator,
    model_validator,
)

from models.errors import FieldError
from models.front_ends.mel_scale import empty_filters, most_filters
from models.window import EMBEDDING_SAMPLES, EMBEDDING_SHIFT, SAMPLE_RATE, WINDOW_SAMPLES

IMPLEMENTATION = 1  # raise it when the same parameters give other features: stored features are keyed by it


class FrontEnd(BaseModel, ABC):
    """What every front end tells about itself; parameters are fields of the subclasses.

    A front end maps (sample,) at 16 kHz to (num_features, num_frames). It looks at one window alone: never at its
    batch, its neighbours or the corpus.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str

    extractor: ClassVar[str]  # module:class of a FeatureExtractor that is made of this configuration
    external: ClassVar[bool] = False  # whether it needs a file that is no part of this repository
    elsewhere: ClassVar[frozenset[str]] = frozenset()  # fields that say where data lies, not what it is

    @property
    def external_data(self) -> str | None:
        """Name the content of the file it needs, `xvector 0a1b2c3d4e5f`, as runs are tagged; None for none."""
        return None

    @property
    @abstractmethod
    def num_features(self) -> int:
        """Rows of the feature matrix (feature, frame): the input channels of the CNN."""

    @property
    @abstractmethod
    def frame_shift_s(self) -> float:
        """Time from one column of the feature matrix to the next, in seconds."""

    @abstractmethod
    def num_frames(self, num_samples: int = WINDOW_SAMPLES) -> int:
        """Count the columns that ``num_samples`` at 16 kHz give; by default those of a 3 s window."""

    def digest(self) -> str:
        """Give the sha256 (hex) of all that decides the features' values: stored features are keyed by it.

        Where a file lies (``elsewhere``) is left out; raising ``IMPLEMENTATION`` makes every digest another.
        """
        content = {
            "front_end": self.model_dump(mode="json", exclude=set(self.elsewhere)),
            "implementation": IMPLEMENTATION,
            "sample_rate": SAMPLE_RATE,
            "window_samples": WINDOW_SAMPLES,
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class Waveform(FrontEnd):
    """The raw samples as one row, (1, sample): the network finds its own filters.

    A row of 48,000 columns costs the CNN some 150 times the arithmetic of 80 mel bands.
    """

    extractor: ClassVar[str] = "models.front_ends.features:WaveformFeatures"
    kind: Literal["waveform"] = "waveform"
    normalize: bool = Field(True, description="Bring every window to mean 0 and root mean square 1.")

    @property
    def num_features(self) -> int:
        """1: the waveform is one row, and the CNN has one input channel."""
        return 1

    @property
    def frame_shift_s(self) -> float:
        """Time between samples, 62.5 us: every sample is a frame."""
        return 1 / SAMPLE_RATE

    def num_frames(self, num_samples: int = WINDOW_SAMPLES) -> int:
        """As many frames as samples: 48,000 in 3 s."""
        return num_samples


class SpectralFrontEnd(FrontEnd):
    """Parameters shared by the front ends that start from a mel spectrogram in decibels."""

    n_mels: int = Field(80, ge=8, le=256, description="Mel bands (Slaney scale and norm).")
    n_fft: int = Field(512, ge=64, le=2048, multiple_of=2, description="FFT length in samples.")
    win_length: int = Field(
        400, ge=32, le=2048, description="Hann window in samples at 16 kHz (400 = 25 ms)."
    )
    hop_length: int = Field(
        160, ge=40, le=1024, description="Frame shift in samples at 16 kHz (160 = 10 ms)."
    )
    f_min: float = Field(0.0, ge=0, lt=SAMPLE_RATE / 2, description="Lower edge of the first mel band, Hz.")
    f_max: float | None = Field(
        None, gt=0, le=SAMPLE_RATE / 2, description="Upper edge of the last mel band, Hz; null is 8000."
    )
    top_db: float | None = Field(
        80.0, gt=0, le=200, description="Floor this far (dB) below the window's own peak; null for none."
    )
    cmvn: bool = Field(True, description="Bring every row of every window to mean 0 and variance 1.")

    @property
    def num_features(self) -> int:
        """Rows of the mel spectrogram: one a band."""
        return self.n_mels

    @property
    def frame_shift_s(self) -> float:
        """Time between the centres of neighbouring frames: ``hop_length`` at 16 kHz (0.01 s by default)."""
        return self.hop_length / SAMPLE_RATE

    @property
    def f_max_hz(self) -> float:
        """Upper edge of the last mel band in Hz; 8000, half the sample rate, where ``f_max`` is None."""
        return SAMPLE_RATE / 2 if self.f_max is None else self.f_max

    def num_frames(self, num_samples: int = WINDOW_SAMPLES) -> int:
        """Frames are centred at every hop: one more than there are whole hops (301 for 3 s at 10 ms)."""
        return 1 + num_samples // self.hop_length

    @model_validator(mode="after")
    def _frames_fit(self) -> Self:
        if self.win_length > self.n_fft:
            raise FieldError(
                f"win_length {self.win_length} is longer than n_fft {self.n_fft}: "
                f"give win_length <= {self.n_fft}, or n_fft >= {self.win_length}",
                "win_length",
                "n_fft",
            )
        if self.hop_length > self.win_length:
            raise FieldError(
                f"hop_length {self.hop_length} is longer than win_length {self.win_length}, so samples "
                f"between frames would be lost: give hop_length <= {self.win_length}",
                "hop_length",
                "win_length",
            )
        return self

    @model_validator(mode="after")
    def _bands_fit(self) -> Self:
        if self.f_min >= self.f_max_hz:
            message = f"f_min {self.f_min:g} Hz is not below f_max {self.f_max_hz:g} Hz"
            raise FieldError(message, "f_min", "f_max")
        if empty_filters(self.n_mels, self.n_fft, self.f_min, self.f_max_hz, SAMPLE_RATE):
            most = most_filters(self.n_mels, self.n_fft, self.f_min, self.f_max_hz, SAMPLE_RATE)
            raise FieldError(
                f"n_mels {self.n_mels} leaves mel bands without any FFT bin between {self.f_min:g} and "
                f"{self.f_max_hz:g} Hz at n_fft {self.n_fft}: give n_mels <= {most}, or a longer n_fft",
                "n_mels",
                "n_fft",
            )
        return self


class LogMel(SpectralFrontEnd):
    """Mel spectrogram in decibels, (n_mels, frame): rows are neighbouring bands, from low to high."""

    extractor: ClassVar[str] = "models.front_ends.features:LogMelFeatures"
    kind: Literal["log_mel"] = "log_mel"


class CepstralFrontEnd(SpectralFrontEnd):
    """Mel spectrogram in decibels, then an orthonormal DCT-II over the bands."""

    n_mfcc: int = Field(40, ge=4, le=256, description="Cepstral coefficients kept, from the 0th.")

    @model_validator(mode="after")
    def _coefficients_fit(self) -> Self:
        if self.n_mfcc > self.n_mels:
            raise FieldError(
                f"n_mfcc {self.n_mfcc} is more than n_mels {self.n_mels}: a DCT of {self.n_mels} bands has "
                f"{self.n_mels} coefficients; give n_mfcc <= {self.n_mels}",
                "n_mfcc",
                "n_mels",
            )
        return self


class Mfcc(CepstralFrontEnd):
    """Mel-frequency cepstral coefficients, (n_mfcc, frame): the shape of the spectrum, its rows nearly uncorrelated."""

    extractor: ClassVar[str] = "models.front_ends.features:MfccFeatures"
    kind: Literal["mfcc"] = "mfcc"

    @property
    def num_features(self) -> int:
        """Rows: the lowest ``n_mfcc`` of the DCT's coefficients, the 0th (the level) among them."""
        return self.n_mfcc


class MfccDelta(CepstralFrontEnd):
    """MFCC above their slopes over time, (2 n_mfcc, frame): what a single frame says, and how it is changing."""

    extractor: ClassVar[str] = "models.front_ends.features:MfccDeltaFeatures"
    kind: Literal["mfcc_delta"] = "mfcc_delta"
    delta_width: int = Field(9, ge=3, le=31, description="Frames the slope is fitted over; odd.")

    @property
    def num_features(self) -> int:
        """Rows: ``n_mfcc`` coefficients, then as many slopes."""
        return 2 * self.n_mfcc

    @model_validator(mode="after")
    def _width_is_odd(self) -> Self:
        if self.delta_width % 2 == 0:
            raise FieldError(
                f"delta_width {self.delta_width} has no middle frame: give an odd one, "
                f"{self.delta_width - 1} or {self.delta_width + 1}",
                "delta_width",
            )
        return self


class XVector(FrontEnd):
    """Embeddings of a speaker-embedding network in an ONNX file, (dim, 7) sliding or (dim, 1) whole.

    ::

        whole    |------------- 3.0 s -------------|   one embedding
        sliding  |--- 1.5 s ---|                       7 of them, 0.25 s apart
                   |--- 1.5 s ---|  ...
    """

    extractor: ClassVar[str] = "models.front_ends.embeddings:EmbeddingFeatures"
    external: ClassVar[bool] = True
    elsewhere: ClassVar[frozenset[str]] = frozenset({"path"})

    kind: Literal["xvector"] = "xvector"
    path: str = Field(
        min_length=1,
        description="ONNX file of the embedding network; a relative path begins at the working directory.",
    )
    sha256: str = Field(description="sha256 of that file, 64 hex digits; another file is refused.")
    recipe: Literal["wespeaker", "3dspeaker"] = Field(
        "wespeaker",
        description="How its filter bank is made: wespeaker (hamming, x32768) or 3dspeaker (povey).",
    )
    windows: Literal["sliding", "whole"] = Field(
        "sliding", description="Embeddings of 1.5 s every 0.25 s, or one of the whole window."
    )
    dim: int = Field(256, ge=1, le=8192, description="Length of an embedding; checked against the network.")

    @field_validator("sha256")
    @classmethod
    def _is_a_digest(cls, value: str) -> str:
        if len(value) != 64 or not set(value) <= set("0123456789abcdef"):
            message = f"sha256 {value!r} is not 64 hex digits in small letters: see `sha256sum FILE`"
            raise FieldError(message, "sha256")
        return value

    @property
    def external_data(self) -> str | None:
        """`xvector` and the first 12 digits of the file's sha256, whatever its path."""
        return f"xvector {self.sha256[:12]}"

    @property
    def num_features(self) -> int:
        """Rows: the elements of an embedding, ``dim`` of them."""
        return self.dim

    @property
    def frame_shift_s(self) -> float:
        """Time from one embedding to the next, 0.25 s sliding; of a whole window's only one its length, 3 s."""
        return (EMBEDDING_SHIFT if self.windows == "sliding" else WINDOW_SAMPLES) / SAMPLE_RATE

    def num_frames(self, num_samples: int = WINDOW_SAMPLES) -> int:
        """Count the embeddings: ``1 + (num_samples - 24000) // 4000`` sliding ones (7 in 3 s), or 1 of the whole."""
        if self.windows == "whole":
            return 1
        return max(0, 1 + (num_samples - EMBEDDING_SAMPLES) // EMBEDDING_SHIFT)


FRONT_ENDS: dict[str, type[FrontEnd]] = {
    "waveform": Waveform,
    "mfcc": Mfcc,
    "mfcc_delta": MfccDelta,
    "log_mel": LogMel,
    "xvector": XVector,
}


def _validated(value: Any) -> FrontEnd:
    """Make the front end that ``kind`` names of what is registered by now."""
    return _adapter(tuple(FRONT_ENDS.values())).validate_python(value)


@cache
def _adapter(kinds: tuple[type[FrontEnd], ...]) -> TypeAdapter[FrontEnd]:
    union: Any = Annotated[reduce(or_, kinds), Field(discriminator="kind")]
    return TypeAdapter(union)


# The field of a model that holds any registered front end.
AnyFrontEnd = Annotated[SerializeAsAny[FrontEnd], BeforeValidator(_validated)]


def parse_front_end(value: Mapping[str, Any]) -> FrontEnd:
    """Make a front end of ``{"kind": ..., parameter: value}``.

    Raises
    ------
    ValueError
        For an unknown ``kind`` (names the nearest) and for parameters that break a law.
    """
    kind = value.get("kind")
    if kind not in FRONT_ENDS:
        near = get_close_matches(str(kind), FRONT_ENDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown front end {kind!r}{hint} Known: {', '.join(FRONT_ENDS)}")
    return _validated(dict(value))
