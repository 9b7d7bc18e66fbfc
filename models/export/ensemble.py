"""Several trained networks as one, (batch, sample) float32 -> (batch, class) logits.

::

    waveform --+-- front end 1 --+-- network 1 --- softmax --+
               |                 +-- network 2 --- softmax --+-- mean -- log
               +-- front end 2 ----- network 3 --- softmax --+

What is averaged are probabilities, and the logits are the logarithm of the mean::

    logits_c = log( 1/M sum_m softmax(logits_m)_c )

Every member's vote then lies in [0, 1]: with the mean of the logits, whose scale differs between front ends
and grows with the length of the training, the most confident member would decide alone. Softmax gives the
mean probability back, so that a threshold on it means what it meant for a member; its cross-entropy is never
above the mean of the members' (Jensen). This is the rule of deep ensembles (Lakshminarayanan, Pritzel &
Blundell 2017, NeurIPS). One member alone keeps its probabilities, and its logits up to a constant a window.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from models.export.export import ExportError, export_module
from models.export.specification import Specification
from models.front_ends.build import build_front_end
from models.front_ends.config import FrontEnd
from models.networks.cnn import FastDiarizationModel

Member = tuple[FrontEnd, FastDiarizationModel]


class Ensemble(nn.Module):
    """The mean of its members' probabilities; a front end that members share is computed once.

    ``exportable`` takes copies that a graph can be traced of: BatchNorms folded, the front ends' exportable twins.

    Raises
    ------
    ValueError
        There is no member.
    """

    def __init__(self, members: Sequence[Member], *, exportable: bool = False) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble has at least one member")
        distinct = {front_end.digest(): front_end for front_end, _ in members}
        built = [build_front_end(front_end) for front_end in distinct.values()]
        self.front_ends = nn.ModuleList([one.exportable() for one in built] if exportable else built)
        self.networks = nn.ModuleList([cnn.fused() if exportable else cnn for _, cnn in members])
        places = list(distinct)
        self.front_end_of = [places.index(front_end.digest()) for front_end, _ in members]

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Classify windows, (batch, sample) float32 in [-1, 1] -> (batch, class), logarithms of mean probabilities."""
        features = [front_end(waveform) for front_end in self.front_ends]
        votes = [
            network(features[place]).log_softmax(dim=1)
            for network, place in zip(self.networks, self.front_end_of, strict=True)
        ]
        return torch.stack(votes).logsumexp(dim=0) - math.log(len(votes))


def export_ensemble(members: Sequence[Member], specification: Specification, path: Path) -> None:
    """Write all members as one ONNX file of the same signature (see `export_module`).

    Raises
    ------
    ExportError
        If members and specification differ, or the graph breaks the contract.
    """
    built = [
        (front_end.model_dump(mode="json"), cnn.config.model_dump(mode="json")) for front_end, cnn in members
    ]
    stated = [(member.front_end, member.architecture) for member in specification.members]
    if built != stated:
        raise ExportError(f"members: the ensemble has {built}, but {stated} was stated for it")
    twins = [(front_end, copy.deepcopy(cnn).to("cpu", torch.float32)) for front_end, cnn in members]
    export_module(Ensemble(members, exportable=True), Ensemble(twins), specification, path)
