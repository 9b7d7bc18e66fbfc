"""The data section of a sweep: typed, strict, and light to import (no numpy)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from data.corpora import CORPORA
from data.digests import digest_of
from data.errors import FieldError, unknown
from data.labels import LABEL_RULES
from data.parts import SPLITS, Parts, Split
from data.plugins import load_plugins
from data.tasks import TASKS

__all__ = ["SPLITS", "DataConfig", "Parts", "Split"]

# Above this many the clustered interval hardly narrows, and every epoch pays for it.
MAX_EVALUATION_WINDOWS = 2_000


def _known(field: str, value: str, options: Iterable[str], what: str = "") -> str:
    """Return the value of `field` where it is one of `options`; `what` is what the error calls it, else as the field.

    Raises
    ------
    FieldError
        It is none of them: the message names the nearest.
    """
    names = list(options)
    if value not in names:
        raise FieldError(unknown(what or field, value, names), field)
    return value


class DataConfig(BaseModel):
    """What a trial trains and is judged on; equal configurations prepare equal manifests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: str = Field(
        "demo",
        description="Where recordings come from: demo (generated), librispeech or ami (folders), "
        "librispeech_hub or ami_hub (the hub, or its parquet files in a folder).",
    )
    subset: str = Field(
        "clean",
        description="The subset that training windows come from: clean, other, ami. One that the corpus "
        "lacks is looked for in its companions (ami beside librispeech or demo).",
    )
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
    variant: str = Field(
        "", description="Variant of the task; pseudo has seen and unseen. Empty is the task's first."
    )
    labels: str = Field("rank", description="Rule that deals classes to speakers.")
    speakers: int | None = Field(
        None,
        ge=2,
        description="Train on at most this many speakers, sex-balanced; null means all. Variant seen evaluates "
        "the same ones; where splits share no speaker, evaluation takes everybody.",
    )
    train_windows: int = Field(10_000, ge=2, description="Training windows at most, half of each class.")
    val_windows: int = Field(1_000, ge=2, description="Validation windows at most (2000 at the highest).")
    test_windows: int = Field(1_000, ge=2, description="Test windows at most (2000 at the highest).")
    seed: int = Field(
        0, ge=0, description="Seed of the draw of training windows; validation and test do not depend on it."
    )
    voice_variants: int = Field(
        0,
        ge=0,
        le=8,
        description="Variants of each training utterance, its pitch and tempo changed, beside it.",
    )
    pitch_semitones: float = Field(
        2.0, ge=0, le=6, description="Largest pitch shift of a voice variant, up or down."
    )
    stretch: float = Field(
        0.1, ge=0, le=0.3, description="Largest change of a voice variant's tempo: .1 is 0.9 to 1.1 times."
    )
    partition: Literal["full-corpus-asr", "lists"] = Field(
        "full-corpus-asr",
        description="Which meetings of AMI are train, dev and test: the official partition Full-corpus-ASR, or "
        "the folder's own lists.",
    )
    revision: str | None = Field(
        None, description="Revision of a hub's dataset instead of the pinned one: a commit of its repository."
    )
    max_download_gb: float | None = Field(
        None, gt=0, description="Refuse to download more than this from a hub; null asks nothing."
    )
    max_lost_share: float = Field(
        0.05, ge=0, le=1, description="Share of recordings that may be unusable before preparation stops."
    )

    @model_validator(mode="before")
    @classmethod
    def _first_variant(cls, value: Any) -> Any:
        load_plugins()
        if isinstance(value, dict) and not value.get("variant"):
            task = TASKS.get(value.get("task", cls.model_fields["task"].default))
            value = {**value, "variant": task.variants[0] if task else ""}
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
        return _known("labels", value, LABEL_RULES, "label rule")

    @field_validator("val_windows", "test_windows")
    @classmethod
    def _few_enough(cls, value: int) -> int:
        if value > MAX_EVALUATION_WINDOWS:
            raise ValueError(f"{value} windows are more than {MAX_EVALUATION_WINDOWS}; give that or fewer")
        return value

    @model_validator(mode="after")
    def _names_agree(self) -> DataConfig:
        _known("variant", self.variant, TASKS[self.task].variants, f"variant of task {self.task}")
        subsets = {s for corpus in self._searched() for s in CORPORA[corpus].subsets} | self.parts.keys()
        for name in (self.subset, *self.evaluate_on):
            _known("subset", name, subsets, f"subset of corpus {self.corpus}")
        if self.voice_variants and not (self.pitch_semitones or self.stretch):
            raise FieldError(
                f"voice_variants is {self.voice_variants}, but pitch_semitones and stretch are 0: "
                "a variant would be a copy; set one of them",
                "voice_variants",
                "pitch_semitones",
                "stretch",
            )
        if len(set(self.evaluate_on)) < len(self.evaluate_on):
            message = f"evaluate_on names a subset twice: {list(self.evaluate_on)}; name it once"
            raise FieldError(message, "evaluate_on")
        return self

    @property
    def question(self) -> str:
        """What a model of this data answers: the task, and its variant where it has several."""
        return self.task if len(TASKS[self.task].variants) == 1 else f"{self.task}/{self.variant}"

    @property
    def evaluated(self) -> tuple[str, ...]:
        """Subsets that validation and test windows come from, sorted."""
        return tuple(sorted(self.evaluate_on or (self.subset,)))

    def _searched(self) -> list[str]:
        """Corpora that a subset is looked for in, in order."""
        return [name for name in (self.corpus, *CORPORA[self.corpus].companions) if name in CORPORA]

    def corpus_of(self, subset: str) -> str:
        """Return the corpus that holds ``subset``: this one, else the first companion with it (this one for none)."""
        holders = [name for name in self._searched() if subset in CORPORA[name].subsets]
        return holders[0] if holders else self.corpus

    def parts_of(self, subset: str) -> Parts:
        """Return the parts of ``subset``, those given here before the corpus's own."""
        return self.parts[subset] if subset in self.parts else CORPORA[self.corpus_of(subset)].subsets[subset]

    def digest(self) -> str:
        """Sha256 of every field: equal digests mean equal windows, as long as the corpus is the same."""
        return digest_of(self.model_dump(mode="json"))
