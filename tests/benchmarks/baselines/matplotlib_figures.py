"""The three pictures of `harness.training.outputs.figures` by matplotlib's own objects, without pyplot: the same bars, lines and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from harness.metrics.classification import binary_metrics, roc_points
from harness.training.outputs.figures import CLASS_COLOURS, LABELS_SIZE, SQUARE_SIZE

DPI = 100
INK, FAINT, SHADE, AMBER = "#222222", "#8A8A8A", "#F1F1F1", "#9A6A00"
DASHED = (0, (4.0, 3.2))
SHADES = LinearSegmentedColormap.from_list("share", ["#F4F9FE", "#0E61AB"])
QUARTERS = ((0, 0.25, 0.5, 0.75, 1), ("0", ".25", ".5", ".75", "1"))
FIFTHS = (tuple(fifth / 5 for fifth in range(6)), tuple(f"{fifth / 5:.1f}" for fifth in range(6)))


def labels(
    counts: Mapping[str, Sequence[int]], predicted: str, title: str, names: Sequence[str]
) -> Image.Image:
    """Shares of the classes; `counts` of each group, of which `predicted` is hatched."""
    figure, axes = _sheet(LABELS_SIZE, (53, 69, 468, 252), (-0.5, 3.5), (0, 1))
    axes.axvspan(2.5, 3.5, color=SHADE, linewidth=0)
    axes.axhline(0.5, color=FAINT, linewidth=_points(1.4), linestyle=DASHED, zorder=1)
    for position, (group, windows) in enumerate(counts.items()):
        for label, count in enumerate(windows):
            place = position + (-0.2, 0.2)[label]
            _bar(axes, place, count / sum(windows), CLASS_COLOURS[label], planned=group != predicted)
    below = [f"{group}\n{sum(windows):,}" for group, windows in counts.items()]
    _axes(axes, "", "share of windows", (range(len(below)), below), QUARTERS)
    axes.tick_params(axis="x", length=0)
    for label, name in enumerate(names):
        left = 53 + 206 * label
        corner = (left / 480, 1 - 54 / 320)
        figure.add_artist(Rectangle(corner, 10 / 480, 10 / 320, color=CLASS_COLOURS[label], linewidth=0))
        _write(figure, (left + 18) / 480, 1 - 49 / 320, f"{label}: {name}", 13, ha="left")
    return _titled(figure, title)


def roc(logits: npt.NDArray[Any], truth: npt.NDArray[Any], title: str) -> Image.Image:
    """The ROC curve, its area, and where the model decides."""
    found, (false, true) = binary_metrics(logits, truth), roc_points(logits, truth)
    figure, axes = _sheet(SQUARE_SIZE, (60, 46, 463, 425), (0, 1), (0, 1))
    axes.fill_between(false, true, color="#EBF4F9", linewidth=0)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=_points(1.4), linestyle=DASHED)
    axes.plot(false, true, color=CLASS_COLOURS[0], linewidth=_points(2.8), clip_on=False)
    axes.plot(
        1 - found["recall_0"], found["recall_1"], "o", color=CLASS_COLOURS[1], markeredgecolor="white",
        markersize=_points(12), markeredgewidth=_points(1), clip_on=False,
    )  # fmt: skip
    _axes(axes, "false positive rate", "true positive rate", FIFTHS, FIFTHS)
    _write(axes, 0.97, 0.13, f"AUC {found['auc']:.3f}", 21, CLASS_COLOURS[0], ha="right", va="baseline")
    decided = f"● decides here: recall {found['recall_0']:.3f} of 0, {found['recall_1']:.3f} of 1"
    _write(axes, 0.97, 0.06, decided, 13, AMBER, ha="right", va="baseline")
    return _titled(figure, title)


def confusion(
    logits: npt.NDArray[Any], truth: npt.NDArray[Any], names: Sequence[str], title: str
) -> Image.Image:
    """The confusion matrix, shaded by the shares of its rows."""
    counts = np.zeros((2, 2), dtype=np.int64)
    np.add.at(counts, (truth, logits.argmax(axis=1)), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    figure, axes = _sheet(SQUARE_SIZE, (77, 70, 461, 425), (0, 2), (2, 0))
    axes.pcolormesh(shares, cmap=SHADES, vmin=0, vmax=1, edgecolors="white", linewidth=_points(4))
    for row, column in np.ndindex(2, 2):
        colour = "white" if shares[row, column] > 0.5 else INK
        _write(axes, column + 0.5, row + 0.45, f"{shares[row, column]:.1%}", 28, colour)
        _write(axes, column + 0.5, row + 0.62, f"{counts[row, column]:,}", 15, colour)
    _axes(axes, "predicted", "true", ((0.5, 1.5), names), ((0.5, 1.5), names))
    axes.tick_params(length=0)
    for label in axes.get_yticklabels():
        label.set(rotation=90, va="center")
    for spine in axes.spines.values():
        spine.set_visible(False)
    balanced = binary_metrics(logits, truth)["balanced_accuracy"]
    summary = f"balanced accuracy {balanced:.3f} ({counts.sum():,} windows)"
    _write(figure, 269 / 480, 1 - 52 / 480, summary, 14, FAINT)
    return _titled(figure, title)


def _bar(axes: Any, position: float, share: float, colour: str, *, planned: bool) -> None:
    hatched = {"facecolor": "white", "edgecolor": colour, "hatch": "///"}
    axes.bar(position, share, 0.36, **({"color": colour, "linewidth": 0} if planned else hatched))
    inside = share > 0.88
    behind = colour if inside else "white" if planned else SHADE
    axes.annotate(
        f"{share:.2f}".removeprefix("0"), (position, share), (0, _points(-14 if inside else 10)),
        textcoords="offset points", ha="center", va="center", fontsize=_points(13),
        color="white" if inside else INK, bbox={"facecolor": behind, "linewidth": 0, "pad": 1},
    )  # fmt: skip


def _sheet(size: tuple[int, int], edges: tuple[int, ...], x: Any, y: Any) -> tuple[Any, Any]:
    """A figure and its axes, at their edges in pixels: nothing is laid out anew each time."""
    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    (left, top, right, bottom), (width, height) = edges, size
    place = (left / width, 1 - bottom / height, (right - left) / width, (bottom - top) / height)
    axes = figure.add_axes(place)
    axes.set(xlim=x, ylim=y)
    return figure, axes


def _axes(axes: Any, x_name: str, y_name: str, x_ticks: Any, y_ticks: Any) -> None:
    axes.set_xlabel(x_name, fontsize=_points(14), color=INK)
    axes.set_ylabel(y_name, fontsize=_points(14), color=INK)
    axes.set_xticks(*x_ticks, fontsize=_points(13), color=INK, parse_math=False)
    axes.set_yticks(*y_ticks, fontsize=_points(13), color=INK, parse_math=False)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)


def _write(
    where: Any, x: float, y: float, text: str, size: float, colour: str = INK, *, ha: str = "center", va: str = "center"
) -> None:  # fmt: skip
    where.text(x, y, text, fontsize=_points(size), color=colour, ha=ha, va=va, parse_math=False)


def _titled(figure: Any, title: str) -> Image.Image:
    width, height = figure.bbox.size
    _write(figure, 12 / width, 1 - 20 / height, title, 14.5, ha="left")
    figure.canvas.draw()
    size = (round(width), round(height))
    return Image.frombytes("RGB", size, figure.canvas.buffer_rgba(), "raw", "RGBX")


def _points(pixels: float) -> float:
    return pixels * 72 / DPI
