"""Pictures of a run as PNG-ready images: fixed sizes and axes, so that runs compare side by side.

Drawn with Pillow, imported on first use: for axes that never change matplotlib takes six times as
long (tests/benchmarks/drawn_by_matplotlib.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.metrics.classification import binary_metrics, roc_points

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

    from harness.training.outputs.drawing import Canvas

CLASS_COLOURS = ("#0072B2", "#E69F00")  # Okabe and Ito: distinct for every kind of colour vision
LABELS_SIZE = (480, 320)  # pixels
SQUARE_SIZE = (480, 480)  # pixels

_INK, _FAINT, _SHADE, _AMBER = "#222222", "#8A8A8A", "#F1F1F1", "#9A6A00"
_DASHED = (5.0, 4.0)  # pixels drawn and left out
_QUARTERS = ((0, "0"), (0.25, ".25"), (0.5, ".5"), (0.75, ".75"), (1, "1"))
_FIFTHS = tuple((fifth / 5, f"{fifth / 5:.1f}") for fifth in range(6))


def label_histogram_image(
    train: Sequence[int],
    val: Sequence[int],
    test: Sequence[int],
    predicted: Sequence[int] | None = None,
    *,
    title: str,
    class_names: Sequence[str] = ("0", "1"),
    predicted_on: str = "val",
) -> Image:
    """Share of each class in every split and among the predictions, as bars on an axis from 0 to 1.

    Parameters
    ----------
    train, val, test, predicted : number of windows of class 0 and of class 1; no `predicted`: its place stays empty
    predicted_on : split that `predicted` counts
    """
    from harness.training.outputs.drawing import Canvas

    sheet = Canvas(LABELS_SIZE, (53, 69, 468, 252), x=(-0.5, 3.5))
    groups = [("train", train), ("val", val), ("test", test), (f"predicted, {predicted_on}", predicted)]
    sheet.box((2.5, 0), (3.5, 1), _SHADE)
    sheet.line([(-0.5, 0.5), (3.5, 0.5)], _FAINT, 1.4, _DASHED)
    for position, (name, counts) in enumerate(groups):
        total = sum(counts) if counts is not None else 0
        below = sheet.pixel(position, 0)
        sheet.write((below[0], 269), name, 13, _INK, "mm")
        sheet.write((below[0], 285), f"{total:,}" if total else "none", 13, _INK, "mm")
        for label, count in enumerate(counts or ()):
            if total:
                _bar(sheet, position + (-0.2, 0.2)[label], count / total, label, planned=position < 3)
    _axes(sheet, "", "share of windows", [], _QUARTERS)
    for label, name in enumerate(class_names):
        left = 53 + 206 * label
        sheet.patch((left, 44, left + 10, 54), CLASS_COLOURS[label])
        text = name if name == str(label) else f"{label}: {name}"
        sheet.write((left + 18, 49), _plain(text, 26), 13, _INK, "lm")
    return _titled(sheet, title)


def roc_figure(logits: npt.ArrayLike, labels: npt.ArrayLike, title: str) -> Image:
    """ROC curve with its area, and the point at which the model decides (the larger logit).

    Parameters
    ----------
    logits : (window, 2)
    labels : (window,) of 0 or 1
    """
    import numpy as np

    from harness.training.outputs.drawing import Canvas

    metrics = binary_metrics(logits, labels)
    curve = np.stack(roc_points(logits, labels), axis=1)
    sheet = Canvas(SQUARE_SIZE, (60, 46, 463, 425))
    sheet.area(np.concatenate([curve, [(1, 0)]]), "#EBF4F9")
    sheet.line([(0, 0), (1, 1)], _FAINT, 1.4, _DASHED)
    _axes(sheet, "false positive rate", "true positive rate", _FIFTHS, _FIFTHS)
    sheet.line(curve, CLASS_COLOURS[0], 2.8)
    sheet.dot((1 - metrics["recall_0"], metrics["recall_1"]), 6.5, "white")
    sheet.dot((1 - metrics["recall_0"], metrics["recall_1"]), 5.5, CLASS_COLOURS[1])
    right, at = sheet.pixel(0.97, 0.13)
    sheet.write((right, at), f"AUC {metrics['auc']:.3f}", 21, CLASS_COLOURS[0], "rs")
    decided = f"● decides here: recall {metrics['recall_0']:.3f} of 0, {metrics['recall_1']:.3f} of 1"
    sheet.write((right, sheet.pixel(0, 0.06)[1]), decided, 13, _AMBER, "rs")
    return _titled(sheet, title)


def confusion_figure(
    logits: npt.ArrayLike,
    labels: npt.ArrayLike,
    class_names: Sequence[str] = ("0", "1"),
    title: str = "confusion",
) -> Image:
    """Confusion matrix: a row per true class, shaded by the share of that row, with counts.

    Parameters
    ----------
    logits : (window, 2)
    labels : (window,) of 0 or 1
    """
    import numpy as np

    from harness.training.outputs.drawing import Canvas, blend

    balanced = binary_metrics(logits, labels)["balanced_accuracy"]
    predicted = np.asarray(logits).argmax(axis=1)
    counts = np.zeros((2, 2), dtype=np.int64)
    np.add.at(counts, (np.asarray(labels, dtype=np.int64), predicted), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    sheet = Canvas(SQUARE_SIZE, (77, 70, 461, 425), x=(0, 2), y=(2, 0))
    for row, column in np.ndindex(2, 2):
        share = float(shares[row, column])
        sheet.box((column, row), (column + 1, row + 1), blend("#F4F9FE", "#0E61AB", share))
        colour = "white" if share > 0.5 else _INK
        x, y = sheet.pixel(column + 0.5, row + 0.5)
        sheet.write((x, y - 8), f"{share:.1%}", 28, colour, "mm")
        sheet.write((x, y + 22), f"{counts[row, column]:,}", 15, colour, "mm")
    sheet.line([(1, 0), (1, 2)], "white", 4)
    sheet.line([(0, 1), (2, 1)], "white", 4)
    for label, name in enumerate(class_names):
        x, y = sheet.pixel(label + 0.5, label + 0.5)
        sheet.write((x, 438), _plain(name, 18), 14.5, _INK, "mm")
        sheet.write((62, y), _plain(name, 18), 14.5, _INK, "mm", upright=True)
    _names(sheet, "predicted", "true")
    summary = f"balanced accuracy {balanced:.3f} ({counts.sum():,} windows)"
    sheet.write((269, 52), summary, 14, _FAINT, "mm")
    return _titled(sheet, title)


def _bar(sheet: Canvas, position: float, share: float, label: int, *, planned: bool) -> None:
    """One class of one group: filled where it was planned, hatched where it was predicted."""
    colour = CLASS_COLOURS[label]
    corners = (position - 0.18, 0), (position + 0.18, share)
    if planned:
        sheet.box(*corners, colour)
    else:
        sheet.hatched(*corners, colour)
    inside = share > 0.88  # no room above the bar on a fixed axis
    x, top = sheet.pixel(position, share)
    sheet.write(
        (x, top + (14 if inside else -10)),
        f"{share:.2f}".removeprefix("0"),
        13,
        "white" if inside else _INK,
        "mm",
        behind=colour if inside else "white" if planned else _SHADE,  # the line at .5 may run here
    )


def _axes(
    sheet: Canvas,
    x_name: str,
    y_name: str,
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]],
) -> None:
    """Two axes, their names, and ticks (value, text)."""
    left, top, right, bottom = sheet.inner
    sheet.patch((left - 1, top, left, bottom + 1), _FAINT)
    sheet.patch((left - 1, bottom, right, bottom + 1), _FAINT)
    for value, text in x_ticks:
        x, _ = sheet.pixel(value, 0)
        sheet.patch((x - 0.5, bottom + 1, x + 0.5, bottom + 6), _INK)
        sheet.write((x, bottom + 15), text, 13, _INK, "mm")
    for value, text in y_ticks:
        _, y = sheet.pixel(0, value)
        sheet.patch((left - 6, y - 0.5, left - 1, y + 0.5), _INK)
        sheet.write((left - 9, y), text, 13, _INK, "rm")
    _names(sheet, x_name, y_name)


def _names(sheet: Canvas, x_name: str, y_name: str) -> None:
    left, top, right, bottom = sheet.inner
    sheet.write(((left + right) / 2, sheet.size[1] - 17), x_name, 14, _INK, "mm")
    sheet.write((14, (top + bottom) / 2), y_name, 14, _INK, "mm", upright=True)


def _titled(sheet: Canvas, title: str) -> Image:
    sheet.write((12, 20), _plain(title, 52), 14.5, _INK, "lm", bold=True)
    return sheet.image()


def _plain(text: str, length: int) -> str:
    """One line that fits."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
