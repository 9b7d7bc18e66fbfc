"""The parameters a sweep may search, and the four ways to write one.

    epochs: 10                                        a fixed value
    feature: [mfcc, log_mel]                          a choice (also `{choice: [...]}`)
    batch_size: {int: [16, 64], step: 16}             an integer range, both ends included
    learning_rate: {float: [1e-4, 1e-2], log: true}   a float range

Each may carry `when: {feature: mfcc}`: it then exists only in trials where that holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    StrictBool,
    StrictFloat,
    StrictInt,
    Tag,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from data.config import DataConfig
from data.plugins import load_plugins
from harness.config.trial.augmentation_config import AugmentationConfig
from harness.config.trial.training_config import TrainingConfig
from models.front_ends.config import FRONT_ENDS
from models.networks.config import CnnConfig

Scalar = bool | int | float | str | None
MOST_STEPS = 1_000_000  # of a float range; beyond about 1e15 they would be no floats


def _scalar(raw: Any) -> Scalar:
    if isinstance(raw, float) and not math.isfinite(raw):
        raise ValueError(f"must be finite; got {raw}")
    if raw is None or isinstance(raw, bool | int | float | str):
        return raw
    raise ValueError(f"must be one number or word; got {raw!r}")


def _wanted(raw: Any) -> Scalar | list[Scalar]:
    if not isinstance(raw, list):
        return _scalar(raw)
    if not raw:
        raise ValueError("an empty list is never true; name the values, or leave the condition out")
    return [_scalar(value) for value in raw]


def _pair(raw: Any) -> Any:
    """Bounds as they were written; a number is a number, never a quoted one."""
    if isinstance(raw, list | tuple) and len(raw) == 2:
        return tuple(raw)
    raise ValueError(f"must be [low, high]; got {raw!r}")


_SCALAR_SCHEMA = {"type": ["string", "number", "boolean", "null"]}
_WANTED_SCHEMA = {"anyOf": [_SCALAR_SCHEMA, {"type": "array", "items": _SCALAR_SCHEMA, "minItems": 1}]}
# One validator instead of pydantic's union, which names one mistake once for every type it tried.
_AnyScalar = Annotated[Scalar, PlainValidator(_scalar), WithJsonSchema(_SCALAR_SCHEMA)]
AnyScalar = _AnyScalar  # of a sweep's `baseline:`
_Wanted = Annotated[Scalar | list[Scalar], PlainValidator(_wanted), WithJsonSchema(_WANTED_SCHEMA)]


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    when: dict[str, _Wanted] = Field(
        default_factory=dict, description="Other parameters and the value (or values) they must have."
    )


class Fixed(_Form):
    """One value for every trial."""

    value: _AnyScalar

    @property
    def size(self) -> int:
        """1: a fixed value has no alternatives, and nothing is searched."""
        return 1

    def candidates(self) -> list[Any]:
        """The one value: what validation tries by itself."""
        return [self.value]

    def grid(self) -> Sequence[Scalar]:
        """The one value: what the grid sampler walks."""
        return [self.value]


class Choice(_Form):
    """One of the listed values."""

    choice: list[_AnyScalar] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Choice:
        seen: set[tuple[bool, Scalar]] = set()
        for value in self.choice:
            # 1 and 1.0 are one value in every field; true is none of them.
            if (isinstance(value, bool), value) in seen:
                raise ValueError(f"{value!r} stands twice among the choices")
            seen.add((isinstance(value, bool), value))
        return self

    @property
    def size(self) -> int:
        """The number of choices, which are distinct."""
        return len(self.choice)

    def candidates(self) -> list[Any]:
        """Every choice: each may break a law of its own, so validation tries them all."""
        return list(self.choice)

    def grid(self) -> Sequence[Scalar]:
        """Every choice, in the file's order."""
        return list(self.choice)


class IntRange(_Form):
    """An integer between two bounds, both included."""

    bounds: Annotated[tuple[StrictInt, StrictInt], BeforeValidator(_pair)] = Field(alias="int")
    step: StrictInt = Field(default=1, ge=1)
    log: StrictBool = False

    @model_validator(mode="after")
    def _ordered(self) -> IntRange:
        low, high = self.bounds
        if low > high:
            raise ValueError(f"the lower bound {low} is above the upper bound {high}")
        if self.log and low < 1:
            raise ValueError(f"log: true needs a lower bound of 1 or more; got {low}")
        if self.log and self.step != 1:
            raise ValueError(f"log: true has no steps; got step {self.step}: leave one of the two out")
        if last := (high - low) % self.step:
            raise ValueError(
                f"steps of {self.step} from {low} do not meet the upper bound {high}: write {high - last}"
            )
        return self

    @property
    def size(self) -> int:
        """The number of integers that are steps from the lower bound, both bounds counted."""
        return (self.bounds[1] - self.bounds[0]) // self.step + 1

    def candidates(self) -> list[Any]:
        """The two bounds (one where they are equal): a value beyond a field's limits shows there."""
        return list(dict.fromkeys(self.bounds))

    def grid(self) -> Sequence[int]:
        """Every integer of the range, ascending."""
        return range(self.bounds[0], self.bounds[1] + 1, self.step)


class FloatRange(_Form):
    """A number between two bounds, both included."""

    bounds: Annotated[tuple[StrictFloat, StrictFloat], BeforeValidator(_pair)] = Field(alias="float")
    step: StrictFloat | None = Field(default=None, gt=0, allow_inf_nan=False)
    log: StrictBool = False

    @model_validator(mode="after")
    def _ordered(self) -> FloatRange:
        low, high = self.bounds
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"the bounds must be finite; got [{low}, {high}]")
        if low > high:
            raise ValueError(f"the lower bound {low} is above the upper bound {high}")
        if self.log and low <= 0:
            raise ValueError(f"log: true needs a lower bound above 0; got {low}")
        if self.log and self.step is not None:
            raise ValueError(f"log: true has no steps; got step {self.step}: leave one of the two out")
        if self.step is not None:
            _meets(Decimal(str(low)), Decimal(str(high)), Decimal(str(self.step)))
        return self

    @property
    def size(self) -> int | None:
        """The number of steps, both bounds counted; None for a continuum (no `step`), 1 where the bounds are equal."""
        low, high = self.bounds
        if low == high:
            return 1
        return None if self.step is None else round((high - low) / self.step) + 1

    def candidates(self) -> list[Any]:
        """The two bounds (one where they are equal): a value beyond a field's limits shows there."""
        return list(dict.fromkeys(self.bounds))

    def grid(self) -> Sequence[float]:
        """Every step, ascending; of a continuum there is none, and asking for it is a programming error."""
        assert self.size is not None
        return [self.on_grid(self.bounds[0] + index * (self.step or 0.0)) for index in range(self.size)]

    def on_grid(self, value: float) -> float:
        """The step nearest to `value`, at most the upper bound; of a continuum the value itself.

        Samplers and the grid reach a step by different sums of floats. Put on it by one arithmetic, an equal value has
        equal bits, and a trial an equal fingerprint.
        """
        if self.step is None:
            return value
        low, high = self.bounds
        return min(high, low + round((value - low) / self.step) * self.step)


def _meets(low: Decimal, high: Decimal, step: Decimal) -> None:
    """Both ends are included: a step that jumps over the upper one is refused (in decimals, as written)."""
    steps = (high - low) / step
    if steps > MOST_STEPS:
        raise ValueError(f"steps of {step} make {steps:.3g} values: take larger ones, or leave step out")
    if steps != int(steps):
        last = low + int(steps) * step
        raise ValueError(f"steps of {step} from {low} do not meet the upper bound {high}: write {last}")


FORMS = ("value", "choice", "int", "float")


def _long_form(raw: Any) -> Any:
    """A bare value is fixed, a bare list is a choice."""
    if isinstance(raw, list):
        return {"choice": raw}
    return raw if isinstance(raw, dict | _Form) else {"value": raw}


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

Section = Literal["data", "feature", "model", "training", "augmentation"]

# What may be searched in the data section: never what decides what a number means (task, split, sizes
# of the evaluation sets), because trials of one study must stay comparable.
SEARCHABLE_DATA = ("subset", "train_windows", "voice_variants", "pitch_semitones", "stretch")


class ParameterLocation(BaseModel):
    """Where a parameter lives in a `TrialConfig`: its section, its field, and the front end that has the field.

    `front_end` is None for whatever is no front end's; `mfcc.n_mels` is (feature, n_mels, mfcc).
    """

    model_config = ConfigDict(frozen=True)

    section: Section
    field: str
    front_end: str | None = None

    @property
    def _model(self) -> type[BaseModel] | None:
        """The model that holds the field; None for the name of the front end itself."""
        if self.front_end is not None:
            return FRONT_ENDS[self.front_end]
        sections: dict[str, type[BaseModel]] = {
            "data": DataConfig,
            "model": CnnConfig,
            "training": TrainingConfig,
            "augmentation": AugmentationConfig,
        }
        return sections.get(self.section)

    def errors(self, value: Scalar) -> list[Any]:
        """Pydantic's complaints about the value by itself, strictly: `true` is no number, nor is `'8'`.

        What it breaks together with other fields is left out: those may differ from their defaults.
        """
        if self._model is None:
            return []
        try:
            self._model.model_validate({self.field: value}, strict=True)
        except ValidationError as error:
            return [detail for detail in error.errors() if detail["loc"] == (self.field,)]
        return []

    @property
    def default(self) -> Any:
        """The field's own default; None where it has none."""
        field = self._model.model_fields[self.field] if self._model is not None else None
        return None if field is None or field.is_required() else field.get_default(call_default_factory=True)

    @property
    def description(self) -> str:
        """The field's own description, as the schema and the errors show it; "" where it has none."""
        if self._model is None:
            return "Front end: waveform -> features."
        return self._model.model_fields[self.field].description or ""


@cache
def parameter_locations() -> dict[str, ParameterLocation]:
    """Every searchable parameter's name and place, in the order in which they are sampled.

    Data, front end, the front ends' own fields (`kind.field`), network, training, augmentation. The order is part of a
    study: samplers draw one parameter after the other.
    """
    load_plugins()
    found = {name: ParameterLocation(section="data", field=name) for name in SEARCHABLE_DATA}
    found["feature"] = ParameterLocation(section="feature", field="kind")
    for kind in FRONT_ENDS:
        for field in FRONT_ENDS[kind].model_fields:
            if field != "kind":
                found[f"{kind}.{field}"] = ParameterLocation(section="feature", field=field, front_end=kind)
    found |= {name: ParameterLocation(section="model", field=name) for name in CnnConfig.model_fields}
    found |= {name: ParameterLocation(section="training", field=name) for name in TrainingConfig.model_fields}
    found |= {
        name: ParameterLocation(section="augmentation", field=name)
        for name in AugmentationConfig.model_fields
    }
    return found
