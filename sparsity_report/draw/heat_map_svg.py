"""The heat map of all media as SVG: Transformer block by projection, head or expert.

Page, notebook cell, PDF and thesis show this drawing. It loads no chart library.
"""

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from operator import mul
from pathlib import Path
from typing import NamedTuple

from sparsity_report.draw.fonts import FAMILY
from sparsity_report.draw.theme import EVEN, INK, LABEL, MUTED, ROW, SMALL, TITLE, write
from sparsity_report.words.number_format import percent

#: Colors at even steps, with which the viewer draws, too: viridis as in Matplotlib, and blue below
#: an even value, vermillion above.
PALETTES: dict[str, list[str]] = json.loads(
    Path(__file__).with_name("palette.json").read_text(encoding="utf-8")
)
#: Attribute that a drawing inside a page does without.
NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"'
GREYS = ("#000000", "#ffffff")
# Colors in a map; greatest width of names, and their distance; smallest cell with paper around it.
_COLORS, _NAMES, _GAP, _SPACED = 64, 140, 7, 6
# Width, height and steps of the scale of colors.
_SCALE, _THICK, _STEPS = 120, 8, 60
_UNKNOWN = "#8c8c8c29"
#: Digits on dark and on light colors; pure black and white would follow the theme of the page.
INKS = _ON_DARK, _ON_LIGHT = "#fefefe", "#010101"
# Luminance with equal contrast to black and white.
_TURN = 0.179
# Factors and formats of digits, by kind.
_DIGITS = {"share": (100, ".0f"), "points": (100, "+.0f"), "nats": (1, "+.3f"), "ratio": (1, ".2f"),
           "own": (1, ".3g")}  # fmt: skip
_NARROW, _WIDE = frozenset(" !'(),-./:;I[]`fijlrt{|}·"), frozenset("%@MWmw…")


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
        Ends of the scale of colors.
    title, note, alt : str
        Heading, the line below it, and alternative text.
    axis, legend : str
        Titles of the blocks and of the scale of colors; without a title, there is no scale.
    font : str
        Font family.
    palette : sequence of str
        Colors at even steps, if they are not those of the kind.
    """

    blocks: Sequence[str] = ()
    names: Sequence[str] = ()
    cells: Sequence[MapCell] = ()
    width: float
    row: float = ROW
    kind: str = "share"
    domain: tuple[float, float] = (0.0, 1.0)
    title: str = ""
    note: str = ""
    alt: str = ""
    axis: str = ""
    legend: str = ""
    font: str = FAMILY
    palette: Sequence[str] = ()

    @property
    def colors(self) -> Sequence[str]:
        """Colors at even steps of the palette, as #rrggbb."""
        name = "diverging" if self.kind in EVEN else "viridis"
        return self.palette or [f"#{color}" for color in PALETTES[name]]

    def place(self, value: float) -> float:
        """Return the position of a value on the palette, from 0 to 1."""
        low, high = self.domain
        if (even := EVEN.get(self.kind)) is None:
            return (value - low) / (high - low)
        return 0.5 + 0.5 * (value - even) / (even - low if value < even else high - even)

    def value_at(self, place: float) -> float:
        """Return the value at a position on the palette."""
        low, high = self.domain
        if (even := EVEN.get(self.kind)) is None:
            return low + place * (high - low)
        return even + (2 * place - 1) * (even - low if place < 0.5 else high - even)

    def color(self, place: float) -> str:
        """Return the color at a position on the palette, one of 64."""
        colors, most = self.colors, _COLORS - 1
        at = round(min(1.0, max(0.0, place)) * most) / most * (len(colors) - 1)
        first = min(int(at), len(colors) - 2)
        ends = (bytes.fromhex(color[1:]) for color in colors[first : first + 2])
        mixed = (round(a + (b - a) * (at - first)) for a, b in zip(*ends, strict=True))
        return "#" + bytes(mixed).hex()

    def paint(self, value: float | None) -> tuple[str, str]:
        """Return the color of a cell and the ink of its digits."""
        if value is None:
            return _UNKNOWN, MUTED
        color = self.color(self.place(value))
        return color, ink_on(color)

    def has_digits(self, wide: float) -> bool:
        """Return true if the digits of each value fit into a cell of a width."""
        texts = (digits(cell.value, self.kind) for cell in self.cells)
        return self.row >= 1.2 * SMALL and max(text_width(t, SMALL) for t in texts) + 4 <= wide

    def svg(self, margin: float = 0) -> str:
        """Return the drawing without a background; the margin is a part of its width."""
        inner, bottom = self.width - 2 * margin, 0.0
        parts: list[str] = []
        for text, size, look in (
            (self.title, TITLE, {"fill": INK, "font-weight": "bold"}),
            (self.note, LABEL, {"fill": MUTED}),
        ):
            if text:
                bottom += size + (4 if bottom else -1)
                parts.append(_text(0, bottom, fitting(text, inner, 1.06 * size), look, size))
        left = 10.0
        if self.cells:
            plot = _plot(self, bottom + 12 if bottom else 0.0, inner)
            parts += [_labels(self, plot), _cells(self, plot)]
            left = plot.left
            bottom = plot.top + self.row * len(self.names) + (27 if self.axis else 14)
        if self.legend:
            parts.append(_scale(self, left, bottom + 8, _SCALE if self.cells else inner - 2 * left))
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
    wide: float
    step: int


def _plot(shape: HeatMap, top: float, inner: float) -> _Plot:
    names = (text_width(fitting(name, _NAMES, LABEL), LABEL) for name in shape.names)
    left, columns = max(names) + _GAP, len(shape.blocks)
    longest = max(text_width(block, LABEL) for block in shape.blocks)
    step = math.ceil(columns * max(2.2 * LABEL, longest + 6) / (inner - left))
    # The last label may be wider than its cell.
    right = longest / 2 if step > 1 else 0.0
    return _Plot(left, top, (inner - left - right) / columns, step)


def _labels(shape: HeatMap, plot: _Plot) -> str:
    """Return the names of rows and blocks that have room, and the title of the blocks."""
    left, top, wide, step = plot
    look = {"fill": INK, "text-anchor": "end"}
    rows = range(0, len(shape.names), math.ceil(1.25 * LABEL / shape.row))
    names = [fitting(shape.names[row], _NAMES, LABEL) for row in rows]
    heights = [top + (row + 0.5) * shape.row + 0.35 * LABEL for row in rows]
    bottom, columns = top + shape.row * len(shape.names) + 12, len(shape.blocks)
    centered = {**look, "text-anchor": "middle"}
    parts = [_text(left - _GAP, y, name, look) for y, name in zip(heights, names, strict=True)]
    parts += [
        _text(left + (column + 0.5) * wide, bottom, shape.blocks[column], centered)
        for column in range(0, columns, step)
    ]
    if shape.axis:
        middle = left + 0.5 * columns * wide
        parts.append(_text(middle, bottom + 13, shape.axis, {**centered, "fill": MUTED}))
    return "".join(parts)


def _scale(shape: HeatMap, left: float, top: float, wide: float) -> str:
    """Return the scale of colors, the values at its ends and in the middle, and its title."""
    start = shape.place(shape.domain[0])
    colors = [shape.color(start + (1 - start) * k / (_STEPS - 1)) for k in range(_STEPS)]
    strokes = "".join(f'<path stroke="{color}" d="M{k} 0h1"/>' for k, color in enumerate(colors))
    moved = f"translate({left:.5g} {top + _THICK / 2:.5g}) scale({wide / _STEPS:.5g} 1)"
    look = f'stroke-width="{_THICK}" shape-rendering="crispEdges"'
    parts = [f'<g transform="{moved}" {look}>{strokes}</g>']
    below = top + _THICK + LABEL
    for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end")):
        value = shape.value_at(start + share * (1 - start))
        text = percent(value, 0, " ") if shape.kind == "share" else write(value, shape.kind)
        parts.append(_text(left + share * wide, below, text, {"fill": INK, "text-anchor": anchor}))
    place = (left + wide + _GAP, below - LABEL) if shape.cells else (left, below + 1.3 * LABEL)
    return "".join([*parts, _text(*place, shape.legend, {"fill": MUTED})])


def _cells(shape: HeatMap, plot: _Plot) -> str:
    """Return the cells, those of one color and tooltip as one path; their digits and crosses."""
    left, top, wide, _ = plot
    columns = {name: column for column, name in enumerate(shape.blocks)}
    rows = {name: row for row, name in enumerate(shape.names)}
    is_spaced = min(wide, shape.row) >= _SPACED
    length, stroke = (1 - 0.5 / side if is_spaced else 1 for side in (wide, shape.row))
    has_digits = shape.has_digits(wide)
    half = 0.3 * SMALL if has_digits else 0.35 * min(wide, shape.row)
    paths: dict[tuple[str, str], list[str]] = {}
    texts, crosses = [], []
    for cell in shape.cells:
        column, row = columns[cell.block], rows[cell.name]
        color, ink = shape.paint(cell.value)
        paths.setdefault((color, cell.tip), []).append(f"M{column} {row}h{length:.3g}")
        x, y = left + (column + 0.5) * wide, top + (row + 0.5) * shape.row
        if has_digits:
            text = digits(cell.value, shape.kind)
            texts.append(_text(x, y + 0.35 * SMALL, text, {"fill": ink}))
        if cell.is_crossed:
            x -= 1.6 * SMALL * has_digits
            lines = f"M{x - half:.5g} {y - half:.5g}l{2 * half:g} {2 * half:g}"
            crosses.append(f"{lines}m{-2 * half:g} 0l{2 * half:g} {-2 * half:g}")
    drawn = (
        f'<path stroke="{color}" d="{"".join(places)}"'
        + (f"><title>{escape(tip)}</title></path>" if tip else "/>")
        for (color, tip), places in paths.items()
    )
    moved = f"translate({left:.5g} {top + shape.row / 2:.5g}) scale({wide:.5g} {shape.row:.5g})"
    edges = "" if is_spaced else ' shape-rendering="crispEdges"'
    parts = [f'<g transform="{moved}" stroke-width="{stroke:.3g}"{edges}>{"".join(drawn)}</g>']
    over = 'pointer-events="none"'
    if crosses:
        look = f'{over} stroke="{_ON_LIGHT}" stroke-opacity="0.7" stroke-width="{half / 3:.2g}"'
        parts.append(f'<path {look} d="{"".join(crosses)}"/>')
    if texts:
        parts.append(f'<g {over} font-size="{SMALL}" text-anchor="middle">{"".join(texts)}</g>')
    return "".join(parts)


def digits(value: float | None, kind: str) -> str:
    """Return the short form of a value for a cell.

    Examples
    --------
    >>> digits(0.304, "share"), digits(1.329, "ratio"), digits(-0.05, "points"), digits(None, "own")
    ('30', '1.33', '−5', '–')
    """
    if value is None or kind not in _DIGITS:
        return write(value, kind)
    scale, form = _DIGITS[kind]
    return format(round(scale * value, 6) or 0.0, form).replace("-", "−")


def ink_on(color: str) -> str:
    """Return the ink, dark or light, with more contrast to a color."""
    channels = (part / 255 for part in bytes.fromhex(color[1:]))
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    luminance = sum(map(mul, (0.2126, 0.7152, 0.0722), linear))
    return _ON_LIGHT if luminance > _TURN else _ON_DARK


def text_width(text: str, size: float) -> float:
    """Return about how wide Helvetica sets a text, rather more than less."""
    return size * sum(
        0.34 if letter in _NARROW
        else 1.0 if letter in _WIDE or unicodedata.east_asian_width(letter) in "WF"
        else 0.72 if letter.isupper()
        else 0.57
        for letter in text
    )  # fmt: skip


def fitting(text: str, width: float, size: float) -> str:
    """Return as much of a text as fits into a width."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text, size) + size > width:
        text = text[:-1]
    return f"{text}…"


def _text(x: float, y: float, text: str, look: Mapping[str, str], size: float = LABEL) -> str:
    named = look if size == LABEL else {**look, "font-size": f"{size}"}
    drawn = "".join(f' {key}="{value}"' for key, value in named.items())
    return f'<text x="{x:.5g}" y="{y:.5g}"{drawn}>{escape(text, quote=False)}</text>'
