"""Laws of the specification: it survives the metadata, and says what is wrong with a foreign one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from models.export.specification import Specification, SpecificationError
from models.front_ends.config import FRONT_ENDS, Mfcc
from models.networks.config import CnnConfig

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FIELDS = {
    "task": "pseudo",
    "variant": "seen",
    "label_meaning": {"0": "class 0", "1": "class 1"},
    "front_end": Mfcc(),
    "architecture": CnnConfig(),
    "label_map_digest": "a" * 64,
    "manifest_digests": {"train": "b" * 64},
    "fingerprint": "c" * 64,
    "run_id": "d" * 32,
    "versions": {"torch": "2.11.0"},
    "created": "2025-01-31T12:00:00+00:00",
}


@given(
    kind=st.sampled_from([kind for kind in FRONT_ENDS if not FRONT_ENDS[kind].external]),
    width=st.floats(0.0625, 4),
    task=TEXT,
    meaning=TEXT,
    run_id=TEXT,
    versions=st.dictionaries(TEXT, TEXT, max_size=3),
)
@settings(max_examples=40)
def test_metadata_gives_the_specification_back(
    kind: str, width: float, task: str, meaning: str, run_id: str, versions: dict[str, str]
) -> None:
    specification = Specification.model_validate(
        {
            **FIELDS,
            "front_end": FRONT_ENDS[kind](),
            "architecture": {"width": width},
            "task": task,
            "label_meaning": {"0": meaning, "1": "other"},
            "run_id": run_id,
            "versions": versions,
        }
    )
    metadata = specification.to_metadata()
    assert all(isinstance(value, str) for value in metadata.values())
    assert Specification.from_metadata(metadata | {"written by someone else": "ignored"}) == specification


def test_texts_are_plain_and_the_rest_is_json() -> None:
    metadata = Specification.model_validate(FIELDS).to_metadata()
    assert metadata["task"] == "pseudo"
    assert metadata["sample_rate"] == "16000"
    assert json.loads(metadata["front_end"])["n_mfcc"] == 40
    assert json.loads(metadata["architecture"]) == {"width": 1.0, "dropout": 0.3, "kernel_size": 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_meaning": {"1": "yes"}}, "exactly '0' and '1'"),
        ({"created": "yesterday"}, "'yesterday' is not an ISO 8601 time"),
        ({"front_end": {"kind": "mffc"}}, "did you mean 'mfcc'"),
        ({"front_end": {"kind": "mfcc", "hop_length": 500}}, "hop_length 500"),
        ({"architecture": {"widht": 1}}, "widht"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_broken_laws_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Specification.model_validate(FIELDS | change)


def test_foreign_metadata_is_one_clear_error() -> None:
    with pytest.raises(SpecificationError, match="no format_version, task"):
        Specification.from_metadata({"sample_rate": "16000"})
    metadata = Specification.model_validate(FIELDS).to_metadata()
    with pytest.raises(SpecificationError, match="'versions' is not JSON"):
        Specification.from_metadata(metadata | {"versions": "{"})
    with pytest.raises(SpecificationError, match=r"bad specification: format_version"):
        Specification.from_metadata(metadata | {"format_version": "2"})
