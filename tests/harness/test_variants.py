"""Laws of the shipped files: measured, held against fp32 on test windows, left out where they lose too much."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from harness import latency, variants
from harness.latency import Latency, measure
from harness.policy import VariantTolerances
from harness.variants import CANONICAL, Variant, make_variants, measured, score_variants
from models.front_ends import Mfcc
from models.onnx_files import read_onnx
from models.onnx_session import open_session, run_onnx
from tests.learned_network import export, learned, task

TOLERANCES = VariantTolerances(fp16=0.005, int8=0.02)
WINDOWS, LABELS = task(64, 7)
CLUSTERS = [f"speaker {i % 16}" for i in range(len(LABELS))]
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Variant]]:
    folder = tmp_path_factory.mktemp("bundle")
    export(Mfcc(), learned(Mfcc()), folder / CANONICAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "MAX_SECONDS", 0.2)
        return folder, make_variants(folder, task(8, 0)[0])


@pytest.fixture
def bundle(made: tuple[Path, list[Variant]], tmp_path: Path) -> tuple[Path, list[Variant]]:
    """A copy, for tests in which files are removed."""
    folder, found = made
    return Path(shutil.copytree(folder, tmp_path / "bundle")), found


def score(
    folder: Path, found: list[Variant], tolerances: VariantTolerances = TOLERANCES, **named: object
) -> dict[str, Variant]:
    scored = score_variants(found, folder, WINDOWS, LABELS, CLUSTERS, tolerances, **named)  # type: ignore[arg-type]
    return {one.name: one for one in scored}


def spoil(path: Path, value: float) -> None:
    """Give the last layer's bias for class 1 a value."""
    model = read_onnx(path)
    bias = next(t for t in model.graph.initializer if t.name == "cnn.head.3.bias")
    values = onnx.numpy_helper.to_array(bias).copy()
    values[1] = value
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    path.write_bytes(model.SerializeToString())


@no_gpu
def test_three_files_are_made_and_described(made: tuple[Path, list[Variant]]) -> None:
    folder, found = made
    assert [(one.name, one.file, one.device) for one in found] == [
        ("fp32", "model.onnx", "cpu"), ("fp16", "model.fp16.onnx", "cuda"), ("int8", "model.int8.onnx", "cpu"),
    ]  # fmt: skip
    assert sorted(child.name for child in folder.iterdir()) == sorted(one.file for one in found)
    for one in found:
        content = (folder / one.file).read_bytes()
        assert (one.included, one.reason) == (True, "")
        assert (one.bytes, one.sha256) == (len(content), sha256(content).hexdigest())
        # fp16 is meant for a GPU: on a CPU its latency says nothing
        assert isinstance(one.latency, Latency) == (one.device == "cpu")
        assert one.latency_note == (
            "" if one.latency else "no GPU that CUDA can use is here: measure it where it will serve"
        )


def test_every_variant_gets_its_parity_and_accuracy(bundle: tuple[Path, list[Variant]]) -> None:
    folder, found = bundle
    scored = score(folder, found)
    reference = run_onnx(open_session(folder / CANONICAL), WINDOWS)
    accuracy = float((reference.argmax(axis=1) == LABELS).mean())
    assert accuracy > 0.8
    for one in scored.values():
        assert one.included
        assert one.accuracy is not None
        assert (one.accuracy.windows, one.accuracy.clusters) == (64, 16)
        assert one.accuracy_loss == pytest.approx(accuracy - one.accuracy.value)
        assert one.agreement is not None
        assert one.agreement >= 0.95
        assert json.loads(json.dumps(one.as_json()))["name"] == one.name
    differences = [scored[name].max_logit_difference or 0 for name in ("fp32", "fp16", "int8")]
    assert differences[0] == 0 < differences[1] < differences[2]
    assert score(folder, found, canonical=reference) == scored  # logits that are known are not computed again


@pytest.mark.parametrize("name", ["fp16", "int8"])
def test_one_that_loses_more_than_its_tolerance_is_left_out_and_removed(
    bundle: tuple[Path, list[Variant]], name: str
) -> None:
    folder, found = bundle
    spoil(folder / f"model.{name}.onnx", 60_000.0)  # always class 1
    scored = score(folder, found)
    lost = scored[name].accuracy_loss or 0
    assert not scored[name].included
    assert scored[name].reason.startswith(f"loses .{round(1000 * lost):03}".rstrip("0"))
    assert scored[name].reason.endswith(
        f"of test balanced accuracy, tolerated is {'.005' if name == 'fp16' else '.02'}"
    )
    kept = {one.file for one in scored.values() if one.included}
    assert {child.name for child in folder.iterdir()} == kept
    assert len(kept) == 2
    # what is tolerated stays
    assert all(one.included for one in score(*_again(bundle), VariantTolerances(fp16=1.0, int8=1.0)).values())


def _again(bundle: tuple[Path, list[Variant]]) -> tuple[Path, list[Variant]]:
    folder, found = bundle
    for name in ("fp16", "int8"):
        if not (folder / f"model.{name}.onnx").exists():
            shutil.copy(folder / CANONICAL, folder / f"model.{name}.onnx")
            spoil(folder / f"model.{name}.onnx", 60_000.0)
    return folder, found


def test_logits_that_are_not_finite_are_left_out(bundle: tuple[Path, list[Variant]]) -> None:
    folder, found = bundle
    spoil(folder / "model.int8.onnx", float("nan"))
    one = score(folder, found)["int8"]
    assert (one.included, one.accuracy) == (False, None)
    assert one.reason == "64 of 64 test windows give logits that are not finite"
    assert not (folder / one.file).exists()


def test_what_cannot_be_made_is_left_out_with_its_reason(
    bundle: tuple[Path, list[Variant]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = bundle
    (folder / "model.int8.onnx").unlink()
    monkeypatch.setattr(latency, "MAX_SECONDS", 0.1)
    found = make_variants(folder, np.full((2, 48_000), np.nan, np.float32))
    assert [one.included for one in found] == [True, True, False]
    assert "at least one, all of them finite" in found[2].reason
    assert not (folder / "model.int8.onnx").exists()
    assert score(folder, found)["int8"] == found[2]


def test_a_slow_model_is_scored_on_fewer_windows_of_both_classes(
    bundle: tuple[Path, list[Variant]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, found = bundle
    monkeypatch.setattr(variants, "SCORING", (10, 2_000, 1.0))
    scored = score(folder, [replace(one, included=one.name == "fp32") for one in found])
    assert scored["fp32"].accuracy is not None
    assert scored["fp32"].accuracy.windows == 10


@no_gpu
def test_a_device_that_is_not_here_is_said_in_words(made: tuple[Path, list[Variant]]) -> None:
    assert str(measured(made[0] / CANONICAL, "cuda")).startswith("no GPU that CUDA can use is here")
    assert "unknown device 'tpu'" in str(measured(made[0] / CANONICAL, "tpu"))


class Slow:
    """A session that takes its time, by window."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.batches = seconds, list[int]()

    def get_inputs(self) -> list[object]:
        return [type("Input", (), {"name": "waveform"})]

    def get_providers(self) -> list[str]:
        return ["SomeProvider"]

    def run(self, _: None, feed: dict[str, np.ndarray]) -> None:
        self.batches.append(len(feed["waveform"]))
        time.sleep(self.seconds * len(feed["waveform"]))


def test_latency_is_bounded_for_slow_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "MAX_SECONDS", 0.05)
    slow = Slow(0.02)  # 32 windows outlast the limit: one batch, no warm-up
    found = measure(lambda: slow)
    assert slow.batches.count(32) == 1
    assert slow.batches.count(1) <= 1 + latency.WARM_UP + 3
    assert found.calls == 3
    assert found.provider == "SomeProvider"
    assert found.p99_ms >= found.p50_ms >= 20
    assert found.cold_ms >= 20
    assert 1 < found.windows_per_s <= 50
    quick = Slow(0.0)
    assert measure(lambda: quick).calls <= latency.MAX_CALLS
