"""B12: one window from waveform to logits on one CPU thread, as a server would feel it.

::

    librosa   waveform -> librosa's MFCC and slopes -> numpy CMVN -> ONNX of the CNN alone -> logits
    graph     waveform -> one ONNX graph -> logits                        (int8: the same, its network in 8 bits)

All sessions have one thread and no spinning; all are of the same trained network and must give the same logits.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.export.export import OPSET, export_onnx
from models.export.quantize import export_int8
from models.front_ends.config import MfccDelta
from models.onnx_io.session import PARITY_BOUND, open_session
from models.window import SAMPLE_RATE
from tests.benchmarks.networks import WIDTH_1, stated
from tests.benchmarks.result import Result, judged
from tests.benchmarks.rounds import Arm, Reading, Rounds, cpu_of_tree, interleaved
from tests.benchmarks.scale import Scale
from tests.learned_network import learned, task

MIN_DEVIATION = 1e-2  # of the CMVN, as in models/front_ends/features.py
FRONT_END = MfccDelta()

Array = npt.NDArray[np.float32]
Answer = Callable[[Array], Array]  # one window (sample,) -> logits (class,)


def by_librosa(waveform: Array) -> Array:
    """Features (1, 80, 301) as librosa's documentation computes them, with this project's parameters."""
    import librosa

    cepstra = librosa.feature.mfcc(
        y=waveform, sr=SAMPLE_RATE, n_mfcc=FRONT_END.n_mfcc, n_fft=FRONT_END.n_fft,
        win_length=FRONT_END.win_length, hop_length=FRONT_END.hop_length, n_mels=FRONT_END.n_mels, pad_mode="constant",
    )  # fmt: skip
    rows = np.concatenate(
        [cepstra, librosa.feature.delta(cepstra, width=FRONT_END.delta_width, mode="nearest")]
    )
    centred = rows - rows.mean(axis=1, keepdims=True)
    scaled = centred / np.maximum(centred.std(axis=1, keepdims=True), MIN_DEVIATION)
    return np.asarray(scaled[None], dtype=np.float32)


def arms_in(place: Path, steps: int) -> dict[str, Answer]:
    """Train one small while, export it three ways, and open each on one thread."""
    torch.set_num_threads(1)
    cnn = learned(FRONT_END, WIDTH_1, steps)
    graph, alone, int8 = (place / f"{name}.onnx" for name in ("graph", "cnn", "int8"))
    export_onnx(FRONT_END, cnn, stated(FRONT_END), graph)
    export_int8(graph, task(32, 0)[0], int8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            cnn.fused(), (torch.zeros(2, FRONT_END.num_features, FRONT_END.num_frames()),), alone, dynamo=False,
            opset_version=OPSET, input_names=["features"], output_names=["logits"],
            dynamic_axes={"features": {0: "batch"}, "logits": {0: "batch"}},
        )  # fmt: skip

    def answering(path: Path) -> Answer:
        session: Any = open_session(path)
        name = session.get_inputs()[0].name
        return lambda batch: session.run(None, {name: batch})[0][0]

    whole, small, network = answering(graph), answering(int8), answering(alone)
    return {
        "librosa": lambda window: network(by_librosa(window)),
        "graph": lambda window: whole(window[None]),
        "int8": lambda window: small(window[None]),
    }


def compared(answers: dict[str, Answer], windows: Array) -> dict[str, float]:
    """Hold the arms' logits against each other; a ratio between different answers would mean nothing."""
    logits = {name: np.stack([answer(window) for window in windows]) for name, answer in answers.items()}
    difference = float(np.abs(logits["librosa"] - logits["graph"]).max())
    if not difference <= PARITY_BOUND:
        raise RuntimeError(
            f"librosa and the graph differ by {difference:.2g} in logits, more than {PARITY_BOUND:g}"
        )
    same = logits["int8"].argmax(axis=1) == logits["graph"].argmax(axis=1)
    return {
        "difference": difference,
        "int8_difference": float(np.abs(logits["int8"] - logits["graph"]).max()),
        "int8_same_class": float(same.mean()),
    }


def timed(answer: Answer, windows: Array, calls: int) -> Arm:
    """Call one by one, a different window each time; details are the percentiles in ms."""

    def once() -> Reading:
        cpu_before, before = cpu_of_tree(), time.perf_counter()
        times = []
        for i in range(calls):
            start = time.perf_counter()
            answer(windows[i % len(windows)])
            times.append(time.perf_counter() - start)
        wall_s = time.perf_counter() - before
        p50, p99 = (1000 * float(np.percentile(times, q)) for q in (50, 99))
        return Reading(wall_s, cpu_of_tree() - cpu_before, {"p50_ms": p50, "p99_ms": p99})

    return once


def p50(one: Reading) -> float:
    """Half of the calls took no longer, ms."""
    return one.details["p50_ms"]


def p99(one: Reading) -> float:
    """All but one call in a hundred took no longer, ms."""
    return one.details["p99_ms"]


def run(scale: Scale, place: Path) -> list[Result]:
    """Three rows: the graph's P99, librosa's over it, and int8's."""
    answers = arms_in(place, scale.of(40, 4))
    windows = task(64, 1)[0]
    agreement = compared(answers, windows[: scale.of(64, 8)])
    calls = scale.of(300, 50)
    rounds = interleaved(
        {name: timed(answer, windows, calls) for name, answer in answers.items()}, scale.rounds
    )
    return _rows(rounds, agreement, (f"{calls} calls a run", *rounds.notes, *scale.notes))


def _rows(rounds: Rounds, agreement: dict[str, float], notes: tuple[str, ...]) -> list[Result]:
    details = agreement | {f"{arm}_p50_ms": rounds.median(arm, p50) for arm in rounds.readings}
    details |= {f"{arm}_p99_ms": rounds.median(arm, p99) for arm in rounds.readings}
    at_p50 = rounds.ratio("librosa", "graph", p50)
    return [
        judged(
            "B12", "P99, batch 1, waveform to logits, one CPU thread", rounds.estimate("graph", p99),
            unit="ms", target="<= 5", details=details,
            notes=(f"mfcc_delta, width 1; P50 {details['graph_p50_ms']:.2f} ms", *notes),
        ),
        judged(
            "B12 librosa", "P99 of librosa + ONNX of the CNN / P99 of one graph", rounds.ratio("librosa", "graph", p99),
            unit="x", target=">= 1.7",
            notes=(
                f"at P50 {at_p50.value:.2f}x ({details['librosa_p50_ms']:.2f} ms for librosa)",
                f"logits within {agreement['difference']:.1g}",
            ),
            details={"p50_ratio": at_p50.value, "p50_interval": [at_p50.low, at_p50.high]},
        ),
        judged(
            "B12 int8", "P99 with the network in 8 bits", rounds.estimate("int8", p99), unit="ms", beyond="2",
            notes=(
                f"P50 {details['int8_p50_ms']:.2f} ms; the same class in {agreement['int8_same_class']:.1%} of windows, "
                f"logits within {agreement['int8_difference']:.1g}",
            ),
        ),
    ]  # fmt: skip
