"""The CNN as a value: width, dropout and kernel, without importing torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from models.errors import FieldError

BLOCK_CHANNELS = (64, 128, 256, 256, 512)  # at width 1
CHANNEL_STEP = 8  # vector units like channels in eights
POOLING = 2 ** len(BLOCK_CHANNELS)  # all blocks together: 32 frames become one

Encoder = Literal["pooling", "pooling-free", "single"]


def encoder_for(num_frames: int | None) -> Encoder:
    """Choose the encoder that so many frames can pass; None is any number that five poolings can halve.

    ::

        32 frames or more   pooling        five blocks, each followed by pooling by two
        2 to 31             pooling-free   the same blocks, every frame is kept
        1                   single         LayerNorm and one linear layer: there is no time to convolve
    """
    if num_frames is None or num_frames >= POOLING:
        return "pooling"
    return "pooling-free" if num_frames > 1 else "single"


class CnnConfig(BaseModel):
    """Parameters of ``FastDiarizationModel``; width 1 is the notebooks' network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: float = Field(1.0, ge=0.0625, le=4, description="Multiplies every channel count (1 = 64 ... 512).")
    dropout: float = Field(0.3, ge=0, lt=1, description="Dropout in the head.")
    kernel_size: int = Field(3, ge=1, le=15, description="Kernel of the residual blocks, in frames; odd.")

    @field_validator("kernel_size")
    @classmethod
    def _is_odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise FieldError(
                f"kernel_size {value} has no middle tap: give an odd one, {value - 1} or {value + 1}",
                "kernel_size",
            )
        return value

    def channels(self) -> tuple[int, ...]:
        """Give the blocks' output channels, scaled, in multiples of 8 and at least 8."""
        return tuple(
            max(CHANNEL_STEP, CHANNEL_STEP * round(channels * self.width / CHANNEL_STEP))
            for channels in BLOCK_CHANNELS
        )

    @property
    def hidden(self) -> int:
        """Units of the head's hidden layer: half the encoder's output (256 at width 1)."""
        return self.channels()[-1] // 2

    def block_channels(self, num_features: int) -> list[tuple[int, int]]:
        """Pair every block's input with its output channels: (num_features, 64), (64, 128) ... at width 1."""
        outputs = self.channels()
        return list(zip((num_features, *outputs[:-1]), outputs, strict=True))

    def num_parameters(self, num_features: int, num_classes: int = 2, num_frames: int | None = None) -> int:
        """Count the trained parameters (2,264,706 for one row, 2,284,930 for 80 at width 1).

        Law: the network that is built has as many. ``num_frames`` decides the encoder; None is the one that pools.
        """
        embedding = self.channels()[-1]
        head = (embedding + 1) * self.hidden + (self.hidden + 1) * num_classes
        if encoder_for(num_frames) == "single":
            return 2 * num_features + (num_features + 1) * embedding + head
        total = 0
        for inputs, outputs in self.block_channels(num_features):
            batch_norm = 2 * outputs
            total += outputs * (inputs + outputs) * self.kernel_size + 2 * batch_norm
            total += (inputs * outputs + batch_norm) if inputs != outputs else 0
        return total + head

    def macs(self, num_features: int, num_frames: int, num_classes: int = 2) -> int:
        """Count the multiply-accumulates of one window (12.8 G for 1 x 48000, 85 M for 80 x 301).

        Convolutions and linear layers only: BatchNorm, ReLU, pooling and means are small beside them.
        """
        encoder, head = encoder_for(num_frames), self.channels()[-1] * self.hidden + self.hidden * num_classes
        if encoder == "single":
            return num_features * self.channels()[-1] + head
        total, frames = 0, num_frames
        for inputs, outputs in self.block_channels(num_features):
            shortcut = inputs * outputs if inputs != outputs else 0
            total += (outputs * (inputs + outputs) * self.kernel_size + shortcut) * frames
            frames //= 2 if encoder == "pooling" else 1
        return total + head
