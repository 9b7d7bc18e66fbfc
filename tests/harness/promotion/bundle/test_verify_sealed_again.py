"""A bundle that was altered and sealed again still has to do what it says, from its own files alone."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from harness.promotion.bundle.files import golden_of
from harness.promotion.bundle.verify import verify
from tests.harness.places.sealed_bundle import edit, edit_model, refused, seal


def set_in(name: str, key: str, value: Any) -> Callable[[Path], None]:
    return lambda bundle: edit(bundle / name, lambda content: content.update({key: value}))


def set_in_variant(key: str, value: Any) -> Callable[[Path], None]:
    return lambda bundle: edit(
        bundle / "evidence.json", lambda content: content["variants"][2].update({key: value})
    )


def change_golden(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def alter(bundle: Path) -> None:
        np.save(bundle / name, change(np.load(bundle / name)))
        seal(bundle)

    return alter


def add_model(bundle: Path) -> None:
    shutil.copy(bundle / "model.onnx", bundle / "model.extra.onnx")
    seal(bundle)


def fix_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3


def other_run(model: onnx.ModelProto) -> None:
    next(entry for entry in model.metadata_props if entry.key == "run_id").value = "f" * 32


def put_outside(model: onnx.ModelProto) -> None:
    tensor = next(one for one in model.graph.initializer if len(one.raw_data) > 100)
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    Path("weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")


SEALED_AGAIN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "other weights": (lambda b: (shutil.copy(b / "model.int8.onnx", b / "model.onnx"), seal(b)), "fp32: model.onnx differs from its golden outputs (golden/logits.npy) by"),
    "golden outputs": (change_golden(golden_of("model.int8.onnx"), lambda a: a + np.float32(0.001)), "int8: model.int8.onnx differs from its golden outputs"),
    "golden NaN": (change_golden("golden/logits.npy", lambda a: a * np.float32("nan")), "by nan"),
    "golden windows": (change_golden("golden/logits.npy", lambda a: a[:1]), "golden/logits.npy has 1 windows"),
    "golden of objects": (change_golden("golden/logits.npy", lambda a: a.astype(object)), "fp32: Object arrays cannot be loaded"),
    "canonical tolerance": (lambda b: (edit(b / "evidence.json", lambda e: e["variants"][0].update(golden_tolerance=9.0)), change_golden("golden/logits.npy", lambda a: a + np.float32(0.01))(b)), "more than 0.0001"),
    "boundless tolerance": (set_in_variant("golden_tolerance", float("inf")), "variant int8 tolerates inf"),
    "a golden elsewhere": (set_in_variant("golden", "../logits.npy"), "names '../logits.npy', which is no file of the bundle"),
    "a strange device": (set_in_variant("device", "tpu"), "'tpu', not cpu or cuda"),
    "no device": (lambda b: edit(b / "evidence.json", lambda e: e["variants"][2].pop("device")), "'device' is missing"),
    "no variants": (set_in("evidence.json", "variants", None), "variants is not a list"),
    "left out": (set_in_variant("included", False), "no variant of model.int8.onnx"),
    "one more model": (add_model, "no variant of model.extra.onnx"),
    "window": (set_in("specification.json", "window_samples", 32_000), "model.onnx has inputs and outputs"),
    "output name": (set_in("specification.json", "output_name", "scores"), "model.onnx has inputs and outputs"),
    "another run's weights": (lambda b: edit_model(b, other_run), "run_id is 'ffff"),
    "no JSON": (lambda b: ((b / "evidence.json").write_text("{"), seal(b)), "evidence.json is not JSON"),
    "fixed batch": (lambda b: edit_model(b, fix_batch), "not float32 with a free batch"),
    "no model": (lambda b: ((b / "model.onnx").write_bytes(b"ORTM" * 9), seal(b)), "fp32: not an ONNX model"),
    "external data": (lambda b: edit_model(b, put_outside), "model.onnx keeps 1 tensors in other files"),
}  # fmt: skip


def put_beside(bundle: Path) -> None:
    """External data that SHA256SUMS covers: still refused, for a session follows the path and not the digest."""
    edit_model(bundle, put_outside)
    Path("weights.bin").rename(bundle / "weights.bin")
    edit_model(bundle, lambda model: None)


SEALED_AGAIN["external data in the bundle"] = (put_beside, "fp32: model.onnx keeps 1 tensors in other files")


@pytest.mark.parametrize("kind", SEALED_AGAIN)
def test_what_was_sealed_again_still_has_to_do_what_the_bundle_says(
    bundle: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle.parent)
    tamper, told = SEALED_AGAIN[kind]
    tamper(bundle)
    assert told in refused(bundle)


@pytest.mark.parametrize("location", ["weights.bin", "small/weights.bin", "../weights.bin"])
def test_external_data_is_never_read(bundle: Path, monkeypatch: pytest.MonkeyPatch, location: str) -> None:
    """onnxruntime itself follows such a path from the working directory; a pipe there would never end."""
    monkeypatch.chdir(bundle.parent)

    def outside(model: onnx.ModelProto) -> None:
        put_outside(model)
        tensor = next(one for one in model.graph.initializer if one.external_data)
        tensor.external_data[0].value = location

    edit_model(bundle, outside)
    Path("weights.bin").unlink()
    for pipe in {Path("weights.bin"), Path(location)}:
        os.mkfifo(pipe)
    try:
        assert "in other files" in refused(bundle) or location.startswith("small")
        assert not verify(bundle, latency=False).ok
    finally:
        Path(location).unlink()
