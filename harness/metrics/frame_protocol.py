"""The protocol under which frames of meetings are scored: stated with every result, as a value with a digest."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data.audio.format import SAMPLE_RATE, WINDOW_S
from data.digests import digest_of
from harness.core.errors import InputError

FRAME_S = 0.01  # seconds a frame


class ProtocolError(InputError):
    """A protocol that cannot be followed; the message says why."""


def check_step(step_s: float, frame_s: float = FRAME_S) -> None:
    """Refuse windows that would begin between two frames: the step must be a multiple of the frame.

    Raises
    ------
    ProtocolError
        It is none; the message names the nearest one.
    """
    steps = step_s / frame_s
    if abs(steps - round(steps)) > 1e-6:
        raise ProtocolError(
            f"a step of {step_s:g} s is no multiple of a frame of {frame_s:g} s: "
            f"give {max(1, round(steps)) * frame_s:g}"
        )


class Protocol(BaseModel):
    """Everything a frame-level number depends on but the model; numbers compare under one digest only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    implementation: Literal[1] = Field(1, description="Raised when one protocol would give other numbers.")
    task: str = Field(description="Task of the model, which picks the reference rule.")
    rule: str = Field(description="When a frame is positive.")
    corpus: str = Field("ami", description="Corpus of the meetings.")
    part: str = Field(description="Part of the corpus: train, dev or test.")
    partition: str = Field(description="Which lists deal the meetings to parts.")
    meetings: tuple[str, ...] = Field(description="Every meeting that is scored.")
    reference: str = Field(description="sha256 of their reference segments and scored regions.")
    regions: Literal["uem"] = Field("uem", description="What is scored: the whole UEM of each meeting.")
    window_s: float = Field(WINDOW_S, description="Length of a window.")
    step_s: float = Field(0.25, gt=0, le=WINDOW_S, description="From one window to the next.")
    frame_s: float = Field(FRAME_S, gt=0, description="Length of a frame.")
    aggregation: Literal["hamming"] = Field("hamming", description="Weights of the windows over a frame.")
    threshold: float = Field(0.5, description="A frame above it is positive; fixed, never tuned here.")
    min_duration_on_s: float = Field(0.0, ge=0, description="Shorter positive regions are dropped.")
    min_duration_off_s: float = Field(0.0, ge=0, description="Shorter gaps between them are filled, first.")
    collar_s: float = Field(
        0.0,
        ge=0,
        description="pyannote.metrics' collar: so much, half before and half after, is not "
        "scored around each boundary of the reference's positive regions.",
    )
    skip_overlap: Literal[False] = Field(False, description="Overlapped speech is scored like the rest.")

    @model_validator(mode="after")
    def _steps_are_frames(self) -> Self:
        check_step(self.step_s, self.frame_s)
        return self

    @property
    def frame_samples(self) -> int:
        """Samples of a frame at 16 kHz, rounded: 160 of 10 ms."""
        return round(self.frame_s * SAMPLE_RATE)

    @property
    def step_frames(self) -> int:
        """Frames from one window to the next."""
        return round(self.step_s / self.frame_s)

    def digest(self) -> str:
        """Sha256 of every field, as canonical JSON: numbers compare under an equal one only. It seeds `bootstrap`."""
        return digest_of(self.model_dump(mode="json"))

    def __str__(self) -> str:
        return (
            f"protocol {self.digest()[:8]}: {self.task} on {self.corpus} {self.part} ({self.partition}, "
            f"{len(self.meetings)} meetings), windows every {self.step_s:g} s, Hamming mean in frames of "
            f"{1000 * self.frame_s:g} ms, threshold {self.threshold:g}, collar {self.collar_s:g} s, "
            f"regions {self.regions}, shortest on/off {self.min_duration_on_s:g}/{self.min_duration_off_s:g} s"
        )
