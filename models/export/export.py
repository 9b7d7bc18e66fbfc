"""From a trained network to one ONNX file, raw waveform in, logits out."""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from models.export.specification import Specification
from models.files import write_atomic
from models.front_ends.build import build_front_end
from models.front_ends.config import FrontEnd
from models.front_ends.embeddings import networks_in
from models.front_ends.features import FeatureExtractor
from models.networks.cnn import FastDiarizationModel
from models.networks.config import encoder_for
from models.onnx_io.compose import ExportError as ExportError
from models.onnx_io.compose import inline_networks
from models.onnx_io.files import read_onnx
from models.onnx_io.runtime import session_of
from models.onnx_io.session import PARITY_BOUND, parity
from models.onnx_io.template import Template

OPSET = 18
PRODUCER = "diarization-harness"
EXAMPLE_BATCH = 2  # an example of one window bakes batch = 1 into some graphs, silently
PROBE_BATCHES = (1, 3)  # run after the export, to prove that the batch is free


class Pipeline(nn.Module):
    """Front end and network, (batch, sample) float32 -> (batch, class) logits.

    Parameters of the network are called ``cnn.*`` here, and so in the exported graph.
    """

    def __init__(self, front_end: FeatureExtractor, cnn: nn.Module) -> None:
        super().__init__()
        self.front_end = front_end
        self.cnn = cnn

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Classify windows, (batch, sample) float32 in [-1, 1] -> (batch, class) logits."""
        logits: torch.Tensor = self.cnn(self.front_end(waveform))
        return logits


def export_onnx(
    front_end: FrontEnd,
    cnn: FastDiarizationModel,
    specification: Specification,
    path: Path,
    *,
    template: bool = False,
) -> None:
    """Write the whole pipeline, with its specification, to one file.

    The network is left as it is (mode, device); BatchNorms are folded into their convolutions. The graph
    is checked, has a free batch dimension, and repeats the torch pipeline's logits at other batch sizes.

    Parameters
    ----------
    template
        Trace the graph once in a process for each front end and architecture, then only put the weights
        in (some 5 ms): for the trials of a sweep. The graph is checked when it is traced.

    Raises
    ------
    ExportError
        If network and specification differ, or the graph breaks the contract.
    """
    _refuse_mismatch(front_end, cnn, specification)
    if template:
        graph = _template(front_end, cnn, specification)
        write_atomic(path, *graph.filled(_named_weights(cnn), specification.to_metadata()))
    else:
        twin = copy.deepcopy(cnn).to("cpu", torch.float32)
        export_module(
            _exportable(front_end, cnn), Pipeline(build_front_end(front_end), twin), specification, path
        )


def export_module(
    exportable: nn.Module, reference: nn.Module, specification: Specification, path: Path
) -> None:
    """Write a module, waveform (batch, sample) -> logits (batch, class), once its graph repeats `reference`.

    Both compute the same on the CPU; only `exportable` has to do so in operations that ONNX runtimes know.

    Raises
    ------
    ExportError
        If the graph breaks the contract.
    """
    model = _trace(exportable, specification)
    _check(model, reference, specification)
    _write(model, specification, path)


def _write(model: onnx.ModelProto, specification: Specification, path: Path) -> None:
    onnx.helper.set_model_props(model, specification.to_metadata())
    write_atomic(path, model.SerializeToString())


def _exportable(front_end: FrontEnd, cnn: FastDiarizationModel) -> Pipeline:
    """Make the pipeline that is traced: BatchNorms folded, no operation that an ONNX runtime lacks."""
    return Pipeline(build_front_end(front_end).exportable(), cnn.fused())


def _refuse_mismatch(front_end: FrontEnd, cnn: FastDiarizationModel, specification: Specification) -> None:
    built = {
        "front_end": (front_end.model_dump(mode="json"), specification.front_end),
        "architecture": (cnn.config.model_dump(mode="json"), specification.architecture),
        "input rows": (cnn.num_features, front_end.num_features),
        "encoder": (encoder_for(cnn.num_frames), encoder_for(front_end.num_frames())),
        "classes": (cnn.num_classes, len(specification.label_meaning)),
    }
    for what, (given, stated) in built.items():
        if given != stated:
            raise ExportError(f"{what}: the network has {given}, but {stated} was stated for it")


def _trace(exportable: nn.Module, specification: Specification) -> onnx.ModelProto:
    example = 0.1 * torch.randn(
        EXAMPLE_BATCH, specification.window_samples, generator=torch.Generator().manual_seed(0)
    )
    names = [specification.input_name, specification.output_name]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # The tracing exporter takes 0.3 s where the torch.export one takes 3 to 7, and keeps the names that
        # the template needs; this torch, the last with a matching torchaudio, announces its end.
        warnings.filterwarnings("ignore", "You are using the legacy TorchScript", DeprecationWarning)
        warnings.filterwarnings("ignore", "The feature will be removed", DeprecationWarning)
        traced = Path(folder) / "model.onnx"
        torch.onnx.export(
            exportable.eval(),
            (example,),
            traced,
            dynamo=False,
            opset_version=OPSET,
            do_constant_folding=False,  # nothing to fold: BatchNorms are, and runtimes fold shapes
            input_names=names[:1],
            output_names=names[1:],
            dynamic_axes={name: {0: "batch"} for name in names},
        )
        model = inline_networks(read_onnx(traced), networks_in(exportable))
    model.producer_name = PRODUCER
    return model


def _check(model: onnx.ModelProto, reference: nn.Module, specification: Specification) -> None:
    """Assert the contract on the graph, then by running it beside the torch module that trained."""
    onnx.checker.check_model(model, full_check=True)
    _refuse_signature(model, specification)
    try:
        session = session_of(model.SerializeToString())
    except Exception as error:  # onnxruntime has a dozen types under Exception
        raise ExportError(f"onnxruntime does not open the ONNX graph: {error}") from error
    windows = 0.1 * torch.randn(
        max(PROBE_BATCHES), specification.window_samples, generator=torch.Generator().manual_seed(1)
    )
    with torch.inference_mode():
        logits = reference.eval()(windows).numpy()
    for batch in PROBE_BATCHES:
        try:
            difference = parity(session, logits[:batch], windows[:batch].numpy()).max_abs_difference
        except Exception as error:  # onnxruntime has a dozen types under Exception
            raise ExportError(f"the ONNX graph does not run at batch {batch}: {error}") from error
        if not difference <= PARITY_BOUND:  # so written, NaN fails too
            raise ExportError(
                f"the ONNX graph's logits differ from torch's by {difference:.2g} at batch {batch}, "
                f"more than {PARITY_BOUND:g}"
            )


def _refuse_signature(model: onnx.ModelProto, specification: Specification) -> None:
    classes = len(specification.label_meaning)
    wanted = [
        (specification.input_name, specification.window_samples),
        (specification.output_name, classes),
    ]
    found = []
    for value in [*model.graph.input, *model.graph.output]:
        tensor = value.type.tensor_type
        batch, size = tensor.shape.dim
        if tensor.elem_type != onnx.TensorProto.FLOAT or batch.dim_param != "batch":
            raise ExportError(f"{value.name!r} of the ONNX graph is not float32 with a free batch dimension")
        found.append((value.name, size.dim_value))
    if found != wanted:
        raise ExportError(f"the ONNX graph has inputs and outputs {found}, not {wanted}")


_TEMPLATES: dict[tuple[object, ...], Template] = {}
MOST_TEMPLATES = 32


def _template(front_end: FrontEnd, cnn: FastDiarizationModel, specification: Specification) -> Template:
    """Give the template of a graph, traced at its first use in this process; the key is all that shapes a graph."""
    key = (
        front_end.digest(),
        cnn.config.channels(),  # not the whole configuration: dropout leaves the graph as it is
        cnn.config.kernel_size,
        cnn.num_classes,
        specification.input_name,
        specification.output_name,
    )
    if key not in _TEMPLATES:
        if len(_TEMPLATES) >= MOST_TEMPLATES:
            _TEMPLATES.clear()
        _TEMPLATES[key] = _make_template(front_end, cnn, specification)
    return _TEMPLATES[key]


def _make_template(front_end: FrontEnd, cnn: FastDiarizationModel, specification: Specification) -> Template:
    """Trace a network of random weights: equal tensors (zero biases) would be merged into one."""
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
        torch.manual_seed(0)
        stand_in = FastDiarizationModel(cnn.num_features, cnn.config, cnn.num_classes, cnn.num_frames).eval()
        for module in stand_in.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.bias, std=0.1)
    model = _trace(_exportable(front_end, stand_in), specification)
    _check(model, Pipeline(build_front_end(front_end), stand_in), specification)
    expected = {name: tuple(tensor.shape) for name, tensor in _named_weights(stand_in).items()}
    found = {t.name: tuple(t.dims) for t in model.graph.initializer if t.name.startswith("cnn.")}
    if found != expected:
        raise ExportError(f"the exporter renamed weights: {sorted(set(found) ^ set(expected))}")
    return Template.cut(model, expected)


def _named_weights(cnn: FastDiarizationModel) -> dict[str, torch.Tensor]:
    return {f"cnn.{name}": tensor for name, tensor in cnn.fused_state().items()}
