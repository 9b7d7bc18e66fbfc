"""Speaker embeddings from somebody else's network, run by onnxruntime.

The network takes ``feats`` (batch, frame, 80) float32 and gives ``embs`` (batch, D) float32. One window::

    48000 samples
      | fbank (see models.front_ends.kaldi_fbank)                         (298, 80)
      | whole: 298 frames; sliding: 148 frames at every 25th   (1 or 7, 148 or 298, 80)
      | minus the mean of each band over those frames
      | network                                                (1 or 7, D)
    (D, 1 or 7)
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.errors import ModelError, one_line
from models.front_ends.config import XVector
from models.front_ends.features import FeatureExtractor
from models.front_ends.kaldi_fbank import BANDS, FRAME_SHIFT, KaldiFbank, library_fbank, num_fbank_frames
from models.onnx_io.compose import DOMAIN, OPERATION, ExportError
from models.onnx_io.files import parse_onnx
from models.onnx_io.runtime import session_of
from models.window import EMBEDDING_SAMPLES, EMBEDDING_SHIFT, WINDOW_SAMPLES

if TYPE_CHECKING:
    import onnx
    import onnxruntime

INPUT, OUTPUT = "feats", "embs"
BATCH = 64  # windows embedded at once
PROBE_BATCH = 3
PROBE_BOUND = 1e-3  # between an embedding computed alone and among others, relative to the largest


class EmbeddingError(ModelError):
    """An embedding file that is missing, altered, or no network of the stated shape."""


@dataclass(frozen=True)
class EmbeddingNetwork:
    """An opened file: its graph, a session, and whether several windows may go in at once."""

    model: onnx.ModelProto
    session: onnxruntime.InferenceSession
    batched: bool

    def embed(self, feats: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Embed filter banks, (window, frame, 80) float32 -> (window, D) float32, 64 at once or one by one."""
        size = BATCH if self.batched else 1
        parts = [
            self.session.run([OUTPUT], {INPUT: feats[i : i + size]})[0] for i in range(0, len(feats), size)
        ]
        return np.concatenate(parts)


def open_network(front_end: XVector) -> EmbeddingNetwork:
    """Open the file that a front end names, and compute an embedding with it.

    Raises
    ------
    EmbeddingError
        It is missing, has another sha256, cannot be run, or has other inputs and outputs.
    OnnxFileError
        It is no ONNX model, or keeps data in other files.
    """
    path = Path(front_end.path).expanduser()
    content = _read(path, front_end.sha256)
    model = parse_onnx(content, str(path))
    try:
        session = session_of(content)
    except Exception as error:  # onnxruntime has a dozen types under Exception
        raise EmbeddingError(f"{path} cannot be opened by onnxruntime: {one_line(error)[:300]}") from error
    frames = embedding_frames(front_end)
    _refuse_signature(session, path, frames)
    network = EmbeddingNetwork(model, session, batched=False)
    feats = np.random.default_rng(0).normal(size=(PROBE_BATCH, frames, BANDS)).astype(np.float32)
    try:
        alone = network.embed(feats)
    except Exception as error:
        raise EmbeddingError(f"{path} does not run on {frames} frames: {one_line(error)[:300]}") from error
    if alone.shape != (PROBE_BATCH, front_end.dim):
        raise EmbeddingError(
            f"{path} gives {OUTPUT} of shape {alone[:1].shape} for one window, but xvector.dim is "
            f"{front_end.dim}: wanted (1, {front_end.dim})"
            + (f"; set xvector.dim: {alone.shape[1]}" if alone.ndim == 2 else "")
        )
    if not np.isfinite(alone).all():
        raise EmbeddingError(f"{path} gives {OUTPUT} that are not finite: the file is damaged")
    return EmbeddingNetwork(model, session, _takes_batches(session, feats, alone))


def _read(path: Path, sha256: str) -> bytes:
    if not path.is_file():
        raise EmbeddingError(
            f"no embedding file at {path} (looked for in {Path.cwd()}): put it there, or correct xvector.path"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EmbeddingError(f"{path} cannot be read: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise EmbeddingError(
            f"{path} is another file than the stated one: sha256 {found}, stated {sha256}. "
            "Restore it, or correct xvector.sha256"
        )
    return content


def _refuse_signature(session: onnxruntime.InferenceSession, path: Path, frames: int) -> None:
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name: value for value in session.get_outputs()}
    if list(inputs) != [INPUT] or OUTPUT not in outputs:
        raise EmbeddingError(
            f"{path} takes {', '.join(inputs)} and gives {', '.join(outputs)}: wanted {INPUT} "
            f"(batch, frame, {BANDS}) and {OUTPUT} (batch, D). Export it with these names"
        )
    shape, kind = inputs[INPUT].shape, inputs[INPUT].type
    fits = len(shape) == 3 and (shape[2] == BANDS or not isinstance(shape[2], int))
    if kind != "tensor(float)" or not fits:
        raise EmbeddingError(
            f"{INPUT} of {path} is {kind} {shape}: wanted float32 (batch, frame, {BANDS}), a Kaldi filter bank"
        )
    if isinstance(shape[1], int) and shape[1] != frames:
        raise EmbeddingError(
            f"{path} takes exactly {shape[1]} frames, these windows have {frames}: "
            "export it with a free time axis, or set xvector.windows"
        )


def _takes_batches(session: Any, feats: npt.NDArray[np.float32], alone: npt.NDArray[np.float32]) -> bool:
    """Whether windows keep their embeddings in company: some graphs are exported for one window only."""
    try:
        together = session.run([OUTPUT], {INPUT: feats})[0]
    except Exception:
        return False
    bound = PROBE_BOUND * float(np.abs(alone).max())
    return together.shape == alone.shape and bool(np.abs(together - alone).max() <= bound)


def embedding_frames(front_end: XVector) -> int:
    """Count the filter bank's frames (10 ms) under one embedding: 148 for a sliding 1.5 s, 298 for the whole 3 s."""
    return num_fbank_frames(EMBEDDING_SAMPLES if front_end.windows == "sliding" else WINDOW_SAMPLES)


def cut(fbank: torch.Tensor, front_end: XVector) -> torch.Tensor:
    """Cut filter banks and take each cut's mean away, (batch, 298, 80) -> (batch * window, frame, 80).

    The mean over frames of each band's logarithm is the gain of the channel there: the networks expect it gone
    (mean normalisation), from the very stretch that an embedding is of.
    """
    frames, shift = embedding_frames(front_end), EMBEDDING_SHIFT // FRAME_SHIFT
    starts = [shift * window for window in range(front_end.num_frames())]
    cuts = torch.stack([fbank[:, start : start + frames] for start in starts], dim=1)
    windows = cuts.reshape(-1, frames, BANDS)
    return windows - windows.mean(dim=1, keepdim=True)


class EmbeddingFeatures(FeatureExtractor):
    """(batch, sample) -> (batch, D, window), computed outside torch: no gradient passes.

    Raises
    ------
    EmbeddingError, OnnxFileError
        The file is missing, altered, no ONNX model, or a network of another shape (see `open_network`).
    """

    def __init__(self, front_end: XVector) -> None:
        super().__init__()
        self.config = front_end
        self.network = open_network(front_end)

    @classmethod
    def why_unavailable(cls, config: XVector) -> str | None:
        """Open the file and compute an embedding; say what went wrong, None where nothing did."""
        try:
            open_network(config)
        except ValueError as error:
            return str(error)
        return None

    def exportable(self) -> FeatureExtractor:
        """Give the same as a module that can be traced: the filter bank in torch, the network as one node of the graph.

        Raises
        ------
        ExportError
            The network embeds one window at a time only.
        """
        if not self.network.batched:
            raise ExportError(
                f"the embedding network {self.config.path} takes one window at a time (its batch dimension is "
                "fixed), so it cannot stand in a graph of any batch: export it with a free batch dimension"
            )
        return ExportableEmbeddings(self.config, self.network)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Embed windows on the CPU and bring the result to their device, (batch, sample) -> (batch, D, window)."""
        samples = waveforms.detach().to("cpu", torch.float32).numpy()
        fbank = torch.from_numpy(np.stack([library_fbank(one, self.config.recipe) for one in samples]))
        embeddings = torch.from_numpy(self.network.embed(cut(fbank, self.config).numpy()))
        rows = embeddings.reshape(len(samples), -1, self.config.dim).transpose(1, 2).contiguous()
        return rows.to(waveforms.device)


class ExportableEmbeddings(FeatureExtractor):
    """The same for tracing: the filter bank in torch, the network as a placeholder node."""

    def __init__(self, front_end: XVector, network: EmbeddingNetwork) -> None:
        super().__init__()
        self.config = front_end
        self.network = network
        self.fbank = KaldiFbank(front_end.recipe)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Embed windows on the CPU, (batch, sample) -> (batch, D, window)."""
        feats = cut(self.fbank(waveforms), self.config)
        embeddings: torch.Tensor = _Placeholder.apply(feats, self.network, self.config)  # type: ignore[no-untyped-call]
        return embeddings.reshape(-1, self.config.num_frames(), self.config.dim).transpose(1, 2)


class _Placeholder(torch.autograd.Function):
    """Runs the network; an exported graph gets a node that `inline_networks` replaces."""

    @staticmethod
    def forward(ctx: Any, feats: torch.Tensor, network: EmbeddingNetwork, front_end: XVector) -> torch.Tensor:
        del ctx, front_end
        with warnings.catch_warnings():
            # numpy is left untraced on purpose: the placeholder stands for what happens in between.
            warnings.simplefilter("ignore")
            return torch.from_numpy(network.embed(feats.detach().numpy()))

    @staticmethod
    def symbolic(g: Any, feats: Any, network: EmbeddingNetwork, front_end: XVector) -> Any:
        del network
        node = g.op(f"{DOMAIN}::{OPERATION}", feats, sha256_s=front_end.sha256, output_s=OUTPUT)
        node.setType(feats.type().with_sizes([None, front_end.dim]))
        return node


def networks_in(module: nn.Module) -> dict[str, onnx.ModelProto]:
    """Find the networks behind a module's placeholders, sha256 of the file -> graph: what `inline_networks` puts in."""
    return {
        part.config.sha256: part.network.model
        for part in module.modules()
        if isinstance(part, ExportableEmbeddings)
    }
