"""The contract a model carries: what goes in, what comes out, what it was trained on.

It is written into the ONNX file's metadata, one readable entry a field (JSON where it is not text), so
that the weights never travel without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from models.errors import ModelError
from models.front_ends.config import FrontEnd, parse_front_end
from models.networks.config import CnnConfig
from models.window import SAMPLE_RATE, WINDOW_SAMPLES

INT16_DIVISOR = 32_768
SCHEMA_ID = "urn:diarization-harness:specification:1"
OUTPUT_MEANING = (
    "one logit a class; the class is the index of the larger one, and softmax over the last axis, "
    "exp(logit) / sum(exp(logits)), gives the probability of each"
)
# Fields that older files lack: their defaults were true of those files too.
LATER_FIELDS = (
    "members",
    "channels",
    "input_dtype",
    "input_range",
    "int16_divisor",
    "output_dtype",
    "output_meaning",
)


class SpecificationError(ModelError):
    """An ONNX file that carries no specification, or one that breaks its laws; the message names the fields."""


def _known_front_end(value: object) -> object:
    if isinstance(value, FrontEnd):
        return value.model_dump(mode="json")
    return parse_front_end(value).model_dump(mode="json") if isinstance(value, Mapping) else value


def _known_architecture(value: object) -> object:
    return CnnConfig.model_validate(value).model_dump(mode="json")


FrontEndFields = Annotated[dict[str, Any], BeforeValidator(_known_front_end)]
ArchitectureFields = Annotated[dict[str, Any], BeforeValidator(_known_architecture)]
_TWO_TEXTS = {
    "type": "object",
    "properties": {"0": {"type": "string"}, "1": {"type": "string"}},
    "required": ["0", "1"],
    "additionalProperties": False,
}
LabelMeaning = Annotated[dict[str, str], WithJsonSchema(_TWO_TEXTS)]
# A file that is written holds every field: a server may rely on those with a default, too.
_WRITTEN = ConfigDict(frozen=True, extra="forbid", json_schema_serialization_defaults_required=True)


class MemberSpecification(BaseModel):
    """One member of an ensemble."""

    model_config = _WRITTEN

    run_id: str = Field(description="Run that trained the member.")
    fingerprint: str = Field(description="Fingerprint of the member's configuration.")
    front_end: FrontEndFields = Field(description="Its front end and parameters.")
    architecture: ArchitectureFields = Field(description="Parameters of its CNN.")


class Specification(BaseModel):
    """Everything a user of the model must know to feed it and to trust it."""

    model_config = _WRITTEN

    format_version: Literal[1] = Field(1, description="Version of this list of fields.")
    task: str = Field(description="Task the labels come from.")
    variant: str = Field(description="Variant of the task.")
    label_meaning: LabelMeaning = Field(description="What class 0 and class 1 stand for.")
    sample_rate: int = Field(SAMPLE_RATE, description="Hz of the waveform.")
    window_samples: int = Field(WINDOW_SAMPLES, description="Samples of one window.")
    input_name: str = Field(
        "waveform", description="Input, (batch, window_samples) float32 in [-1, 1]; batch is 1 or more."
    )
    channels: int = Field(1, description="Channels of the waveform: 1, mono; average several before.")
    input_dtype: str = Field("float32", description="Type of the input's samples.")
    input_range: tuple[float, float] = Field((-1.0, 1.0), description="Range of the input's samples.")
    int16_divisor: int = Field(INT16_DIVISOR, description="float32 sample = int16 sample / this.")
    output_name: str = Field("logits", description="Output, (batch, 2) float32.")
    output_dtype: str = Field("float32", description="Type of the output.")
    output_meaning: str = Field(OUTPUT_MEANING, description="What to do with the output.")
    front_end: FrontEndFields | None = Field(description="Front end and its parameters; null: see members.")
    architecture: ArchitectureFields | None = Field(description="Parameters of the CNN; null: see members.")
    members: tuple[MemberSpecification, ...] = Field(
        (),
        description="Members of an ensemble, whose mean probability the logits give; empty for one network.",
    )
    label_map_digest: str = Field(description="sha256 of the label map.")
    manifest_digests: dict[str, str] = Field(description="sha256 of each split's manifest.")
    fingerprint: str = Field(description="Fingerprint of the trial's configuration.")
    run_id: str = Field(description="Run that trained the weights.")
    versions: dict[str, str] = Field(description="Versions of the code and libraries.")
    created: str = Field(description="When the weights were exported, ISO 8601.")

    @field_validator("label_meaning")
    @classmethod
    def _two_classes(cls, value: dict[str, str]) -> dict[str, str]:
        if sorted(value) != ["0", "1"]:
            raise ValueError(f"label_meaning names the classes {sorted(value)}: give exactly '0' and '1'")
        return value

    @model_validator(mode="after")
    def _one_network_or_members(self) -> Self:
        single = self.front_end is not None and self.architecture is not None
        if single == bool(self.members) or (self.front_end is None) != (self.architecture is None):
            raise ValueError(
                "give front_end and architecture (one network), or members (an ensemble), not both"
            )
        return self

    @field_validator("created")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        try:
            datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(
                f"created {value!r} is not an ISO 8601 time such as 2025-01-31T12:00:00+00:00"
            ) from None
        return value

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """JSON Schema (draft 2020-12) of specification.json, for servers in any language."""
        schema = cls.model_json_schema(mode="serialization")
        schema |= {
            "title": "Model specification",
            "description": "What a server must know to feed an exported model and to read its output.",
        }
        address = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID}
        return {**address, **schema}

    def to_metadata(self) -> dict[str, str]:
        """Give one text a field, for ``metadata_props`` of an ONNX file."""
        fields = self.model_dump(mode="json")
        return {
            name: value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
            for name, value in fields.items()
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        """Read back what ``to_metadata`` gave; entries of other names are ignored.

        Raises
        ------
        SpecificationError
            If a field is absent or does not follow its law.
        """
        fields: dict[str, Any] = {}
        for name, field in cls.model_fields.items():
            if name not in metadata:
                continue
            try:
                fields[name] = metadata[name] if field.annotation is str else json.loads(metadata[name])
            except json.JSONDecodeError as error:
                raise SpecificationError(f"metadata entry {name!r} is not JSON: {error}") from error
        missing = [name for name in cls.model_fields if name not in fields and name not in LATER_FIELDS]
        if missing:
            raise SpecificationError(
                f"the metadata is not that of a model exported here: no {', '.join(missing)}"
            )
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            reasons = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise SpecificationError("bad specification: " + "; ".join(reasons)) from error

    @classmethod
    def from_onnx(cls, path: Path) -> Self:
        """Read the specification of an ONNX file that holds its own weights.

        Raises
        ------
        OnnxFileError
            There is no such file, it is no ONNX model, or it keeps data in other files.
        SpecificationError
            Its metadata is not that of a model exported here.
        """
        from models.onnx_io.files import read_onnx

        return cls.from_metadata({entry.key: entry.value for entry in read_onnx(path).metadata_props})


def network_macs(front_end: Mapping[str, Any], architecture: Mapping[str, Any]) -> int:
    """Multiply-accumulates of one window in the network that a specification, or a member of it, states.

    Front ends do not count: they are small beside the networks that matter.
    """
    features = parse_front_end(front_end)
    return CnnConfig.model_validate(architecture).macs(features.num_features, features.num_frames())
