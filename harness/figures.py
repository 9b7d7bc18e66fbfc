"""Pictures of a run as PNG-ready images: fixed sizes and axes, so that runs compare side by side.

matplotlib's object API only (no pyplot, no global state), imported on first use.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.metrics import binary_metrics, roc_points

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

CLASS_COLOURS = ("#0072B2", "#E69F00")  # Okabe and Ito: distinct for every kind of colour vision
LABELS_SIZE = (480, 320)  # pixels
SQUARE_SIZE = (480, 480)  # pixels

_DPI = 100
_INK, _FAINT, _SHADE = "#222222", "#8A8A8A", "#F1F1F1"


def label_histogram_image(
    train: Sequence[int],
    val: Sequence[int],
    test: Sequence[int],
    predicted: Sequence[int] | None = None,
    *,
    title: str,
    class_names: Sequence[str] = ("0", "1"),
    predicted_on: str = "val",
) -> "Image":
    """Share of each class in every split and among the predictions.

    Parameters
    ----------
    train, val, test, predicted : windows of class 0 and of class 1
    predicted_on : split that `predicted` counts
    """
    figure = _figure(LABELS_SIZE)
    axes = figure.add_axes((0.11, 0.21, 0.865, 0.575))
    groups = [("train", train), ("val", val), ("test", test), (f"predicted, {predicted_on}", predicted)]
    axes.axvspan(2.5, 3.5, color=_SHADE, zorder=0)
    axes.axhline(0.5, color=_FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    ticks = []
    for position, (name, counts) in enumerate(groups):
        total = sum(counts) if counts is not None else 0
        if counts is None or not total:
            ticks.append(f"{name}\nnone")
            continue
        hatch = "///" if position == 3 else None
        for label, count in enumerate(counts):
            _bar(axes, position + (-0.2, 0.2)[label], count / total, CLASS_COLOURS[label], hatch)
        ticks.append(f"{name}\n{total:,}")
    axes.set_xticks(range(4), ticks, fontsize=9.5, color=_INK)
    axes.tick_params(axis="x", length=0, pad=5)
    axes.set_xlim(-0.5, 3.5)
    axes.set_ylim(0, 1)
    axes.set_yticks((0, 0.25, 0.5, 0.75, 1), ("0", ".25", ".5", ".75", "1"), fontsize=9.5, color=_INK)
    axes.set_ylabel("share of windows", fontsize=9.5, color=_INK)
    _frame(axes)
    _legend_line(figure, class_names)
    _title(figure, title)
    return _image(figure)


def roc_figure(logits: "npt.ArrayLike", labels: "npt.ArrayLike", title: str) -> "Image":
    """ROC curve with its area, and the point at which the model decides (the larger logit).

    Parameters
    ----------
    logits : (window, 2)
    labels : (window,) of 0 or 1
    """
    metrics = binary_metrics(logits, labels)
    false, true = roc_points(logits, labels)
    figure = _figure(SQUARE_SIZE)
    axes = figure.add_axes((0.125, 0.115, 0.84, 0.79))
    axes.plot((0, 1), (0, 1), color=_FAINT, linewidth=1, linestyle=(0, (4, 3)))
    axes.fill_between(false, true, color=CLASS_COLOURS[0], alpha=0.08, linewidth=0)
    axes.plot(false, true, color=CLASS_COLOURS[0], linewidth=2, clip_on=False)
    point = (1 - metrics["recall_0"], metrics["recall_1"])
    style = {"color": CLASS_COLOURS[1], "markeredgecolor": "white", "markersize": 9}
    axes.plot(*point, marker="o", clip_on=False, zorder=5, **style)
    axes.text(0.97, 0.13, f"AUC {metrics['auc']:.3f}", fontsize=15, ha="right", color=CLASS_COLOURS[0])
    decided = f"● decides here: recall {metrics['recall_0']:.3f} of 0, {metrics['recall_1']:.3f} of 1"
    axes.text(0.97, 0.06, decided, fontsize=9.5, ha="right", color="#9A6A00")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("false positive rate", fontsize=10, color=_INK)
    axes.set_ylabel("true positive rate", fontsize=10, color=_INK)
    axes.tick_params(labelsize=9.5, colors=_INK)
    _frame(axes)
    _title(figure, title)
    return _image(figure)


def confusion_figure(
    logits: "npt.ArrayLike",
    labels: "npt.ArrayLike",
    class_names: Sequence[str] = ("0", "1"),
    title: str = "confusion",
) -> "Image":
    """Confusion matrix: a row per true class, shaded by the share of that row, with counts.

    Parameters
    ----------
    logits : (window, 2)
    labels : (window,) of 0 or 1
    """
    import numpy as np

    balanced = binary_metrics(logits, labels)["balanced_accuracy"]
    predicted = np.asarray(logits).argmax(axis=1)
    counts = np.zeros((2, 2), dtype=np.int64)
    np.add.at(counts, (np.asarray(labels, dtype=np.int64), predicted), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    figure = _figure(SQUARE_SIZE)
    axes = figure.add_axes((0.16, 0.115, 0.80, 0.74))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    for row, column in np.ndindex(2, 2):
        colour = "white" if shares[row, column] > 0.6 else _INK
        axes.text(column, row - 0.06, f"{shares[row, column]:.1%}", fontsize=20, ha="center", color=colour)
        axes.text(column, row + 0.1, f"{counts[row, column]:,}", fontsize=11, ha="center", color=colour)
    names = [_plain(name, 18) for name in class_names]
    axes.set_xticks((0, 1), names, fontsize=10.5, color=_INK)
    axes.set_yticks((0, 1), names, fontsize=10.5, color=_INK, rotation=90, va="center")
    axes.set_xlabel("predicted", fontsize=10, color=_INK)
    axes.set_ylabel("true", fontsize=10, color=_INK)
    axes.tick_params(length=0)
    axes.axhline(0.5, color="white", linewidth=3)
    axes.axvline(0.5, color="white", linewidth=3)
    for spine in axes.spines.values():
        spine.set_visible(False)
    summary = f"balanced accuracy {balanced:.3f} ({counts.sum():,} windows)"
    figure.text(0.56, 0.885, summary, fontsize=10, ha="center", color=_FAINT)
    _title(figure, title)
    return _image(figure)


def _figure(size: tuple[int, int]) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(size[0] / _DPI, size[1] / _DPI), dpi=_DPI, facecolor="white")


def _bar(axes: Any, position: float, share: float, colour: str, hatch: str | None) -> None:
    axes.bar(
        position,
        share,
        width=0.36,
        facecolor="white" if hatch else colour,
        edgecolor=colour,
        hatch=hatch,
        linewidth=1.2,
        zorder=2,
    )
    inside = share > 0.88  # no room above the bar on a fixed axis
    behind = colour if inside else _SHADE if hatch else "white"
    axes.text(
        position,
        share + (-0.03 if inside else 0.025),
        f"{share:.2f}".removeprefix("0"),
        ha="center",
        va="top" if inside else "bottom",
        fontsize=9.5,
        color="white" if inside else _INK,
        bbox={"facecolor": behind, "edgecolor": "none", "pad": 0.8},  # the line at .5 may run here
        zorder=3,
    )


def _legend_line(figure: Any, class_names: Sequence[str]) -> None:
    for label, name in enumerate(class_names):
        left = 0.11 + 0.43 * label
        figure.text(left, 0.835, "■", fontsize=12, color=CLASS_COLOURS[label])
        text = name if name == str(label) else f"{label}: {name}"
        figure.text(left + 0.038, 0.838, _plain(text, 26), fontsize=9.5, color=_INK)


def _title(figure: Any, title: str) -> None:
    figure.text(0.025, 0.965, _plain(title, 52), fontsize=10.5, weight="bold", va="top", color=_INK)


def _frame(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FAINT)


def _plain(text: str, length: int) -> str:
    """One line that fits; dollar signs escaped, which would otherwise start a formula."""
    line = " ".join(text.split())
    line = line if len(line) <= length else f"{line[: length - 1]}…"
    return line.replace("$", r"\$")


def _image(figure: Any) -> "Image":
    """RGB image of a figure; a letter the font lacks is drawn as a box, without a warning."""
    import warnings

    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    return Image.fromarray(np.ascontiguousarray(pixels))
