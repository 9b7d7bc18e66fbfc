"""`python -m tests.benchmarks.drawn_by_matplotlib`: whether `harness/training/outputs/drawing.py` is worth its lines; under a minute.

A worker draws three pictures a trial, by Pillow. Here two processes that have imported what a worker has draw the same,
one by Pillow and one by matplotlib's object interface, which it imports once; turn by turn, in CPU milliseconds,
PNG included, on a machine of two cores that rest:

                  import  a trial  a trial of 8  a trial of 30
    pillow          11.5     17.7          21.1           18.6
    matplotlib     270.1    104.0         139.8          116.3
    ratio           23.6      5.9           6.6            6.2

Both encode for 9 ms. matplotlib's time goes into the texts (some fifty, each laid out and drawn in Python) and the axes.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

ARMS = ("pillow", "matplotlib")
ROUNDS, TRIALS = 5, 30
TITLE, NAMES = "007 mfcc_delta learning_rate=0.003", ("same speaker", "other speaker")
COUNTS = {"train": (1200, 1180), "val": (240, 240), "test": (120, 130), "predicted, val": (260, 220)}


def drawer(arm: str, logits: Any, truth: Any) -> Callable[[], list[Any]]:
    """What draws a trial's pictures; its libraries are imported here."""
    if arm == "pillow":
        import harness.training.outputs.drawing  # noqa: F401  what figures.py imports when it first draws
        from harness.training.outputs.figures import confusion_figure, label_histogram_image, roc_figure

        return lambda: [
            label_histogram_image(*COUNTS.values(), title=TITLE, class_names=NAMES),
            roc_figure(logits, truth, TITLE),
            confusion_figure(logits, truth, NAMES, TITLE),
        ]
    from tests.benchmarks.baselines.matplotlib_figures import confusion, labels, roc

    return lambda: [
        labels(COUNTS, "predicted, val", TITLE, NAMES),
        roc(logits, truth, TITLE),
        confusion(logits, truth, NAMES, TITLE),
    ]


def draw(arm: str) -> list[float]:
    """CPU milliseconds of a fresh worker's import, then of each trial."""
    import numpy as np
    import torch

    import harness.training.stacking.trial_stack  # noqa: F401  what a worker has imported

    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, 480)
    logits = generator.normal(size=(480, 2)) + np.stack([1 - truth, truth], axis=1)
    began = time.process_time()
    pictures = drawer(arm, logits, truth)
    taken = [1e3 * (time.process_time() - began)]
    for _ in range(TRIALS):
        began = time.process_time()
        for picture in pictures():
            picture.save(io.BytesIO(), "png", compress_level=1)
        taken.append(1e3 * (time.process_time() - began))
    return taken


def main() -> None:
    """Measure both, and print a line of each and their ratios."""
    taken: dict[str, list[list[float]]] = {arm: [] for arm in ARMS}
    for arm in ARMS * ROUNDS:
        command = [sys.executable, "-m", "tests.benchmarks.drawn_by_matplotlib", arm]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        taken[arm].append(json.loads(said))
    ours, theirs = (_row(taken[arm]) for arm in ARMS)
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    print(f"{'':12}{'import':>8}{'a trial':>9}{'a trial of 8':>14}{'a trial of 30':>15}")
    for name, (imported, trial, of_8, of_30) in zip((*ARMS, "ratio"), (ours, theirs, ratios), strict=True):
        print(f"{name:12}{imported:8.1f}{trial:9.1f}{of_8:14.1f}{of_30:15.1f}")


def _row(rounds: list[list[float]]) -> list[float]:
    """Import, a warm trial, and a trial of a worker that draws 8 or 30, its import included."""
    of_8, of_30 = (median(sum(one[: trials + 1]) / trials for one in rounds) for trials in (8, 30))
    return [median(one[0] for one in rounds), median(median(one[2:]) for one in rounds), of_8, of_30]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(draw(sys.argv[1])))
    else:
        main()
