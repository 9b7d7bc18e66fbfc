"""The drawings of a report: learning curves and the train x test matrix, as matplotlib figures.

Ink and line colours are those of the page: `svg` turns them into CSS, so that one drawing serves a light
page, a dark one and paper.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.metrics.few_clusters import few_clusters_note
from harness.reporting.document import ARMS, Leaderboard, Row
from harness.reporting.learning_curves import FULL

if TYPE_CHECKING:
    from PIL.Image import Image

    from harness.reporting.train_test_matrix import Cell, Matrix

TRAIN, VAL, INK, FAINT = "#e69f00", "#0072b2", "#222222", "#8a8a8a"
_CSS = {TRAIN: "var(--train)", VAL: "var(--val)", INK: "var(--ink)", FAINT: "var(--faint)"}
PANELS = 6
_COLUMNS = 3
# Shades of the matrix run over this range, so that matrices of different studies compare.
SHADES = (0.5, 1.0)


def curves_figure(rows: Sequence[Row]) -> Any:
    """Train and validation by epoch, a panel a trial, with the trailing median that scores are made of."""
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.curve is not None]
    columns = min(_COLUMNS, max(1, len(shown)))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(3.3 * columns + 0.3, 2.35 * lines + 0.35), layout="constrained")
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for panel, row in zip(panels, shown, strict=False):
        _panel(panel, row)
    for panel in panels[len(shown) :]:
        panel.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    legend = figure.legend(
        handles, labels, loc="outside upper left", ncols=4, frameon=False, fontsize=9, handlelength=1.8
    )
    for text in legend.get_texts():
        text.set_color(INK)
    return figure


def _panel(panel: Any, row: Row) -> None:
    assert row.curve is not None
    epochs = range(1, len(row.curve.val) + 1)
    panel.axhline(0.5, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    if row.curve.train:
        panel.plot(epochs, row.curve.train, color=TRAIN, linewidth=1.4, label="train")
    panel.plot(epochs, row.curve.val, color=VAL, linewidth=0.8, alpha=0.55, label="validation")
    whole = slice(min(FULL, len(epochs) - 1), None)  # medians of one or two epochs are no score
    panel.plot(
        epochs[whole], row.curve.smoothed[whole], color=VAL, linewidth=2, label="validation, trailing median"
    )
    panel.plot(
        row.peak_epoch, row.score, marker="o", markersize=7, color=VAL, linestyle="none", label="score"
    )
    title = f"{row.rank}. trial {row.trial}  {row.score:.3f}  {_arm(row)}"
    panel.set_title(title.rstrip(), fontsize=9.5, loc="left", color=INK, fontweight="bold")
    lowest = min([0.5, *row.curve.val, *row.curve.train])
    panel.set_ylim(max(0.0, min(panel.get_ylim()[0], lowest - 0.03)), 1.01)
    panel.set_xlabel("epoch", fontsize=8.5, color=FAINT)
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.tick_params(labelsize=8.5, colors=INK, length=3)
    for side, spine in panel.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)


def drawn_rows(board: Leaderboard) -> tuple[Row, ...]:
    """Whose learning curves are drawn: the best of each subset and front end, then the highest, `PANELS` at least."""
    having = [row for row in board.rows if row.curve is not None]
    tables = [table for table in board.groups if table.parameter in ARMS]
    bests = {group.best.trial for table in tables for group in table.groups}
    others = [row.trial for row in having if row.trial not in bests]
    free = max(0, PANELS - sum(row.trial in bests for row in having))
    return tuple(row for row in having if row.trial in {*bests, *others[:free]})


def _arm(row: Row) -> str:
    """Its subset and front end, where they were searched."""
    return ", ".join(str(row.parameters[name]) for name in ARMS if name in row.parameters).replace("$", r"\$")


def matrix_figure(matrix: Matrix, title: str = "") -> Any:
    """The train x test matrix as a heat map with its numbers; cells of few clusters are hatched and say so.

    The shades run from chance to 1 (`SHADES`), not from the lowest to the highest cell.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    width, height = len(matrix.columns), len(matrix.rows)
    figure = Figure(
        figsize=(1.5 + 1.75 * width, 0.95 + 0.95 * height + 0.3 * bool(title)), layout="constrained"
    )
    axes = figure.add_subplot()
    shades = colormaps["Blues"]
    for line, row in enumerate(matrix.rows):
        for at, cell in enumerate(row.cells):
            _draw_cell(axes, at, line, cell, shades)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.set_xticks(range(width), matrix.columns, fontsize=10.5, color=INK)
    axes.set_yticks(range(height), [row.subset for row in matrix.rows], fontsize=10.5, color=INK)
    axes.set_xlabel("evaluated on", fontsize=9.5, color=INK)
    axes.set_ylabel("trained on", fontsize=9.5, color=INK)
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title:
        figure.suptitle(title.replace("$", r"\$"), fontsize=10.5, fontweight="bold", color=INK)
    return figure


def _draw_cell(axes: Any, x: int, y: int, cell: Cell | None, shades: Any) -> None:
    from matplotlib.patches import Rectangle

    place: dict[str, Any] = {"xy": (x - 0.48, y - 0.47), "width": 0.96, "height": 0.94, "linewidth": 0}
    if cell is None:
        axes.add_patch(Rectangle(**place, facecolor="#8a8a8a22"))
        axes.text(x, y, "not evaluated", fontsize=9, ha="center", va="center", color=INK)
        return
    share = min(1.0, max(0.0, (cell.value - SHADES[0]) / (SHADES[1] - SHADES[0])))
    axes.add_patch(Rectangle(**place, facecolor=shades(0.08 + 0.8 * share)))
    if cell.few_clusters:
        axes.add_patch(Rectangle(**place, facecolor="none", edgecolor="#ffffff60", hatch="/"))
    colour = "#fefefe" if share > 0.68 else "#111111"
    few = few_clusters_note(cell.clusters)
    for shift, text, size in (
        (-0.17, _short(cell.value), 16),
        (0.12, f"[{_short(cell.low)}, {_short(cell.high)}]", 9.5),
        (0.31, f"K = {cell.clusters}{few}", 8.5),
    ):
        axes.text(x, y + shift, text, fontsize=size, ha="center", va="center", color=colour)


def _short(share: float) -> str:
    return f"{share:.3f}".removeprefix("0")


def svg(figure: Any, name: str) -> str:
    """The figure as inline SVG: no prolog, ids of its own, the page's colours, letters as letters.

    Parameters
    ----------
    name : begins every id, which must differ between the drawings of a page
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, variable in _CSS.items():
        text = text.replace(colour, variable)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    width = re.search(r'width="([\d.]+)pt"', text)
    assert width is not None, "matplotlib writes the width in points"
    shape = f'role="img" aria-label="{name}" style="width: 100%; max-width: {width[1]}pt; height: auto"'
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', shape, text, count=1)


def image(figure: Any) -> Image:
    """The figure as an RGB image on white, for MLflow's grid."""
    from PIL import Image as Images

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140, facecolor="white")
    buffer.seek(0)
    return Images.open(buffer).convert("RGB")
