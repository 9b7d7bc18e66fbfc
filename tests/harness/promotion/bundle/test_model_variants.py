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
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.policy import VariantTolerances
from harness.metrics.paired_comparison import paired_cluster_bootstrap
from harness.promotion.bundle import latency, model_variants
from harness.promotion.bundle.files import MODEL
from harness.promotion.bundle.latency import Latency, benchmark_latency
from harness.promotion.bundle.model_variants import (
    Variant,
    _held_against,
    _judged,
    make_variants,
    measured,
    score_variants,
)
from models.onnx_io.files import read_onnx
from models.onnx_io.session import open_session, run_onnx
from tests.learned_network import task

TOLERANCES = VariantTolerances(fp16=0.005, int8=0.02)
WINDOWS, LABELS = task(64, 7)
CLUSTERS = [f"speaker {i % 16}" for i in range(len(LABELS))]
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, learned_model: Path) -> tuple[Path, list[Variant]]:
    folder = tmp_path_factory.mktemp("bundle")
    shutil.copy(learned_model, folder / MODEL)
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
        assert ("CUDAExecutionProvider" in one.latency_note) == (one.latency is None)


def test_every_variant_gets_its_parity_and_accuracy(bundle: tuple[Path, list[Variant]]) -> None:
    folder, found = bundle
    scored = score(folder, found)
    reference = run_onnx(open_session(folder / MODEL), WINDOWS)
    accuracy = float((reference.argmax(axis=1) == LABELS).mean())
    assert accuracy > 0.8
    for one in scored.values():
        assert one.included
        assert one.accuracy is not None
        assert one.accuracy_provider == "CPUExecutionProvider" or one.device == "cuda"
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
    change = scored[name].accuracy_change
    assert change is not None
    assert change.value == pytest.approx(-(scored[name].accuracy_loss or 0))
    assert not scored[name].included
    assert scored[name].reason.startswith(f"{100 * change.value:+.1f} points of test balanced accuracy [-")
    assert scored[name].reason.endswith(
        f"(64 windows, K = 16), tolerated is {'-0.5' if name == 'fp16' else '-2'}"
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
            shutil.copy(folder / MODEL, folder / f"model.{name}.onnx")
            spoil(folder / f"model.{name}.onnx", 60_000.0)
    return folder, found


def held(windows: int, speakers: int, lost: int, tolerated: float) -> Variant:
    """A variant that gives the other class for so many windows, each of another speaker, of a model always right."""
    truth = np.arange(windows) % 2
    right = np.where(np.arange(2) == truth[:, None], 1.0, -1.0).astype(np.float32)
    logits = right.copy()
    logits[:lost] *= -1
    names = [f"speaker {i % speakers}" for i in range(windows)]
    return _held_against(right, logits, truth, names, Variant("int8", "model.int8.onnx", "cpu"), tolerated)


def test_one_or_two_flipped_windows_leave_nothing_out_and_do_not_pass_silently() -> None:
    for lost in (1, 2):  # 1.3 and 2.6 points of 78
        one = held(78, 26, lost, 0.005)
        assert (one.included, one.reason) == (True, "")
        assert one.warning.startswith(f"may lose more than is tolerated: -{100 * lost / 78:.1f} points")
    gone = held(78, 26, 12, 0.005)
    assert (gone.included, gone.warning) == (False, "")
    assert gone.reason.endswith("(78 windows, K = 26), tolerated is -0.5")
    within = held(78, 26, 1, 0.02)  # 1.3 points, but the interval reaches beyond 2
    assert within.included
    assert within.warning
    assert held(2_000, 40, 4, 0.02).warning == ""  # .2 points, and surely less than 2
    assert held(78, 26, 0, 0.0).warning == ""
    few = held(78, 3, 10, 0.02)  # three speakers prove nothing: then the loss alone decides
    assert not few.included
    assert "K = 3, few clusters" in few.reason


@given(
    st.integers(1, 30),
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200),
    st.floats(0, 0.2),
)
@settings(max_examples=100, deadline=None)
def test_what_loses_more_than_tolerated_is_left_out_or_warned_of(
    speakers: int, right: list[tuple[bool, bool]], tolerated: float
) -> None:
    ours, fp32 = np.array(right).T
    change = paired_cluster_bootstrap(ours, fp32, [str(i % speakers) for i in range(len(right))])
    reason, warning = _judged(change, tolerated)
    assert not (reason and warning)
    lost = int(fp32.sum()) - int(ours.sum())
    if lost <= 2 or lost / len(right) <= tolerated:
        assert not reason
    if lost / len(right) > tolerated + 1e-9:
        assert reason or warning


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
    monkeypatch.setattr(model_variants, "SCORING", (10, 2_000, 1.0))
    scored = score(folder, [replace(one, included=one.name == "fp32") for one in found])
    assert scored["fp32"].accuracy is not None
    assert scored["fp32"].accuracy.windows == 10


@no_gpu
def test_a_device_that_is_not_here_is_said_in_words(made: tuple[Path, list[Variant]]) -> None:
    assert "CUDAExecutionProvider" in str(measured(made[0] / MODEL, "cuda"))
    assert "unknown device 'tpu'" in str(measured(made[0] / MODEL, "tpu"))


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
    found = benchmark_latency(lambda: slow)
    assert slow.batches.count(32) == 1
    assert slow.batches.count(1) <= 1 + latency.WARM_UP + 3
    assert found.calls == 3
    assert found.provider == "SomeProvider"
    assert found.p99_ms >= found.p50_ms >= 20
    assert found.cold_ms >= 20
    assert 1 < found.windows_per_s <= 50
    quick = Slow(0.0)
    assert benchmark_latency(lambda: quick).calls <= latency.ROUNDS * latency.MAX_CALLS


class Interrupted(Slow):
    """A session that once had to wait for a core."""

    def run(self, _: None, feed: dict[str, np.ndarray]) -> None:
        super().run(_, feed)
        if len(self.batches) == 1 + latency.WARM_UP + 1:
            time.sleep(0.5)


def test_one_busy_moment_does_not_make_a_model_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "MAX_SECONDS", 0.3)
    assert benchmark_latency(lambda: Interrupted(0.001)).p99_ms < 400
