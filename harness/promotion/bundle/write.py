"""The bundle of a promoted model: one folder, enough for an inference server in another language.

model.onnx, model.*.onnx     waveform in, logits out (put there before)
specification.json           what goes in and what comes out; specification.schema.json is its JSON Schema
golden/                      inputs, and the outputs of each model that any runtime must repeat
evidence.json, card.md       what was measured, for programs and for people
SHA256SUMS                   digest of every file above, written last
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.core.files import write_json
from harness.promotion.bundle.files import EVIDENCE, SPECIFICATION, SUMS, WAVEFORM, golden_of, sums_text
from harness.promotion.bundle.files import bundle_digest as bundle_digest
from models.files import sync, write_atomic

if TYPE_CHECKING:
    from models.export.specification import Specification

SCHEMA = "specification.schema.json"
CARD = "card.md"


def write_bundle(
    folder: Path,
    *,
    specification: Specification,
    evidence: Mapping[str, Any],
    golden_waveform: npt.NDArray[np.float32],
    golden_logits: Mapping[str, npt.NDArray[np.float32]],
    card: str,
) -> None:
    """Complete the bundle in a folder that holds its models, durably, SHA256SUMS last.

    Parameters
    ----------
    evidence : written as JSON; numbers that JSON does not have (NaN, infinities) become null
    golden_waveform : (window, 48000) float32
    golden_logits : model's file name -> (window, 2) float32, for exactly the models in the folder

    Raises
    ------
    ValueError
        If golden outputs and models do not belong together.
    """
    _require_golden(folder, golden_waveform, golden_logits)
    write_json(folder / SPECIFICATION, specification.model_dump(mode="json"))
    write_json(folder / SCHEMA, type(specification).json_schema())
    write_json(folder / EVIDENCE, _plain(evidence))
    write_atomic(folder / CARD, card.encode())
    write_atomic(folder / WAVEFORM, _npy(golden_waveform))
    for model, logits in golden_logits.items():
        write_atomic(folder / golden_of(model), _npy(logits))
    _sync(folder)
    write_atomic(folder / SUMS, sums_text(folder).encode())
    _sync(folder)


def _require_golden(
    folder: Path, waveform: npt.NDArray[np.float32], logits: Mapping[str, npt.NDArray[np.float32]]
) -> None:
    models = sorted(path.name for path in folder.glob("*.onnx"))
    if sorted(logits) != models:
        raise ValueError(f"golden outputs of {sorted(logits)}, but the models in {folder} are {models}")
    for name, values in logits.items():
        if not len(waveform) or len(values) != len(waveform):
            raise ValueError(f"golden outputs of {name}: {len(values)} windows for {len(waveform)} inputs")


def _npy(array: npt.NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array, dtype=np.float32), allow_pickle=False)
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    """Without the numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sync(folder: Path) -> None:
    """Make everything in a folder durable, names included."""
    for path in [folder, *folder.rglob("*")]:
        sync(path)
