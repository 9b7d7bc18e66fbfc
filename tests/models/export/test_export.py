"""Laws of the export: one file, free batch, torch's logits, its specification inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from models.export import export
from models.export.export import ExportError, Pipeline, export_onnx
from models.export.specification import Specification, SpecificationError
from models.front_ends.build import build_front_end
from models.front_ends.config import FRONT_ENDS, FrontEnd, LogMel, Mfcc, MfccDelta, Waveform
from models.networks.cnn import FastDiarizationModel, build_network
from models.networks.config import CnnConfig
from models.onnx_io.files import OnnxFileError, read_onnx
from models.onnx_io.runtime import ProviderError
from models.onnx_io.session import Parity, open_session, parity, run_onnx
from models.onnx_io.template import Template
from models.window import WINDOW_SAMPLES
from tests import learned_network

SMALL = CnnConfig(width=0.0625)


def specification(front_end: FrontEnd, config: CnnConfig) -> Specification:
    return learned_network.specification(front_end=front_end, architecture=config)


def windows(count: int = 7, seed: int = 0) -> np.ndarray:
    """Make noise at many levels, one silent window and one clipped one."""
    rng = np.random.default_rng(seed)
    level = 10 ** rng.uniform(-3, -0.5, (count, 1))
    out = (level * rng.standard_normal((count, WINDOW_SAMPLES))).astype(np.float32)
    out[0] = 0
    out[-1] = np.sign(out[-1])
    return out


def network(front_end: FrontEnd, config: CnnConfig = SMALL, seed: int = 0) -> FastDiarizationModel:
    """Make a network as training leaves it: BatchNorms that saw data, gradients, training mode."""
    torch.manual_seed(seed)
    cnn = build_network(config, front_end.num_features)
    for _ in range(2):
        cnn(build_front_end(front_end)(torch.from_numpy(windows(4, seed)))).sum().backward()
    return cnn


def reference(front_end: FrontEnd, cnn: FastDiarizationModel, batch: np.ndarray) -> np.ndarray:
    pipeline = Pipeline(build_front_end(front_end), cnn).eval()
    with torch.inference_mode():
        logits: np.ndarray = pipeline(torch.from_numpy(batch)).numpy()
    return logits


@pytest.mark.parametrize("template", [False, True], ids=["full", "template"])
@pytest.mark.parametrize("kind", [kind for kind in FRONT_ENDS if not FRONT_ENDS[kind].external])
def test_onnx_repeats_torch_at_any_batch(tmp_path: Path, kind: str, template: bool) -> None:
    front_end, path = FRONT_ENDS[kind](), tmp_path / "model.onnx"
    for seed in (0, 1):  # the second network of a template gets its own weights
        cnn = network(front_end, seed=seed)
        export_onnx(front_end, cnn, specification(front_end, SMALL), path, template=template)
        assert cnn.training
        assert Specification.from_onnx(path) == specification(front_end, SMALL)
        session = open_session(path)
        for count in (1, 2, 7):
            batch = windows()[:count]
            expected = reference(front_end, cnn, batch)
            assert np.isfinite(expected).all()
            assert parity(session, expected, batch).ok
            np.testing.assert_allclose(run_onnx(session, batch, batch_size=3), expected, atol=1e-4)
    assert [child.name for child in tmp_path.iterdir()] == ["model.onnx"]


def test_the_signature_and_opset_are_the_stated_ones(tmp_path: Path) -> None:
    front_end = Mfcc()
    export_onnx(front_end, network(front_end), specification(front_end, SMALL), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", export.OPSET)]
    session = open_session(tmp_path / "m.onnx")
    (given,), (result,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("waveform", "tensor(float)", ["batch", WINDOW_SAMPLES])
    assert (result.name, result.type, result.shape) == ("logits", "tensor(float)", ["batch", 2])
    assert not {"STFT", "DFT"} & {node.op_type for node in model.graph.node}  # no CUDA kernels


@pytest.mark.parametrize("template", [False, True], ids=["full", "template"])
def test_full_width_is_still_one_file(tmp_path: Path, template: bool) -> None:
    front_end, config = MfccDelta(), CnnConfig()
    cnn = network(front_end, config)
    export_onnx(front_end, cnn, specification(front_end, config), tmp_path / "m.onnx", template=template)
    assert [child.name for child in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").stat().st_size > 9_000_000
    read_onnx(tmp_path / "m.onnx")  # would refuse external data
    assert parity(open_session(tmp_path / "m.onnx"), reference(front_end, cnn, windows(3)), windows(3)).ok


def test_template_and_full_export_give_the_same_logits(tmp_path: Path) -> None:
    front_end = LogMel()
    cnn, stated = network(front_end, seed=3), specification(front_end, SMALL)
    export_onnx(front_end, cnn, stated, tmp_path / "full.onnx")
    export_onnx(front_end, cnn, stated, tmp_path / "filled.onnx", template=True)
    full, filled = (
        run_onnx(open_session(tmp_path / name), windows()) for name in ("full.onnx", "filled.onnx")
    )
    np.testing.assert_allclose(filled, full, rtol=1e-6, atol=1e-6)


def test_the_export_leaves_random_numbers_alone_and_traces_a_template_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_TEMPLATES", {})
    front_end = Mfcc(n_mfcc=20)
    cnn, stated = network(front_end), specification(front_end, SMALL)
    state = torch.get_rng_state()
    export_onnx(front_end, cnn, stated, tmp_path / "m.onnx", template=True)
    assert torch.equal(torch.get_rng_state(), state)
    first = (tmp_path / "m.onnx").read_bytes()
    monkeypatch.setattr(export, "_trace", lambda *_: pytest.fail("traced again"))
    export_onnx(front_end, cnn, stated, tmp_path / "m.onnx", template=True)
    assert (tmp_path / "m.onnx").read_bytes() == first
    config = SMALL.model_copy(update={"dropout": 0.5})  # not in the graph, so no new template
    export_onnx(
        front_end,
        build_network(config, 20),
        specification(front_end, config),
        tmp_path / "m.onnx",
        template=True,
    )


def test_a_filled_template_is_the_model_that_onnx_would_write(tmp_path: Path) -> None:
    front_end = LogMel()
    for seed in (0, 1):
        cnn, stated = network(front_end, seed=seed), specification(front_end, SMALL)
        export_onnx(front_end, cnn, stated, tmp_path / "m.onnx", template=True)
        model = read_onnx(tmp_path / "m.onnx")
        onnx.checker.check_model(model, full_check=True)
        assert model.SerializeToString() == (tmp_path / "m.onnx").read_bytes()
        assert {entry.key: entry.value for entry in model.metadata_props} == stated.to_metadata()
        stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for name, weight in cnn.fused_state().items():
            np.testing.assert_array_equal(stored[f"cnn.{name}"], weight.numpy())


def test_a_graph_is_cut_also_where_two_tensors_are_alike() -> None:
    twins = [onnx.numpy_helper.from_array(np.zeros(8, np.float32), name) for name in ("a", "b", "c")]
    graph = onnx.helper.make_graph([], "twins", [], [], initializer=twins)
    template = Template.cut(onnx.helper.make_model(graph), {"a", "c"})
    filled = template.filled({name: torch.full((8,), float(ord(name))) for name in "ac"}, {"k": "v"})
    model = onnx.ModelProto.FromString(b"".join(filled))
    found = {one.name: set(onnx.numpy_helper.to_array(one).tolist()) for one in model.graph.initializer}
    assert found == {"a": {97.0}, "b": {0.0}, "c": {99.0}}
    assert {one.key: one.value for one in model.metadata_props} == {"k": "v"}


def test_the_export_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    front_end = Mfcc()
    export_onnx(front_end, network(front_end), specification(front_end, SMALL), tmp_path / "m.onnx")
    open_session(tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "")


def test_a_network_that_is_not_the_specified_one_is_refused(tmp_path: Path) -> None:
    cnn, path = network(Mfcc()), tmp_path / "m.onnx"
    with pytest.raises(ExportError, match="front_end: the network has"):
        export_onnx(Mfcc(), cnn, specification(Mfcc(hop_length=128), SMALL), path)
    with pytest.raises(ExportError, match="architecture: the network has"):
        export_onnx(Mfcc(), cnn, specification(Mfcc(), CnnConfig(width=0.5)), path)
    with pytest.raises(ExportError, match="input rows: the network has 40, but 80"):
        export_onnx(LogMel(), cnn, specification(LogMel(), SMALL), path)
    with pytest.raises(ExportError, match="classes: the network has 3, but 2"):
        export_onnx(Mfcc(), build_network(SMALL, 40, 3), specification(Mfcc(), SMALL), path)
    assert not path.exists()


class BakedBatch(nn.Module):
    """The waveform as it is; its exportable twin keeps the example's batch."""

    def __init__(self, batch: int = -1) -> None:
        super().__init__()
        self.batch = batch

    def exportable(self) -> nn.Module:
        return BakedBatch(2)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        return waveform.reshape(self.batch, 1, WINDOW_SAMPLES)


def test_a_graph_with_a_baked_batch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cnn, stated = network(Waveform()), specification(Waveform(), SMALL)
    monkeypatch.setattr(export, "build_front_end", lambda _: BakedBatch())
    with pytest.raises(ExportError, match=r"free batch|does not run at batch 1"):
        export_onnx(Waveform(), cnn, stated, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_graph_that_differs_from_torch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    front_end = Mfcc()
    cnn, stated = network(front_end), specification(front_end, SMALL)
    other = network(front_end, seed=9).fused()
    monkeypatch.setattr(cnn, "fused", lambda: other)
    with pytest.raises(ExportError, match="logits differ from torch's by"):
        export_onnx(front_end, cnn, stated, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize("where", ["initializer", "constant", "subgraph"])
def test_external_data_is_refused_wherever_it_hides(tmp_path: Path, where: str) -> None:
    front_end, path = Mfcc(), tmp_path / "m.onnx"
    export_onnx(front_end, network(front_end), specification(front_end, SMALL), path)
    model = onnx.load(path)
    outside = onnx.TensorProto(name="stolen", data_type=onnx.TensorProto.FLOAT, dims=[1])
    outside.data_location = onnx.TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="../../etc/passwd")
    if where == "initializer":
        model.graph.initializer.append(outside)
    elif where == "constant":
        model.graph.node.append(onnx.helper.make_node("Constant", [], ["stolen"], value=outside))
    else:
        branch = onnx.helper.make_graph([], "branch", [], [], initializer=[outside])
        model.graph.node.append(
            onnx.helper.make_node("If", ["c"], ["d"], then_branch=branch, else_branch=branch)
        )
    path.write_bytes(model.SerializeToString())
    for read in (open_session, Specification.from_onnx):
        with pytest.raises(
            OnnxFileError, match=r"keeps (1|2) tensors in other files \('stolen' first\), which is refused"
        ):
            read(path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 64])
def test_files_that_are_no_models_are_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(OnnxFileError, match="no ONNX file at"):
        open_session(path)
    path.write_bytes(content)
    with pytest.raises(OnnxFileError, match="is not an ONNX model"):
        open_session(path)


def test_a_foreign_model_has_no_specification(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Identity", ["a"], ["b"])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "ab"]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", values[:1], values[1:]))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SpecificationError, match="not that of a model exported here"):
        Specification.from_onnx(tmp_path / "m.onnx")


def test_sessions_run_where_they_were_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    front_end, path = Mfcc(), tmp_path / "m.onnx"
    export_onnx(front_end, network(front_end), specification(front_end, SMALL), path)
    session = open_session(path)
    assert session.get_providers()[0] == "CPUExecutionProvider"
    assert session.get_session_options().intra_op_num_threads == 1
    with pytest.raises(ProviderError, match="unknown device 'tpu': give one of cpu, cuda"):
        open_session(path, "tpu")
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderError, match="has no CUDAExecutionProvider"):
        open_session(path, "cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here, so nothing falls back")
@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_silent_fall_back_to_cpu_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    front_end, path = Mfcc(), tmp_path / "m.onnx"
    export_onnx(front_end, network(front_end), specification(front_end, SMALL), path)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr("models.onnx_io.runtime._has_driver", lambda: False)
    with pytest.raises(ProviderError, match="no CUDA driver here, which CUDAExecutionProvider needs"):
        open_session(path, "cuda")
    monkeypatch.setattr("models.onnx_io.runtime._has_driver", lambda: True)
    with pytest.raises(ProviderError, match="fell back to CPUExecutionProvider"):
        open_session(path, "cuda")


def test_inputs_of_another_kind_are_refused_with_what_was_given(tmp_path: Path) -> None:
    front_end, path = Mfcc(), tmp_path / "m.onnx"
    export_onnx(front_end, network(front_end), specification(front_end, SMALL), path)
    session = open_session(path)
    with pytest.raises(ValueError, match=r"windows are int16 \(1, 48000\): give float32"):
        run_onnx(session, np.zeros((1, WINDOW_SAMPLES), np.int16))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(48000,\)"):
        run_onnx(session, np.zeros(WINDOW_SAMPLES, np.float32))
    assert run_onnx(session, windows()[:0]).shape == (0, 2)
    with pytest.raises(ValueError, match=r"the reference has \(3, 2\)"):
        parity(session, np.zeros((3, 2), np.float32), windows(2))


def test_parity_is_ok_only_when_everything_agrees() -> None:
    assert Parity(1e-5, True, 256).ok
    assert not Parity(2e-4, True, 256).ok
    assert not Parity(1e-5, False, 256).ok
    assert not Parity(float("nan"), True, 256).ok
    assert not Parity(0.0, True, 0).ok
