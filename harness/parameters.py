"""The parameters a sweep may search, and the four ways to write one.

    epochs: 10                                        a fixed value
    feature: [mfcc, log_mel]                          a choice (also `{choice: [...]}`)
    batch_size: {int: [16, 64], step: 16}             an integer range, both ends included
    learning_rate: {float: [1e-4, 1e-2], log: true}   a float range

Each may carry `when: {feature: mfcc}`: it then exists only in trials where that holds.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from data.config import DataConfig
from harness.training_config import TrainingConfig
from models.architecture import CnnConfig
from models.front_ends import FRONT_ENDS

Scalar = bool | int | float | str


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    when: dict[str, Scalar | list[Scalar]] = Field(
        default_factory=dict, description="Other parameters and the value (or values) they must have."
    )


class Fixed(_Form):
    """One value for every trial."""

    value: Scalar

    def candidates(self) -> list[Scalar]:
        """The values that validation has to look at."""
        return [self.value]


class Choice(_Form):
    """One of the listed values."""

    choice: list[Scalar] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Choice:
        seen: list[tuple[type, Scalar]] = []
        for value in self.choice:
            if (type(value), value) in seen:
                raise ValueError(f"{value!r} stands twice among the choices")
            seen.append((type(value), value))
        return self

    def candidates(self) -> list[Scalar]:
        """The values that validation has to look at."""
        return list(self.choice)


class IntRange(_Form):
    """An integer between two bounds, both included."""

    bounds: tuple[int, int] = Field(alias="int")
    step: int = Field(default=1, ge=1)
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> IntRange:
        low, high = self.bounds
        if low > high:
            raise ValueError(f"the lower bound {low} is above the upper bound {high}")
        if self.log and (low < 1 or self.step != 1):
            raise ValueError(
                f"log: true needs a lower bound >= 1 and no step; got {low} and step {self.step}"
            )
        return self

    def candidates(self) -> list[Scalar]:
        """The values that validation has to look at."""
        return list(self.bounds)


class FloatRange(_Form):
    """A number between two bounds, both included."""

    bounds: tuple[float, float] = Field(alias="float")
    step: float | None = Field(default=None, gt=0)
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> FloatRange:
        low, high = self.bounds
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"the bounds must be finite; got [{low}, {high}]")
        if low > high:
            raise ValueError(f"the lower bound {low} is above the upper bound {high}")
        if self.log and (low <= 0 or self.step is not None):
            raise ValueError(f"log: true needs a lower bound > 0 and no step; got {low} and step {self.step}")
        return self

    def candidates(self) -> list[Scalar]:
        """The values that validation has to look at."""
        return list(self.bounds)


FORMS = ("value", "choice", "int", "float")


def _long_form(raw: Any) -> Any:
    """A bare value is fixed, a bare list is a choice."""
    if isinstance(raw, list):
        return {"choice": raw}
    if isinstance(raw, bool | int | float | str):
        return {"value": raw}
    return raw


def _form(raw: Any) -> str | None:
    if isinstance(raw, _Form):
        return {Fixed: "value", Choice: "choice", IntRange: "int", FloatRange: "float"}[type(raw)]
    named = [form for form in FORMS if isinstance(raw, dict) and form in raw]
    return named[0] if len(named) == 1 else None


Parameter = Annotated[
    Annotated[Fixed, Tag("value")]
    | Annotated[Choice, Tag("choice")]
    | Annotated[IntRange, Tag("int")]
    | Annotated[FloatRange, Tag("float")],
    Discriminator(
        _form,
        custom_error_type="parameter_form",
        custom_error_message="write a value, a list of choices, or exactly one of "
        "value:, choice:, int: [low, high], float: [low, high]",
    ),
    BeforeValidator(_long_form),
]

Section = Literal["data", "feature", "model", "training"]

# What may be searched in the data section: never what decides what a number means (task, split, sizes
# of the evaluation sets), because trials of one study must stay comparable.
SEARCHABLE_DATA = ("subset", "train_windows")


class Place(BaseModel):
    """Where a parameter lives in a `TrialConfig`."""

    model_config = ConfigDict(frozen=True)

    section: Section
    field: str
    front_end: str | None = None

    def check(self, value: Scalar) -> None:
        """Raise pydantic's ValidationError where the field refuses the value."""
        if self.front_end is not None:
            FRONT_ENDS[self.front_end](**{self.field: value})
        elif self.section == "data":
            DataConfig(**{self.field: value})
        elif self.section == "model":
            CnnConfig(**{self.field: value})
        elif self.section == "training":
            TrainingConfig(**{self.field: value})
        elif value not in FRONT_ENDS:
            raise ValueError(f"no front end is called {value!r}")

    @property
    def description(self) -> str:
        """The field's own description, for the schema and the errors."""
        if self.section == "feature" and self.front_end is None:
            return "Front end: waveform -> features."
        sections: dict[str, type[BaseModel]] = {
            "data": DataConfig,
            "model": CnnConfig,
            "training": TrainingConfig,
        }
        model: type[BaseModel] = (
            sections[self.section] if self.front_end is None else FRONT_ENDS[self.front_end]
        )
        return model.model_fields[self.field].description or ""


def places() -> dict[str, Place]:
    """Every searchable parameter's name and place, in the order in which they are sampled."""
    found = {name: Place(section="data", field=name) for name in SEARCHABLE_DATA}
    found["feature"] = Place(section="feature", field="kind")
    for kind in FRONT_ENDS:
        for field in FRONT_ENDS[kind].model_fields:
            if field != "kind":
                found[f"{kind}.{field}"] = Place(section="feature", field=field, front_end=kind)
    found |= {name: Place(section="model", field=name) for name in CnnConfig.model_fields}
    found |= {name: Place(section="training", field=name) for name in TrainingConfig.model_fields}
    return found
