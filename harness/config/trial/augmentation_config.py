"""What a training does to its windows: the torch-free part that sweep files, schemas and fingerprints read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from models.augmentation import Augmentation


class AugmentationConfig(BaseModel):
    """Augmentation of training windows, all of it off by default; scored windows are never touched."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    augment_share: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of the training windows that each kind of augmentation meets, by itself.",
    )
    noise_snr_db: float | None = Field(
        default=None,
        ge=-20,
        le=60,
        description="Adds white to pink noise at an SNR between this and 15 dB more; null for none.",
    )
    gain_db: float = Field(
        default=0.0,
        ge=0,
        le=24,
        description="Changes the level by up to this much, up or down; 0 for none. "
        "cmvn and normalize take it out again.",
    )
    reverb_rt60_s: float = Field(
        default=0.0,
        ge=0,
        le=2,
        description="Reverberates with generated rooms of an RT60 up to this, in seconds; 0 for none.",
    )
    freq_mask: int = Field(
        default=0,
        ge=0,
        le=256,
        description="SpecAugment: masks up to this many neighbouring rows of the features; 0 for none.",
    )
    time_mask: int = Field(
        default=0,
        ge=0,
        le=48_000,
        description="SpecAugment: masks up to this many neighbouring frames (samples, for waveform); "
        "0 for none.",
    )
    masks: int = Field(
        default=1,
        ge=1,
        le=8,
        description="SpecAugment: masks of each kind in a window; together they cover half of it at most.",
    )

    def build(self, num_features: int, num_frames: int) -> Augmentation | None:
        """Make what the training draws from, for features (num_features, num_frames); None where everything is off.

        `num_features` and `num_frames` bound the masks. It imports torch.
        """
        from models.augmentation import Augmentation

        ranges = self.model_dump()
        built = Augmentation(num_features, num_frames, share=ranges.pop("augment_share"), **ranges)
        return built if built.on_waveforms or built.on_features else None
