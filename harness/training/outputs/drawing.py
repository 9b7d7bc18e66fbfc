"""A sheet to draw a small chart on, in Pillow: smooth shapes first, then sharp text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw, ImageFont

Pair = tuple[float, float]
Edges = tuple[float, float, float, float]  # left, top, right, bottom

_FINER = 2  # shapes are drawn so much larger and reduced, which makes their edges smooth
_HATCH_PX = 8.0


class Canvas:
    """A white sheet with axes on a part of it; shapes are given in data, text and patches in pixels from the top left.

    Parameters
    ----------
    size : width and height in pixels
    inner : the part on which data are drawn, in pixels
    x, y : data at its left and right, and at its bottom and top
    """

    def __init__(self, size: tuple[int, int], inner: Edges, x: Pair = (0, 1), y: Pair = (0, 1)) -> None:
        self.size, self.inner, self._x, self._y = size, inner, x, y
        self._large = Image.new("RGB", (size[0] * _FINER, size[1] * _FINER), "white")
        self._shapes = ImageDraw.Draw(self._large)
        self._texts: list[_Text] = []

    def pixel(self, x: float, y: float) -> Pair:
        """Where a pair of data is drawn, in pixels from the top left; outside of `inner` too."""
        left, top, right, bottom = self.inner
        across = (x - self._x[0]) / (self._x[1] - self._x[0])
        up = (y - self._y[0]) / (self._y[1] - self._y[0])
        return left + across * (right - left), bottom - up * (bottom - top)

    def patch(self, edges: Edges, colour: str) -> None:
        """Fill a rectangle of pixels; the right and bottom edges are not in it."""
        left, top, right, bottom = (round(edge * _FINER) for edge in edges)
        self._shapes.rectangle((left, top, right - 1, bottom - 1), fill=colour)

    def box(self, corner: Pair, opposite: Pair, colour: str) -> None:
        """Fill a rectangle of data, on whole pixels; one without height is not drawn."""
        if edges := self._edges(corner, opposite):
            self.patch(edges, colour)

    def hatched(self, corner: Pair, opposite: Pair, colour: str) -> None:
        """Draw a rectangle of data as an outline with slanting lines in it."""
        edges = self._edges(corner, opposite)
        if not edges:
            return
        left, top, right, bottom = (round(edge * _FINER) for edge in edges)
        tile = Image.new("RGB", (right - left, bottom - top), "white")
        lines = ImageDraw.Draw(tile)
        for start in np.arange(0, tile.width + tile.height, _HATCH_PX * _FINER):
            lines.line([(start, -1), (start - tile.height - 1, tile.height)], fill=colour, width=_FINER)
        lines.rectangle((0, 0, tile.width - 1, tile.height - 1), outline=colour, width=2 * _FINER)
        self._large.paste(tile, (left, top))

    def area(self, corners: npt.ArrayLike, colour: str) -> None:
        """Fill a polygon of data, (corner, 2)."""
        self._shapes.polygon([*self._fine(corners)], fill=colour)

    def line(self, points: npt.ArrayLike, colour: str, width: float, dashed: Pair | None = None) -> None:
        """Draw a line through data, (point, 2), so many pixels wide; a dashed one is straight."""
        places = self._fine(points)
        thick = round(width * _FINER)
        if dashed:
            for piece in _dashes(places, dashed):
                self._shapes.line(piece, fill=colour, width=thick)
            return
        self._shapes.line(places, fill=colour, width=thick)
        for x, y in places:  # round joints
            self._disc(x, y, thick / 2 - 1, colour)

    def dot(self, place: Pair, radius: float, colour: str) -> None:
        """Draw a disc of so many pixels around data."""
        ((x, y),) = self._fine([place])
        self._disc(x, y, radius * _FINER, colour)

    def write(
        self,
        at: Pair,
        text: str,
        height: float,
        colour: str,
        anchor: str,
        *,
        bold: bool = False,
        upright: bool = False,
        behind: str = "",
    ) -> None:
        """Write a line of text over all shapes.

        Parameters
        ----------
        height : of the font, in pixels
        anchor : which point of the text is `at`, as Pillow has it: "mm" is its middle
        upright : turned, to be read from the right; its middle is `at`
        behind : colour of a box under it
        """
        self._texts.append(_Text(at, text, _font(height, bold), colour, anchor, upright, behind))

    def image(self) -> Image.Image:
        """Give what was drawn, in RGB: shapes reduced to the sheet's size, then all text over them."""
        drawn = self._large.reduce(_FINER)
        pen = ImageDraw.Draw(drawn)
        for text in self._texts:
            text.draw(drawn, pen)
        return drawn

    def _edges(self, corner: Pair, opposite: Pair) -> Edges | None:
        (x0, y0), (x1, y1) = self.pixel(*corner), self.pixel(*opposite)
        left, right, top, bottom = *map(round, sorted((x0, x1))), *map(round, sorted((y0, y1)))
        return (left, top, right, bottom) if left < right and top < bottom else None

    def _fine(self, points: npt.ArrayLike) -> list[Pair]:
        """Data as places on the large sheet, without those that change no line."""
        places = np.rint(np.array(self.pixel(*np.asarray(points, dtype=np.float64).T)) * _FINER).T
        step = np.diff(places, axis=0)
        straight = ((step[:-1] == 0) & (step[1:] == 0)).any(axis=1)  # goes on in the same row or column
        keep = np.concatenate([[True], ~straight, [True]]) if len(places) > 2 else slice(None)
        return [(float(x), float(y)) for x, y in places[keep]]

    def _disc(self, x: float, y: float, radius: float, colour: str) -> None:
        self._shapes.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


@dataclass(frozen=True)
class _Text:
    at: Pair
    text: str
    font: ImageFont.FreeTypeFont
    colour: str
    anchor: str
    upright: bool
    behind: str

    def draw(self, sheet: Image.Image, pen: ImageDraw.ImageDraw) -> None:
        if self.upright:
            left, top, right, bottom = self.font.getbbox(self.text, anchor="ls")
            mask = Image.new("L", (round(right - left) + 2, round(bottom - top) + 2))
            ImageDraw.Draw(mask).text((1 - left, 1 - top), self.text, 255, self.font, "ls")
            turned = mask.transpose(Image.Transpose.ROTATE_90)
            corner = (round(self.at[0] - turned.width / 2), round(self.at[1] - turned.height / 2))
            sheet.paste(ImageColor.getrgb(self.colour), corner, turned)
            return
        if self.behind:
            left, top, right, bottom = pen.textbbox(self.at, self.text, self.font, self.anchor)
            pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=self.behind)
        pen.text(self.at, self.text, self.colour, self.font, self.anchor)


def blend(low: str, high: str, share: float) -> str:
    """Mix two colours, linearly in RGB, as `#rrggbb`; a share of 0 is the first, of 1 the second."""
    pairs = zip(ImageColor.getrgb(low), ImageColor.getrgb(high), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def _dashes(places: Sequence[Pair], dashed: Pair) -> Iterator[list[Pair]]:
    """Cut a straight line into pieces that are drawn."""
    start, end = np.array(places[0]), np.array(places[-1])
    length = float(np.hypot(*(end - start)))
    drawn, gap = (part * _FINER for part in dashed)
    for at in np.arange(0, length, drawn + gap):
        ends = (start + (end - start) * min(one, length) / length for one in (at, at + drawn))
        yield [(float(x), float(y)) for x, y in ends]


@cache
def _font(height: float, bold: bool) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib; found without importing it."""
    spec = find_spec("matplotlib")
    assert spec is not None
    assert spec.origin is not None
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / name
    return ImageFont.truetype(path, height, layout_engine=ImageFont.Layout.BASIC)
