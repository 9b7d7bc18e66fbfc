"""Foreign speaker embeddings: opened, refused, computed, and composed into one ONNX file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch
import torchaudio
from torch import nn

from models.export import export
from models.export.export import ExportError, Pipeline, export_onnx
from models.export.specification import Specification
from models.front_ends.build import build_front_end, why_unavailable
from models.front_ends.config import XVector
from models.front_ends.embeddings import EmbeddingError, EmbeddingFeatures, open_network
from models.front_ends.kaldi_fbank import RECIPES
from models.networks.cnn import FastDiarizationModel, build_network
from models.networks.config import CnnConfig
from models.onnx_io.files import OnnxFileError, read_onnx
from models.onnx_io.session import PARITY_BOUND, open_session, run_onnx

SMALL = CnnConfig(width=0.0625)


@pytest.fixture(scope="session")
def net(root: Path) -> Iterator[ModuleType]:
    """The helpers that make the small embedding network."""
    sys.path.insert(0, str(root / "tests"))
    import embedding_network

    yield embedding_network
    sys.path.remove(str(root / "tests"))


@pytest.fixture(scope="session")
def network(net: ModuleType) -> nn.Module:
    return net.trained()


@pytest.fixture
def exported(net: ModuleType, network: nn.Module, tmp_path: Path) -> dict[str, str]:
    """Fields of a front end whose file is there."""
    path = tmp_path / "speaker.onnx"
    return {"path": str(path), "sha256": net.export(network, path), "dim": net.DIM}


def specification(front_end: XVector, config: CnnConfig = SMALL) -> Specification:
    return Specification(
        task="pseudo", variant="seen", label_meaning={"0": "a", "1": "b"}, front_end=front_end.model_dump(),
        architecture=config.model_dump(), label_map_digest="d", manifest_digests={}, fingerprint="f", run_id="r",
        versions={}, created="2025-01-31T12:00:00+00:00",
    )  # fmt: skip


def head(front_end: XVector, waveforms: np.ndarray, config: CnnConfig = SMALL) -> FastDiarizationModel:
    """A network whose BatchNorms have seen these windows."""
    torch.manual_seed(0)
    cnn = build_network(config, front_end.num_features, num_frames=front_end.num_frames())
    features = build_front_end(front_end)(torch.from_numpy(waveforms))
    for layer in cnn.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the plain mean: one pass will do
    cnn(features)
    return cnn.eval()


def logits(front_end: XVector, cnn: FastDiarizationModel, waveforms: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(
            Pipeline(build_front_end(front_end), cnn).eval()(torch.from_numpy(waveforms)).numpy()
        )


@pytest.mark.parametrize("windows", ["sliding", "whole"])
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_embeddings_are_those_of_each_window_cut_by_hand(
    exported: dict[str, str], net: ModuleType, network: nn.Module, recipe: str, windows: str
) -> None:
    front_end = XVector(**exported, recipe=recipe, windows=windows)
    waveforms = net.voices(3)[0]
    features = build_front_end(front_end)(torch.from_numpy(waveforms))
    assert features.shape == (3, front_end.num_features, front_end.num_frames())
    length = 24_000 if windows == "sliding" else 48_000
    for index in range(front_end.num_frames()):
        piece = waveforms[1, 4_000 * index : 4_000 * index + length] * np.float32(RECIPES[recipe].scale)
        feats = torchaudio.compliance.kaldi.fbank(
            torch.from_numpy(piece)[None], num_mel_bins=80, dither=0.0, window_type=RECIPES[recipe].window
        )
        with torch.inference_mode():
            expected = network((feats - feats.mean(dim=0))[None])[0]
        torch.testing.assert_close(features[1, :, index], expected, rtol=1e-3, atol=1e-3)


def test_sliding_embeddings_tell_the_trained_voices_apart(exported: dict[str, str], net: ModuleType) -> None:
    waveforms, speakers = net.voices(16, seed=5)
    middle = build_front_end(XVector(**exported))(torch.from_numpy(waveforms))[:, :, 3]
    unit = nn.functional.normalize(middle - middle.mean(dim=0), dim=1)
    same = torch.from_numpy(speakers[:, None] == speakers[None])
    alike = unit @ unit.T
    assert alike[same].mean() > alike[~same].mean() + 0.5


@pytest.mark.parametrize("windows", ["sliding", "whole"])
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_one_onnx_file_repeats_the_training_path(
    exported: dict[str, str], net: ModuleType, tmp_path: Path, recipe: str, windows: str
) -> None:
    front_end, path = XVector(**exported, recipe=recipe, windows=windows), tmp_path / "model.onnx"
    waveforms = np.concatenate([net.voices(4)[0], np.zeros((1, 48_000), np.float32)])
    cnn = head(front_end, waveforms)
    expected = logits(front_end, cnn, waveforms)
    for template in (False, True):
        export_onnx(front_end, cnn, specification(front_end), path, template=template)
        model = read_onnx(path)  # would refuse external data
        onnx.checker.check_model(model, full_check=True)
        assert {node.domain for node in model.graph.node} == {""}
        assert [(one.domain, one.version) for one in model.opset_import] == [("", export.OPSET)]
        session = open_session(path)
        assert [(one.name, one.shape) for one in session.get_inputs()] == [("waveform", ["batch", 48_000])]
        assert [(one.name, one.shape) for one in session.get_outputs()] == [("logits", ["batch", 2])]
        for batch in (1, 3, 5):
            assert np.abs(run_onnx(session, waveforms, batch) - expected).max() <= PARITY_BOUND


@pytest.mark.needs_corpora
@pytest.mark.parametrize("windows", ["sliding", "whole"])
def test_parity_holds_on_real_speech(
    exported: dict[str, str], tmp_path: Path, real_speech: np.ndarray, windows: str
) -> None:
    front_end = XVector(**exported, windows=windows)
    cnn = head(front_end, real_speech)
    export_onnx(front_end, cnn, specification(front_end), tmp_path / "model.onnx")
    difference = run_onnx(open_session(tmp_path / "model.onnx"), real_speech) - logits(
        front_end, cnn, real_speech
    )
    assert np.abs(difference).max() <= PARITY_BOUND


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_networks_of_other_opsets_are_brought_to_ours(
    net: ModuleType, network: nn.Module, tmp_path: Path, opset: int
) -> None:
    sha256 = net.export(network, tmp_path / "e.onnx", opset=opset)
    assert [one.version for one in onnx.load(tmp_path / "e.onnx").opset_import] == [opset]
    front_end = XVector(path=str(tmp_path / "e.onnx"), sha256=sha256, dim=net.DIM, windows="whole")
    export_onnx(
        front_end, head(front_end, net.voices(4)[0]), specification(front_end), tmp_path / "model.onnx"
    )
    assert [one.version for one in onnx.load(tmp_path / "model.onnx").opset_import] == [export.OPSET]


def test_a_network_for_one_window_at_a_time_embeds_and_cannot_be_exported(
    net: ModuleType, network: nn.Module, tmp_path: Path
) -> None:
    sha256 = net.export(network, tmp_path / "one.onnx", batch=False)
    front_end = XVector(path=str(tmp_path / "one.onnx"), sha256=sha256, dim=net.DIM)
    assert why_unavailable(front_end) is None
    assert not open_network(front_end).batched
    waveforms = net.voices(3)[0]
    cnn = head(front_end, waveforms)
    assert logits(front_end, cnn, waveforms).shape == (3, 2)
    with pytest.raises(
        ExportError, match=r"takes one window at a time .*: export it with a free batch dimension"
    ):
        export_onnx(front_end, cnn, specification(front_end), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_an_operation_nobody_knows_cannot_be_converted(
    exported: dict[str, str], net: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    front_end = XVector(**exported, windows="whole")
    cnn = head(front_end, net.voices(4)[0])
    built = EmbeddingFeatures.exportable

    def spoilt(self: EmbeddingFeatures) -> nn.Module:
        module = built(self)
        module.network.model.graph.node[0].op_type = "NoSuchOperation"
        return module

    monkeypatch.setattr(EmbeddingFeatures, "exportable", spoilt)
    with pytest.raises(ExportError, match=r"cannot be brought from opset 14 to 18|is not valid"):
        export_onnx(front_end, cnn, specification(front_end), tmp_path / "model.onnx")


def test_missing_altered_and_damaged_files_say_what_to_do(
    exported: dict[str, str], net: ModuleType, tmp_path: Path
) -> None:
    path = Path(exported["path"])
    assert why_unavailable(XVector(**exported)) is None
    absent = XVector(**{**exported, "path": str(tmp_path / "absent.onnx")})
    assert "no embedding file at" in str(why_unavailable(absent))
    content = path.read_bytes()
    path.write_bytes(content + b"\0")
    changed = str(why_unavailable(XVector(**exported)))
    assert net.sha256(path) in changed
    assert exported["sha256"] in changed
    assert "Restore it, or correct xvector.sha256" in changed
    with pytest.raises(EmbeddingError, match="another file than the stated one"):
        build_front_end(XVector(**exported))
    path.write_bytes(b"no network at all")
    damaged = XVector(**{**exported, "sha256": net.sha256(path)})
    assert "is not an ONNX model" in str(why_unavailable(damaged))


def test_networks_of_another_shape_are_refused_with_what_was_found(
    net: ModuleType, network: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "e.onnx"

    def problem(dim: int = net.DIM, **how: object) -> str:
        return str(why_unavailable(XVector(path=str(path), sha256=net.export(network, path, **how), dim=dim)))

    assert problem(dim=192).endswith("xvector.dim is 192: wanted (1, 192); set xvector.dim: 32")
    assert "takes x and gives embedding: wanted feats" in problem(names=("x", "embedding"))
    net.export(network, path)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 200
    onnx.save(model, path)
    fixed = XVector(path=str(path), sha256=net.sha256(path), dim=net.DIM)
    assert "takes exactly 200 frames, these windows have 148" in str(why_unavailable(fixed))
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 60
    onnx.save(model, path)
    narrow = XVector(path=str(path), sha256=net.sha256(path), dim=net.DIM)
    assert "wanted float32 (batch, frame, 80)" in str(why_unavailable(narrow))


def test_data_in_other_files_is_refused(exported: dict[str, str], net: ModuleType) -> None:
    front_end = XVector(**{**exported, "sha256": net.outside(Path(exported["path"]))})
    assert "in other files" in str(why_unavailable(front_end))
    with pytest.raises(OnnxFileError, match="save it as one file"):
        build_front_end(front_end)


@pytest.mark.parametrize("sha256", ["", "abc", 64 * "g", 64 * "A", 65 * "0"])
def test_a_digest_is_64_hex_digits(sha256: str) -> None:
    with pytest.raises(ValueError, match="is not 64 hex digits in small letters: see `sha256sum FILE`"):
        XVector(path="e.onnx", sha256=sha256)


def test_an_encoder_for_other_frames_is_refused(exported: dict[str, str], tmp_path: Path) -> None:
    front_end = XVector(**exported)
    with pytest.raises(ExportError, match="encoder: the network has pooling, but pooling-free was stated"):
        export_onnx(
            front_end, build_network(SMALL, front_end.dim), specification(front_end), tmp_path / "m.onnx"
        )
