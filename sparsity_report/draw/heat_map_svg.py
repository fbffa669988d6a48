"""The heat map of all media as SVG: Transformer block by projection, head or expert.

Page, notebook cell, PDF and thesis show this drawing. It loads no chart library.
"""

import json
import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

import numpy as np

from sparsity_report.draw.theme import FAMILY, INK, LABEL, MUTED, ROW, TITLE, write
from sparsity_report.words.number_format import percent

#: Colors at even steps, with which the viewer draws, too: viridis as in Matplotlib, and blue below
#: an even value, vermillion above.
PALETTES: dict[str, list[str]] = json.loads(
    Path(__file__).with_name("palette.json").read_text(encoding="utf-8")
)
#: Digits on dark and on light colors; pure black and white would follow the theme of the page.
INKS = "#fefefe", "#010101"
#: Attribute that a drawing inside a page does without.
NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"'
UNKNOWN = "#8c8c8c29"
# Luminance with equal contrast to black and white.
_TURN = 0.179
# Steps between colors; greatest width of names, and their distance; smallest spaced cell.
_COLORS, _NAMES, _GAP, _SPACED = 64, 140, 7, 6
# Width, height and steps of the scale of colors.
_SCALE, _THICK, _STEPS = 120, 8, 60


class MapCell(NamedTuple):
    """A cell with its value, None if unknown, and the text of its tooltip."""

    block: str
    name: str
    value: float | None
    tip: str = ""
    is_crossed: bool = False


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """A heat map, or its scale of colors alone if it has no cells.

    Attributes
    ----------
    blocks, names : sequence of str
        Columns and rows in their order.
    cells : sequence of MapCell
    width, row : float
        Width of the drawing and height of a row, in points.
    kind : str
        Notation of values, see :func:`sparsity_report.draw.theme.write`.
    domain : tuple of float
        Values at the ends of the colors; of blue and vermillion, the even value between them, too.
    title, note, alt : str
        Heading, the line below it, and alternative text.
    axis, legend : str
        Titles of the blocks and of the scale of colors; without a title, there is no scale.
    font : str
        Font family.
    """

    blocks: Sequence[str] = ()
    names: Sequence[str] = ()
    cells: Sequence[MapCell] = ()
    width: float
    row: float = ROW
    kind: str = "share"
    domain: tuple[float, ...] = (0.0, 1.0)
    title: str = ""
    note: str = ""
    alt: str = ""
    axis: str = ""
    legend: str = ""
    font: str = FAMILY

    @property
    def palette(self) -> list[str]:
        """Colors at even steps, without their number signs."""
        return PALETTES["viridis" if len(self.domain) == 2 else "diverging"]

    def values_at(self, places: Sequence[float]) -> list[float]:
        """Return the values at positions on the palette from 0 to 1."""
        steps = np.linspace(0, 1, len(self.domain))
        return [float(value) for value in np.interp(places, steps, self.domain)]

    def paint(self, value: float | None) -> tuple[str, str]:
        """Return the color of a cell and the ink of its digits."""
        if value is None:
            return UNKNOWN, MUTED
        place = np.interp(value, self.domain, np.linspace(0, _COLORS, len(self.domain)))
        return _painted(round(place), tuple(self.palette))

    def has_digits(self, wide: float) -> bool:
        """Return true if the digits of each value fit into a cell of a width."""
        texts = (digits(cell.value, self.kind) for cell in self.cells)
        return self.row >= 1.2 * LABEL and max(text_width(t, LABEL) for t in texts) + 4 <= wide

    def svg(self, margin: float = 0) -> str:
        """Return the drawing without a background; the margin is a part of its width."""
        inner, bottom, left = self.width - 2 * margin, 0.0, 10.0
        parts: list[str] = []
        bold, muted = f'fill="{INK}" font-size="{TITLE}" font-weight="bold"', f'fill="{MUTED}"'
        notes = wrap(self.note, int(inner / (0.65 * LABEL)))
        lines = [(self.title, TITLE, bold), *((note, LABEL, muted) for note in notes)]
        for text, size, style in lines:
            if text:
                bottom += size + (4 if bottom else -1)
                parts.append(_text(0, bottom, fitting(text, inner, 1.06 * size), style))
        if self.cells:
            plot = _plot(self, bottom + 12 if bottom else 0.0, inner)
            parts += [*_labels(self, plot), *_cells(self, plot)]
            left, bottom = plot.left, plot.bottom + (27 if self.axis else 14)
        if self.legend:
            wide = _SCALE if self.cells else inner - 2 * left
            parts += _scale(self, left, bottom + 8, wide)
            bottom += 8 + _THICK + LABEL * (1.3 if self.cells else 2.6)
        width, height = f"{self.width:.6g}", f"{bottom + 3 + 2 * margin:.6g}"
        return (
            f'<svg {NAMESPACE} width="{width}" height="{height}" '
            f'viewBox="{-margin:g} {-margin:g} {width} {height}" font-size="{LABEL}" '
            f'font-family="{escape(self.font)}">{"".join(parts)}</svg>'
        )


class _Plot(NamedTuple):
    """Edges of the cells, the width of a cell, and the step from one labeled block to the next."""

    left: float
    top: float
    bottom: float
    wide: float
    step: int


def _plot(shape: HeatMap, top: float, inner: float) -> _Plot:
    names = (text_width(fitting(name, _NAMES, LABEL), LABEL) for name in shape.names)
    left, columns = max(names) + _GAP, len(shape.blocks)
    longest = max(text_width(block, LABEL) for block in shape.blocks)
    step = math.ceil(columns * max(2.2 * LABEL, longest + 6) / (inner - left))
    # The last label may be wider than its cell.
    wide = (inner - left - (longest / 2 if step > 1 else 0)) / columns
    return _Plot(left, top, top + shape.row * len(shape.names), wide, step)


def _labels(shape: HeatMap, plot: _Plot) -> Iterator[str]:
    """Yield the names of rows and blocks that have room, and the title of the blocks."""
    for row in range(0, len(shape.names), math.ceil(1.25 * LABEL / shape.row)):
        y = plot.top + (row + 0.5) * shape.row + 0.35 * LABEL
        name = fitting(shape.names[row], _NAMES, LABEL)
        yield _text(plot.left - _GAP, y, name, f'fill="{INK}" text-anchor="end"')
    middle, columns = 'text-anchor="middle"', len(shape.blocks)
    for column in range(0, columns, plot.step):
        x = plot.left + (column + 0.5) * plot.wide
        yield _text(x, plot.bottom + 12, shape.blocks[column], f'fill="{INK}" {middle}')
    if shape.axis:
        x = plot.left + 0.5 * columns * plot.wide
        yield _text(x, plot.bottom + 25, shape.axis, f'fill="{MUTED}" {middle}')


def _scale(shape: HeatMap, left: float, top: float, wide: float) -> Iterator[str]:
    """Yield the scale of colors, the values at its ends and in the middle, and its title."""
    steps = enumerate(shape.values_at([k / (_STEPS - 1) for k in range(_STEPS)]))
    strokes = (f'<path stroke="{shape.paint(value)[0]}" d="M{k} 0h1"/>' for k, value in steps)
    moved = f"translate({left:.5g} {top + _THICK / 2:.5g}) scale({wide / _STEPS:.5g} 1)"
    style = f'stroke-width="{_THICK}" shape-rendering="crispEdges"'
    yield f'<g transform="{moved}" {style}>{"".join(strokes)}</g>'
    x, y = left, top + _THICK + LABEL
    for value, anchor in zip(shape.values_at([0, 0.5, 1]), ("start", "middle", "end"), strict=True):
        text = percent(value, 0, " ") if shape.kind == "share" else write(value, shape.kind)
        yield _text(x, y, text, f'fill="{INK}" text-anchor="{anchor}"')
        x += wide / 2
    place = (left + wide + _GAP, y - LABEL) if shape.cells else (left, y + 1.3 * LABEL)
    yield _text(*place, shape.legend, f'fill="{MUTED}"')


def _cells(shape: HeatMap, plot: _Plot) -> Iterator[str]:
    """Yield the cells, those of one color and tooltip as one path; their digits and crosses."""
    columns = {name: column for column, name in enumerate(shape.blocks)}
    rows = {name: row for row, name in enumerate(shape.names)}
    left, top, _, wide, _ = plot
    is_spaced, has_digits = min(wide, shape.row) >= _SPACED, shape.has_digits(wide)
    length, stroke = (1 - 0.5 / side if is_spaced else 1 for side in (wide, shape.row))
    paths: dict[tuple[str, str], list[str]] = {}
    texts: list[str] = []
    for cell in shape.cells:
        column, row = columns[cell.block], rows[cell.name]
        color, ink = shape.paint(cell.value)
        paths.setdefault((color, cell.tip), []).append(f"M{column} {row}h{length:.3g}")
        x, y = left + (column + 0.5) * wide, top + (row + 0.5) * shape.row
        text = digits(cell.value, shape.kind) if has_digits else "×" * cell.is_crossed
        style = f'fill="{ink}"' + ' text-decoration="line-through"' * cell.is_crossed
        if text:
            texts.append(_text(x, y + 0.35 * LABEL, text, style))
    moved = f"translate({left:.5g} {top + shape.row / 2:.5g}) scale({wide:.5g} {shape.row:.5g})"
    edges = "" if is_spaced else ' shape-rendering="crispEdges"'
    yield f'<g transform="{moved}" stroke-width="{stroke:.3g}"{edges}>'
    for (color, tip), places in paths.items():
        drawn = f'<path stroke="{color}" d="{"".join(places)}"'
        yield f"{drawn}><title>{escape(tip)}</title></path>" if tip else f"{drawn}/>"
    yield f'</g><g text-anchor="middle" pointer-events="none">{"".join(texts)}</g>'


def digits(value: float | None, kind: str) -> str:
    """Return the short form of a value for a cell.

    Examples
    --------
    >>> digits(0.304, "share"), digits(1.329, "ratio"), digits(-0.05, "points"), digits(None, "own")
    ('30', '1.33', '−5.0', '–')
    """
    if kind == "share" and value is not None:
        return f"{100 * value:.0f}"
    return write(value, kind).removesuffix(" ×")


@lru_cache(2 * _COLORS)
def _painted(step: int, palette: tuple[str, ...]) -> tuple[str, str]:
    """Return a color of a palette, and the ink with more contrast to it."""
    places = np.linspace(0, _COLORS, len(palette))
    channels = zip(*map(bytes.fromhex, palette), strict=True)
    mixed = [round(np.interp(step, places, channel)) for channel in channels]
    shares = (part / 255 for part in mixed)
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
    is_light = bool(np.dot((0.2126, 0.7152, 0.0722), linear) > _TURN)
    return f"#{bytes(mixed).hex()}", INKS[is_light]


def text_width(text: str, size: float) -> float:
    """Return about how wide Helvetica sets a text, rather more than less."""
    wide = sum(x in "%@MWmw…" or unicodedata.east_asian_width(x) in "WF" for x in text)
    return size * (0.57 * len(text) + 0.43 * wide + 0.15 * sum(map(str.isupper, text)))


def fitting(text: str, width: float, size: float) -> str:
    """Return as much of a text as fits into a width."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text, size) + size > width:
        text = text[:-1]
    return f"{text}…"


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x:.5g}" y="{y:.5g}" {style}>{escape(text, quote=False)}</text>'
