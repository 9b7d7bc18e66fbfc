"""One model of a bundle, opened from its digested bytes and held against the bundle's own documents.

numpy and onnxruntime only, and both inside functions: the digests can be checked without.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.errors import InputError
from harness.promotion.bundle.files import EVIDENCE, MODEL, SPECIFICATION, WAVEFORM

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CANONICAL_TOLERANCE = 1e-4  # on logits, whatever the evidence claims of model.onnx
SAME_IN_METADATA = ("task", "variant", "fingerprint", "run_id", "label_map_digest")


class BrokenBundleError(InputError):
    """A bundle that does not keep a law; the message says which."""


@dataclass(frozen=True)
class Bundle:
    """The digested files of a bundle, by name."""

    folder: Path
    digest: str
    files: dict[str, bytes]

    def file(self, name: object) -> bytes:
        """The content of one that the evidence names."""
        if not isinstance(name, str) or name not in self.files:
            raise BrokenBundleError(f"{EVIDENCE} names {name!r}, which is no file of the bundle")
        return self.files[name]

    def document(self, name: str) -> dict[str, Any]:
        """One JSON object."""
        try:
            content = json.loads(self.files[name])
        except ValueError as error:
            raise BrokenBundleError(f"{name} is not JSON: {error}") from None
        if not isinstance(content, dict):
            raise BrokenBundleError(f"{name} is not a JSON object")
        return content

    def array(self, name: object) -> npt.NDArray[np.float32]:
        """One float32 matrix (window, ...)."""
        import numpy as np

        try:
            array = np.load(io.BytesIO(self.file(name)), allow_pickle=False)
        except (EOFError, OSError) as error:
            raise BrokenBundleError(f"{name} is not a .npy file: {error}") from None
        if array.dtype != np.float32 or array.ndim != 2 or not len(array):
            raise BrokenBundleError(f"{name} is {array.dtype} {array.shape}, not float32 (window, ...)")
        return np.asarray(array, dtype=np.float32)


def included_variants(
    bundle: Bundle, specification: dict[str, Any], evidence: dict[str, Any]
) -> list[dict[str, Any]]:
    """The included variants, once the documents say everything that is asked of them here."""
    for name, kind in (
        ("input_name", str), ("output_name", str), ("window_samples", int), ("label_meaning", dict),
        *((name, str) for name in SAME_IN_METADATA),
    ):  # fmt: skip
        if not isinstance(specification.get(name), kind):
            raise BrokenBundleError(
                f"{SPECIFICATION}: {name} is {specification.get(name)!r}, not {kind.__name__}"
            )
    if not isinstance(evidence.get("variants"), list):
        raise BrokenBundleError(f"{EVIDENCE}: variants is not a list")
    included = [one for one in evidence["variants"] if one["included"]]
    missing = {MODEL, *(name for name in bundle.files if name.endswith(".onnx"))} - {
        one["file"] for one in included
    }
    if missing:
        raise BrokenBundleError(f"{EVIDENCE} describes no variant of {', '.join(sorted(missing))}")
    for one in included:
        bundle.file(one["file"])
        bundle.file(one["golden"])
        if one["device"] not in ("cpu", "cuda"):
            raise BrokenBundleError(
                f"{EVIDENCE}: variant {one['name']} is for {one['device']!r}, not cpu or cuda"
            )
        if not 0 < float(one["golden_tolerance"]) < float("inf"):
            raise BrokenBundleError(
                f"{EVIDENCE}: variant {one['name']} tolerates {one['golden_tolerance']!r}"
            )
    return included


def open_variant(bundle: Bundle, file: str, device: str) -> Any:
    """A session on the bytes that were digested; the provider is asserted."""
    from models.onnx_io.runtime import external_tensors, session_of

    content = bundle.file(file)
    outside = external_tensors(content)
    if outside:
        raise BrokenBundleError(
            f"{file} keeps {len(outside)} tensors in other files ({outside[0]!r} first), which is refused"
        )
    return session_of(content, device)


def run_variant(bundle: Bundle, specification: dict[str, Any], variant: dict[str, Any]) -> str:
    """Hold one model against its specification and its golden outputs; what was measured, in words."""
    import numpy as np

    file, golden = str(variant["file"]), variant["golden"]
    session = open_variant(bundle, file, variant["device"])
    _same_interface(session, specification, file)
    waveform, expected = bundle.array(WAVEFORM), bundle.array(golden)
    if len(waveform) != len(expected):
        raise BrokenBundleError(f"{golden} has {len(expected)} windows, {WAVEFORM} {len(waveform)}")
    tolerance = float(variant["golden_tolerance"])
    if file == MODEL:
        tolerance = min(tolerance, CANONICAL_TOLERANCE)
    name = specification["input_name"]
    logits = session.run(None, {name: waveform})[0]
    singly = np.concatenate([session.run(None, {name: waveform[i : i + 1]})[0] for i in range(len(waveform))])
    for what, other in ((f"its golden outputs ({golden})", expected), ("batch 1", singly)):
        if logits.shape != other.shape:
            raise BrokenBundleError(f"{file} gives logits {logits.shape}, {what} has {other.shape}")
        difference = float(np.abs(logits - other).max())
        if not difference <= tolerance:  # so written, NaN fails too
            raise BrokenBundleError(
                f"{file} differs from {what} by {difference:.2g}, more than {tolerance:g}"
            )
    off = float(np.abs(logits - expected).max())
    provider = session.get_providers()[0]
    return f"{len(waveform)} golden windows repeated within {off:.1g} (bound {tolerance:g}), any batch, {provider}"


def _same_interface(session: Any, specification: dict[str, Any], file: str) -> None:
    classes = len(specification["label_meaning"])
    wanted = [
        (specification["input_name"], specification["window_samples"]), (specification["output_name"], classes)
    ]  # fmt: skip
    values = [*session.get_inputs(), *session.get_outputs()]
    found = [(one.name, *one.shape[1:]) for one in values]
    if found != wanted:
        raise BrokenBundleError(f"{file} has inputs and outputs {found}, {SPECIFICATION} {wanted}")
    for one in values:
        if one.type != "tensor(float)" or isinstance(one.shape[0], int):
            raise BrokenBundleError(
                f"{one.name!r} of {file} is {one.type} {one.shape}, not float32 with a free batch"
            )
    metadata = session.get_modelmeta().custom_metadata_map
    for name in SAME_IN_METADATA:
        if metadata.get(name) != specification[name]:
            raise BrokenBundleError(
                f"{name} is {metadata.get(name)!r} in {file}, {specification[name]!r} in {SPECIFICATION}"
            )
