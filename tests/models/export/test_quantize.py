"""Laws of the fp16 and int8 files: the same contract, a converted network, an untouched front end."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from models.export.ensemble import export_ensemble
from models.export.quantize import PRECISION, QuantizeError, export_fp16, export_int8
from models.export.specification import Specification
from models.front_ends.config import LogMel, Mfcc, Waveform
from models.networks.cnn import build_network
from models.networks.config import CnnConfig
from models.onnx_io.files import read_onnx
from models.onnx_io.session import open_session, run_onnx
from tests.learned_network import export, learned, specification, task

TINY = CnnConfig(width=0.0625)
KINDS = ("mfcc_delta", "waveform", "ensemble")
PRECISIONS = ("fp16", "int8")
FLOAT, FLOAT16, INT8 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8


def convert(source: Path, precision: str, path: Path) -> None:
    if precision == "fp16":
        export_fp16(source, path)
    else:
        export_int8(source, task(8, 0)[0], path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, learned_model: Path) -> dict[str, dict[str, Path]]:
    """Every kind of model as fp32, fp16 and int8, each alone in its folder."""
    root = tmp_path_factory.mktemp("models")
    made: dict[str, dict[str, Path]] = {}
    for kind in KINDS:
        source = root / kind / "fp32" / "model.onnx"
        source.parent.mkdir(parents=True)
        if kind == "mfcc_delta":
            shutil.copy(learned_model, source)
        elif kind == "waveform":  # fresh biases are all zero, and stored once
            torch.manual_seed(0)
            export(Waveform(), build_network(TINY, 1).eval(), source)
        else:
            members = [(one, learned(one, TINY, 5)) for one in (Mfcc(), LogMel())]
            stated = [
                {"run_id": f"{i}", "fingerprint": f"{i}", "front_end": one, "architecture": cnn.config}
                for i, (one, cnn) in enumerate(members)
            ]
            export_ensemble(members, specification(members=stated), source)
        made[kind] = {"fp32": source}
        for precision in PRECISIONS:
            made[kind][precision] = root / kind / precision / "model.onnx"
            convert(source, precision, made[kind][precision])
    return made


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_contract_stays(files: dict[str, dict[str, Path]], kind: str, precision: str) -> None:
    source, path = files[kind]["fp32"], files[kind][precision]
    assert [child.name for child in path.parent.iterdir()] == ["model.onnx"]
    before, after = read_onnx(source), read_onnx(path)  # would refuse external data
    onnx.checker.check_model(after, full_check=True)
    metadata = [(entry.key, entry.value) for entry in before.metadata_props]
    assert [(entry.key, entry.value) for entry in after.metadata_props] == [*metadata, (PRECISION, precision)]
    assert Specification.from_onnx(path) == Specification.from_onnx(source)
    assert [(o.domain, o.version) for o in after.opset_import] == [
        (o.domain, o.version) for o in before.opset_import
    ]
    session, windows = open_session(path), task(5, 3)[0]
    (given,), (result,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("waveform", "tensor(float)", ["batch", 48_000])
    assert (result.name, result.type, result.shape) == ("logits", "tensor(float)", ["batch", 2])
    together = run_onnx(session, windows)
    for batch in (1, 3):
        np.testing.assert_allclose(run_onnx(session, windows, batch), together, atol=0.05)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_network_is_converted_and_the_front_end_is_not(
    files: dict[str, dict[str, Path]], kind: str, precision: str
) -> None:
    before, after = (read_onnx(files[kind][one]) for one in ("fp32", precision))

    def front_end(model: onnx.ModelProto) -> list[bytes]:
        return sorted(n.SerializeToString() for n in model.graph.node if n.name.startswith("/front_end"))

    assert front_end(before)
    assert front_end(after) == front_end(before)
    weights = [t for t in after.graph.initializer if t.name.startswith(("cnn.", "networks."))]
    wide = {FLOAT16: "fp16", INT8: "int8"}
    matrices = [t for t in weights if len(t.dims) == 4]
    assert matrices
    assert {wide.get(t.data_type) for t in matrices} == {precision}
    # int8 keeps float32 for the last layer alone, whose output are the logits
    floats = {t.name for t in weights if t.data_type == FLOAT and len(t.dims) == 2}
    last = {n.input[1] for n in before.graph.node if n.op_type == "Gemm" and n.name.endswith("head.3/Gemm")}
    assert floats == (last if precision == "int8" else set())


def test_sizes_are_those_of_the_weights(files: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    torch.manual_seed(0)
    config = CnnConfig()
    export(Mfcc(), build_network(config, 40).eval(), source)
    export_fp16(source, tmp_path / "half.onnx")
    full, half = source.stat().st_size, (tmp_path / "half.onnx").stat().st_size
    assert full - half == pytest.approx(2 * config.num_parameters(40), rel=0.01)
    assert half / full < 0.56  # not .5: the kernels of the spectrogram stay float32
    sizes = {one: path.stat().st_size for one, path in files["mfcc_delta"].items()}
    assert max(sizes["fp16"], sizes["int8"]) < sizes["fp32"]


def test_learned_windows_keep_their_class(files: dict[str, dict[str, Path]]) -> None:
    windows, labels = task(64, 7)
    logits = {one: run_onnx(open_session(path), windows) for one, path in files["mfcc_delta"].items()}
    right = {one: float((found.argmax(axis=1) == labels).mean()) for one, found in logits.items()}
    assert right["fp32"] > 0.8
    assert right["fp16"] >= right["fp32"] - 0.005
    assert right["int8"] >= right["fp32"] - 0.02
    assert np.abs(logits["fp16"] - logits["fp32"]).max() < 0.05
    assert 0 < np.abs(logits["int8"] - logits["fp32"]).max() < 0.2 * np.abs(logits["fp32"]).max()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_file_gives_the_same_bytes_quietly(
    files: dict[str, dict[str, Path]],
    tmp_path: Path,
    precision: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in ("mfcc_delta", "waveform"):
        convert(files[kind]["fp32"], precision, tmp_path / "again.onnx")
        assert (tmp_path / "again.onnx").read_bytes() == files[kind][precision].read_bytes()
    assert [child.name for child in tmp_path.iterdir()] == ["again.onnx"]
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_what_cannot_be_converted_is_refused_and_leaves_nothing(
    files: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    source, path = files["mfcc_delta"]["fp32"], tmp_path / "out.onnx"
    windows = task(2, 0)[0]
    with pytest.raises(QuantizeError, match=r"float32 \(2, 16000\): give float32 \(window, 48000\)"):
        export_int8(source, windows[:, :16_000], path)
    with pytest.raises(QuantizeError, match="at least one, all of them finite"):
        export_int8(source, windows[:0], path)
    with pytest.raises(QuantizeError, match="at least one, all of them finite"):
        export_int8(source, np.full_like(windows, np.nan), path)
    node = onnx.helper.make_node("Identity", ["a"], ["b"])
    values = [onnx.helper.make_tensor_value_info(name, FLOAT, [1]) for name in "ab"]
    foreign = onnx.helper.make_model(onnx.helper.make_graph([node], "g", values[:1], values[1:]))
    (tmp_path / "foreign.onnx").write_bytes(foreign.SerializeToString())
    with pytest.raises(QuantizeError, match="holds no network that this package exported"):
        export_fp16(tmp_path / "foreign.onnx", path)
    baked = read_onnx(source)
    for value in (*baked.graph.input, *baked.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    (tmp_path / "baked.onnx").write_bytes(baked.SerializeToString())
    for precision in PRECISIONS:
        with pytest.raises(QuantizeError, match=r"free batch dimension|cannot be converted"):
            convert(tmp_path / "baked.onnx", precision, path)
    assert sorted(child.name for child in tmp_path.iterdir()) == ["baked.onnx", "foreign.onnx"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_disk_that_takes_no_more_is_no_fault_of_the_graph(
    files: dict[str, dict[str, Path]], tmp_path: Path, precision: str
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))  # bytes of a file
    try:
        with pytest.raises(OSError, match="File too large"):
            convert(files["mfcc_delta"]["fp32"], precision, tmp_path / "model.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
