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
# What specification.json must hold, and of which type.
STATED: dict[str, type] = {
    "input_name": str,
    "output_name": str,
    "window_samples": int,
    "label_meaning": dict,
    **dict.fromkeys(SAME_IN_METADATA, str),
}


class BrokenBundleError(InputError):
    """A bundle whose documents and models contradict each other, or what was promised; the message says how."""


@dataclass(frozen=True)
class Bundle:
    """A bundle as it was read once: what was digested is what is parsed and run, whatever happens on the disk.

    Attributes
    ----------
    digest : sha256 of SHA256SUMS, hex
    files : content by the path relative to the folder
    """

    folder: Path
    digest: str
    files: dict[str, bytes]

    def file(self, name: object) -> bytes:
        """The content of the file that a document names; BrokenBundleError where that is no file of the bundle."""
        if not isinstance(name, str) or name not in self.files:
            raise BrokenBundleError(f"{EVIDENCE} names {name!r}, which is no file of the bundle")
        return self.files[name]

    def document(self, name: str) -> dict[str, Any]:
        """A file that must be one JSON object; BrokenBundleError where it is not."""
        try:
            content = json.loads(self.files[name])
        except ValueError as error:
            raise BrokenBundleError(f"{name} is not JSON: {error}") from None
        if not isinstance(content, dict):
            raise BrokenBundleError(f"{name} is not a JSON object")
        return content

    def array(self, name: object) -> npt.NDArray[np.float32]:
        """A .npy file with one float32 row for each golden window, (window, ...); nothing is unpickled.

        Raises
        ------
        BrokenBundleError
            It is no such matrix, has no row, or is no file of the bundle.
        """
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
    """The variants that ship, once the documents say everything that is asked of them here.

    Every .onnx file must be described, and every description must name a file, its golden outputs, a device that is
    known and a tolerance above 0; else a file could lie in the bundle that nobody runs.

    Raises
    ------
    BrokenBundleError
        They do not; KeyError and TypeError where a field is absent or of another type.
    """
    for name, kind in STATED.items():
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
    """An onnxruntime session on the bytes that were digested.

    Raises
    ------
    BrokenBundleError
        The model keeps tensors in other files, which no digest covers.
    ProviderError
        The device is absent here, or onnxruntime would run the model elsewhere.
    """
    from models.onnx_io.runtime import external_tensors, session_of

    content = bundle.file(file)
    outside = external_tensors(content)
    if outside:
        raise BrokenBundleError(
            f"{file} keeps {len(outside)} tensors in other files ({outside[0]!r} first), which is refused"
        )
    return session_of(content, device)


def run_variant(bundle: Bundle, specification: dict[str, Any], variant: dict[str, Any]) -> str:
    """Hold one model against its specification and its golden outputs; what was measured, in words.

    Logits (window, class) of all golden windows in one batch may differ from the golden ones, and from those of the
    same windows one by one, by `golden_tolerance` at most (absolute, on the logits).

    Raises
    ------
    BrokenBundleError
        It differs by more, or has other inputs, outputs or metadata than its specification says.
    """
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
    """Raise BrokenBundleError unless it takes (batch, sample) to (batch, class), float32, any batch, as is written."""
    classes = len(specification["label_meaning"])
    wanted = [
        (specification["input_name"], specification["window_samples"]),
        (specification["output_name"], classes),
    ]
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
