import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from harness.training.outputs.drawing import Canvas
from harness.training.outputs.figures import (
    CLASS_COLOURS,
    LABELS_SIZE,
    SQUARE_SIZE,
    confusion_figure,
    label_histogram_image,
    roc_figure,
)

BALANCED = label_histogram_image((50, 50), (5, 5), (5, 5), (4, 6), title="balanced")
generator = np.random.default_rng(0)
LABELS = generator.integers(0, 2, 200)
LOGITS = generator.normal(size=(200, 2)) + np.stack([1 - LABELS, LABELS], axis=1)


def pixels_of(image: Image.Image, colour: str, left: float, right: float) -> int:
    """Pixels of exactly a colour between two shares of the width, below the legend."""
    values = np.asarray(image)[80:, int(left * image.width) : int(right * image.width)]
    return int((values == ImageColor.getrgb(colour)).all(axis=2).sum())


def test_sizes_are_fixed_so_that_a_grid_lines_up() -> None:
    skewed = label_histogram_image(
        (0, 7), (1, 99999999), (3, 3), title="x" * 500, class_names=("a" * 99, "b" * 99)
    )
    assert BALANCED.size == skewed.size == LABELS_SIZE
    assert roc_figure(LOGITS, LABELS, "ROC").size == confusion_figure(LOGITS, LABELS).size == SQUARE_SIZE
    assert BALANCED.mode == "RGB"


def test_bars_are_shares_on_a_fixed_axis() -> None:
    # the train group is the first quarter of the axis, which spans .11 to .975 of the width
    more = label_histogram_image((50_000, 50_000), (5, 5), (5, 5), (4, 6), title="balanced")
    hash_bug = label_histogram_image((70, 30), (5, 5), (5, 5), (4, 6), title="balanced")
    for colour in CLASS_COLOURS:
        assert pixels_of(BALANCED, colour, 0.12, 0.32) == pixels_of(more, colour, 0.12, 0.32) > 1000
    blue, orange = (pixels_of(hash_bug, colour, 0.12, 0.32) for colour in CLASS_COLOURS)
    assert blue / orange == pytest.approx(7 / 3, rel=0.05)


def test_equal_counts_give_equal_images() -> None:
    again = label_histogram_image((50, 50), (5, 5), (5, 5), (4, 6), title="balanced")
    assert again.tobytes() == BALANCED.tobytes()


def test_without_predictions_the_group_stays_empty() -> None:
    image = label_histogram_image((5, 5), (5, 5), (5, 5), title="planned")
    assert pixels_of(image, CLASS_COLOURS[0], 0.77, 0.97) == 0


@pytest.mark.parametrize("title", ["cost $5 and $", "日本語 ünïcode", "a_b^{c}", "two\nlines", ""])
def test_any_title_can_be_drawn(title: str) -> None:
    label_histogram_image((5, 5), (5, 5), (5, 5), (0, 10), title=title, class_names=(title, title))
    roc_figure(LOGITS, LABELS, title)
    confusion_figure(LOGITS, LABELS, (title, title), title)


def test_a_constant_predictor_can_be_drawn() -> None:
    constant = np.tile([1.0, 0.0], (200, 1))
    roc_figure(constant, LABELS, "constant")
    confusion_figure(constant, LABELS)


def test_a_staircase_of_many_windows_keeps_its_corners() -> None:
    sheet = Canvas((100, 100), (0, 0, 100, 100))
    steps = np.repeat(np.linspace(0, 1, 5001), 2)
    sheet.line(np.stack([steps[:-1], steps[1:]], axis=1), "#000000", 2)
    drawn = np.asarray(sheet.image())[..., 0] < 128
    assert drawn.diagonal(0)[1:-1].sum() < 10 < 95 < drawn[::-1].diagonal(0).sum()


def test_pillow_is_imported_late_and_matplotlib_never() -> None:
    code = (
        "import sys, harness.training.outputs.figures as f\n"
        "assert 'PIL' not in sys.modules\n"
        "f.label_histogram_image((1, 1), (1, 1), (1, 1), title='t')\n"
        "assert 'matplotlib' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[4], check=True)
