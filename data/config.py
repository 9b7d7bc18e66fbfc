"""The data section of a sweep: typed, strict, and light to import (no numpy)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from data.corpora import CORPORA
from data.digests import digest_of
from data.errors import unknown
from data.labels import LABEL_RULES
from data.parts import SPLITS, Parts, Split
from data.plugins import load_plugins
from data.tasks import TASKS

__all__ = ["SPLITS", "DataConfig", "Parts", "Split"]

# Above this many the clustered interval hardly narrows, and every epoch pays for it.
MAX_EVALUATION_WINDOWS = 2_000


def _known(what: str, value: str, options: Iterable[str]) -> str:
    names = list(options)
    if value not in names:
        raise ValueError(unknown(what, value, names))
    return value


class DataConfig(BaseModel):
    """What a trial trains and is judged on; equal configurations prepare equal manifests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: str = Field("demo", description="Where recordings come from: demo (generated) or librispeech.")
    subset: str = Field("clean", description="The subset of the corpus that training windows come from.")
    evaluate_on: tuple[str, ...] = Field(
        (),
        description="Subsets whose windows are pooled, in equal numbers, for validation and test; "
        "empty means the training subset. Arms compared with each other must share it.",
    )
    parts: dict[str, Parts] = Field(
        default_factory=dict,
        description="Parts (folders) of a subset for train, val and test, instead of the corpus's own; "
        "a list alone means the same parts for all three.",
    )
    task: str = Field("pseudo", description="The rule that turns segments into labelled windows.")
    variant: str = Field("seen", description="Variant of the task; pseudo has seen and unseen.")
    labels: str = Field("rank", description="Rule that deals classes to speakers.")
    speakers: int | None = Field(
        None, ge=2, description="Use at most this many speakers, sex-balanced; null means all."
    )
    train_windows: int = Field(10_000, ge=2, description="Training windows at most, half of each class.")
    val_windows: int = Field(1_000, ge=2, description="Validation windows at most (2000 at the highest).")
    test_windows: int = Field(1_000, ge=2, description="Test windows at most (2000 at the highest).")
    seed: int = Field(
        0, ge=0, description="Seed of the draw of training windows; validation and test do not depend on it."
    )
    max_lost_share: float = Field(
        0.05, ge=0, le=1, description="Share of recordings that may be unusable before preparation stops."
    )

    @model_validator(mode="before")
    @classmethod
    def _plugins_first(cls, value: Any) -> Any:
        load_plugins()
        return value

    @field_validator("corpus")
    @classmethod
    def _corpus_is_known(cls, value: str) -> str:
        return _known("corpus", value, CORPORA)

    @field_validator("task")
    @classmethod
    def _task_is_known(cls, value: str) -> str:
        return _known("task", value, TASKS)

    @field_validator("labels")
    @classmethod
    def _labels_are_known(cls, value: str) -> str:
        return _known("label rule", value, LABEL_RULES)

    @field_validator("val_windows", "test_windows")
    @classmethod
    def _few_enough(cls, value: int) -> int:
        if value > MAX_EVALUATION_WINDOWS:
            raise ValueError(f"{value} windows are more than {MAX_EVALUATION_WINDOWS}; give that or fewer")
        return value

    @model_validator(mode="after")
    def _names_agree(self) -> DataConfig:
        _known(f"variant of task {self.task}", self.variant, TASKS[self.task].variants)
        subsets = {**CORPORA[self.corpus].subsets, **self.parts}
        for name in (self.subset, *self.evaluate_on):
            _known(f"subset of corpus {self.corpus}", name, subsets)
        if len(set(self.evaluate_on)) < len(self.evaluate_on):
            raise ValueError(f"evaluate_on names a subset twice: {list(self.evaluate_on)}; name it once")
        return self

    @property
    def evaluated(self) -> tuple[str, ...]:
        """Subsets that validation and test windows come from, sorted."""
        return tuple(sorted(self.evaluate_on or (self.subset,)))

    def parts_of(self, subset: str) -> Parts:
        """Return the parts of ``subset``, those given here before the corpus's own."""
        return self.parts[subset] if subset in self.parts else CORPORA[self.corpus].subsets[subset]

    def digest(self) -> str:
        """Sha256 of every field."""
        return digest_of(self.model_dump(mode="json"))
