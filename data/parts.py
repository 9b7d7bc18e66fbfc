"""Which folders of a corpus the three splits of a subset come from."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


class Parts(BaseModel):
    """Corpus parts (folder names) of each split; a plain list means the same parts for all three."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: tuple[str, ...] = Field(description="Parts that training windows come from.")
    val: tuple[str, ...] = Field(description="Parts that validation windows come from.")
    test: tuple[str, ...] = Field(description="Parts that test windows come from.")

    @model_validator(mode="before")
    @classmethod
    def _same_for_all(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, (list, tuple)):
            return dict.fromkeys(SPLITS, tuple(value))
        return value

    @field_validator("train", "val", "test")
    @classmethod
    def _folder_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("a split needs at least one part; name a folder of the corpus, e.g. test-other")
        for name in value:
            if not name or name in {".", ".."} or "/" in name or "\\" in name:
                raise ValueError(f"{name!r} is not the name of a part; give a folder name such as test-other")
        if len(set(value)) < len(value):
            raise ValueError(f"a part is named twice in {list(value)}; name it once")
        return value

    def of(self, split: Split) -> tuple[str, ...]:
        """Return the parts that windows of ``split`` come from, one or more."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]

    def roles(self, part: str) -> tuple[Split, ...]:
        """Return the splits that name ``part``, in the order train, val, test."""
        return tuple(split for split in SPLITS if part in self.of(split))
