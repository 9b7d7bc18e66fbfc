"""B13: the ONNX file of a trial, by a full export and by putting weights into a template.

Full is what `torch.onnx.export` does as it comes (torch.export, "dynamo"), one file of the whole pipeline, unchecked.
Traced is this project's own full export, which the winner of a study gets: the tracing exporter, then every check.
Each export is of other weights; the files of all three must give the same logits.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from models.export.export import OPSET, Pipeline, export_onnx
from models.front_ends.build import build_front_end
from models.front_ends.config import FrontEnd, MfccDelta
from models.networks.cnn import FastDiarizationModel
from models.onnx_io.session import PARITY_BOUND, open_session, run_onnx
from tests.benchmarks.networks import network, noise, stated
from tests.benchmarks.result import Result, judged
from tests.benchmarks.rounds import Reading, interleaved, measured
from tests.benchmarks.scale import Scale

FRONT_END = MfccDelta()
NETWORKS = 4  # different weights, in turn

Export = Callable[[FastDiarizationModel, Path], None]


def by_dynamo(cnn: FastDiarizationModel, path: Path, front_end: FrontEnd = FRONT_END) -> None:
    """Export the whole pipeline as torch's documentation does, with a free batch."""
    pipeline = Pipeline(
        build_front_end(front_end).exportable(), cnn
    ).eval()  # the DFT as convolution: as in the other arms
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            pipeline, (torch.zeros(2, 48_000),), path, dynamo=True, opset_version=OPSET, external_data=False,
            input_names=["waveform"], output_names=["logits"], dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )  # fmt: skip


def traced(cnn: FastDiarizationModel, path: Path) -> None:
    """This project's full export, checks included."""
    export_onnx(FRONT_END, cnn, stated(FRONT_END), path)


def swapped(cnn: FastDiarizationModel, path: Path) -> None:
    """This project's export of a trial."""
    export_onnx(FRONT_END, cnn, stated(FRONT_END), path, template=True)


ARMS: dict[str, Export] = {"dynamo": by_dynamo, "traced": traced, "swapped": swapped}


def same_logits(cnn: FastDiarizationModel, place: Path) -> float:
    """Export one network every way; the largest difference in logits, which must be within the parity bound."""
    windows = noise(5)
    logits = {}
    for name, export in ARMS.items():
        export(cnn, place / f"{name}.onnx")
        logits[name] = run_onnx(open_session(place / f"{name}.onnx"), windows)
    difference = max(float(np.abs(other - logits["traced"]).max()) for other in logits.values())
    if not difference <= PARITY_BOUND:
        raise RuntimeError(f"the exports differ by {difference:.2g} in logits, more than {PARITY_BOUND:g}")
    return difference


def run(scale: Scale, place: Path) -> list[Result]:
    """Two rows: torch's own exporter over a swap, and this project's full export over a swap."""
    torch.set_num_threads(1)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    networks = [network(FRONT_END, seed) for seed in range(NETWORKS)]
    difference = same_logits(networks[0], place)  # makes the template, too

    def exporting(name: str, times: int) -> Reading:
        def repeat() -> Mapping[str, float]:
            for i in range(times):
                ARMS[name](networks[i % NETWORKS], place / f"{name}.onnx")
            return {"exports": times}

        return measured(repeat)

    arms = {
        "dynamo": lambda: exporting("dynamo", 1),
        "traced": lambda: exporting("traced", scale.of(4, 1)),
        "swapped": lambda: exporting("swapped", scale.of(40, 4)),
    }
    rounds = interleaved(arms, scale.rounds)

    def wall_each(one: Reading) -> float:
        return one.wall_s / one.details["exports"]

    def cpu_each(one: Reading) -> float:
        return one.cpu_s / one.details["exports"]

    details = {f"{arm}_ms": 1000 * rounds.median(arm, wall_each) for arm in arms}
    details |= {f"{arm}_cpu_ms": 1000 * rounds.median(arm, cpu_each) for arm in arms}
    details |= {"difference": difference, "cpu_ratio": rounds.ratio("dynamo", "swapped", cpu_each).value}
    return [
        judged(
            "B13", "full export, as `torch.onnx.export` comes / template swap",
            rounds.ratio("dynamo", "swapped", wall_each), unit="x", target=">= 50", details=details,
            notes=(
                f"{details['dynamo_ms']:.0f} ms against {details['swapped_ms']:.1f} ms; "
                f"logits within {difference:.1g}",
                f"in CPU time {details['cpu_ratio']:.0f}x",
                *rounds.notes, *scale.notes,
            ),
        ),
        judged(
            "B13 traced", "this project's own full export, with its checks / template swap",
            rounds.ratio("traced", "swapped", wall_each), unit="x",
            notes=(f"{details['traced_ms']:.0f} ms against {details['swapped_ms']:.1f} ms",),
        ),
    ]  # fmt: skip
