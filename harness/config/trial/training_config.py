"""How a model is trained: the torch-free part that sweep files, schemas and fingerprints read."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MIN_BATCH_SIZE = 2  # of one window nothing is normalised
# In what the trainings of a stack may differ, beside their seeds.
PER_MEMBER_FIELDS = frozenset({"learning_rate", "weight_decay"})


class TrainingConfig(BaseModel):
    """Hyper-parameters of one training; the seed and the device are not among them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(
        default=30,
        ge=1,
        le=10_000,
        description="Passes over the training windows; the learning rate's schedule spans all of them.",
    )
    batch_size: int = Field(
        default=32,
        ge=MIN_BATCH_SIZE,
        le=65_536,
        description="Windows a step. A last batch that is not full is left out of its epoch.",
    )
    learning_rate: float = Field(
        default=1e-3, gt=0, le=1, description="AdamW's rate at the top of the schedule, after the warm-up."
    )
    weight_decay: float = Field(default=1e-2, ge=0, le=1, description="AdamW's decoupled weight decay.")
    warmup_share: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of all steps in which the rate climbs linearly; then it falls as a cosine.",
    )
    ema_decay: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Decay of the moving average of the weights, a step (0.99 remembers about 100 steps); it "
        "warms up as (1 + step) / (10 + step). The averaged weights are scored and exported; null: none are.",
    )
    precision: Literal["auto", "fp32"] = Field(
        default="auto",
        description="auto: bf16 where the device computes in it, else fp16 on CUDA, fp32 on CPU. "
        "Scores are always taken in fp32.",
    )
    checkpoint_every: int | None = Field(
        default=None,
        ge=1,
        description="Epochs between checkpoints; null: after every epoch, as far as they take at most a fiftieth of "
        "the training. One is also written every five minutes, and none after the last epoch. It changes no number.",
    )
    train_score_windows: int = Field(
        default=512,
        ge=2,
        description="Training windows, half of each class, re-scored in evaluation mode every epoch for "
        "the train metrics and the gap; all of them where there are fewer.",
    )
