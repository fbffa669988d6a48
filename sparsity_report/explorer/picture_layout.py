"""Where the parts of the picture stand: by the study and the width of the page, by nothing else.

Every part has a frame of a declared size with room for its title, axes and legend, whatever level,
metric or modules it shows, so that nothing moves when they change.
"""

from __future__ import annotations

from typing import NamedTuple

GAP = 14
# Above a part for the line under its title; with the title, which stands above that room.
NOTE, _TOP = 22, 42
# Width below which all stands in one column.
_NARROW = 620
# Widths of a cell: that holds its number, and at most.
_CELL, _WIDEST = 30, 110
# Below a map: names of blocks, title, colours; below a histogram, bars and a curve: their axes.
_BELOW_CELLS, _BELOW_HISTOGRAM, _BELOW_BARS, _BELOW_CURVE = 88, 44, 36, 54
_LEGEND_ROW = 19
_HISTOGRAM = 130
# Left of a curve, for numbers and title of its axis; right of it for half a number.
_AXIS, _RIGHT = 54, 22
# Right of a map or a histogram.
_END = 18
#: Thickness of a bar at most.
THICK = 18.0
# Height of a bar of those that are shown together, and between groups of them.
_BAND, _BETWEEN = 11, 9


class Room(NamedTuple):
    """The most that any state of a study asks of its picture.

    Attributes
    ----------
    blocks, rows, most_rows, letters : int
        Columns of the map; its rows at first and at most; letters of the longest of their names.
    groups, group_letters : int
        Of bars, likewise.
    legends : tuple of tuple of str
        What legends of the bars name.
    curve, histogram : bool
        Whether there are such parts.
    lines : int
        That legends of the curve name at most.
    """

    blocks: int
    rows: int
    most_rows: int
    letters: int
    groups: int
    group_letters: int
    legends: tuple[tuple[str, ...], ...]
    curve: bool
    histogram: bool
    lines: int = 3


class Frame(NamedTuple):
    """A part's plot, and what stands around it, in pixels."""

    width: float
    height: float
    left: float
    right: float
    bottom: float

    @property
    def outside(self) -> float:
        """The whole height."""
        return _TOP + self.height + self.bottom


class Plan(NamedTuple):
    """Frames of the parts, and their form: in a column, beside each other, or the map above.

    Where there is no histogram, the curve may stand ``"under"`` the map, beside the bars.
    """

    form: str
    cells: Frame
    bars: Frame
    curve: Frame | None
    histogram: Frame | None

    @property
    def left(self) -> float:
        """Height of map and histogram."""
        return _height(self.cells, self.histogram)

    @property
    def right(self) -> float:
        """Height of bars and curve."""
        return _height(self.bars, self.curve)


def plan(room: Room, width: int) -> Plan:
    """Return where parts stand on a page of some width."""
    map_left, bars_left = (20 + min(110, 6 * n) for n in (room.letters, room.group_letters))
    bars_left = max(_AXIS, bars_left)
    both, half = max(map_left, bars_left), round(0.48 * width)
    if width < _NARROW:
        inside = width - both - _RIGHT - 4
        return _plan("column", room, (both, inside), (both, inside))
    if room.blocks * _CELL > half - map_left:
        made = _plan("above", room, (both, width - both - _END - 4), (both, half - both - _RIGHT))
        high = _height(made.bars, made.histogram)
        curve = width - half - GAP - _AXIS - _RIGHT - 4
        return made._replace(curve=_stretched(made.curve, room, high, left=_AXIS, width=curve))
    inside = max(220, min(half - map_left, _WIDEST * room.blocks))
    rest = width - map_left - inside - _END - GAP - bars_left - _RIGHT - 4
    made = _plan("beside", room, (map_left, inside), (bars_left, rest))
    if made.curve and not made.histogram and made.cells.outside < made.bars.outside:
        return _under(made, room)
    made = made._replace(curve=_stretched(made.curve, room, made.left - made.bars.outside - GAP))
    more = made.right - made.left
    histogram = made.histogram and made.histogram._replace(
        left=map_left, width=inside, height=_HISTOGRAM + max(0, more)
    )
    return made._replace(histogram=histogram)


def _plan(form: str, room: Room, cells: tuple[float, float], bars: tuple[float, float]) -> Plan:
    """Return frames of a map, and of bars and what is under them, by left rooms and widths."""
    high = float(max(132, min(420, max(44 * room.rows, 22 * room.most_rows))))
    (map_left, map_width), (left, width) = cells, bars
    lines = max(_lines(names, width) for names in room.legends)
    variants = max(map(len, room.legends))
    full = room.groups * (variants * _BAND + _BETWEEN)
    # As many bars as there may be are thin, but are there.
    height = max(110.0, min(full, 250), 1.5 * room.groups * (variants + 1))
    curve = Frame(width, 190, left, _RIGHT, _below_curve(width, room.lines))
    return Plan(
        form,
        Frame(map_width, high, map_left, _END, _BELOW_CELLS),
        Frame(width, height, left, _RIGHT, _BELOW_BARS + _LEGEND_ROW * lines),
        curve if room.curve else None,
        Frame(width, _HISTOGRAM, left, _END, _BELOW_HISTOGRAM) if room.histogram else None,
    )


def _under(made: Plan, room: Room) -> Plan:
    """Return a plan whose curve stands under the map, with bars as high as both."""
    cells, left = made.cells, max(_AXIS, made.cells.left)
    width = cells.left + cells.width + cells.right - left - _RIGHT
    rest = made.bars.outside - cells.outside - GAP
    curve = _stretched(made.curve, room, rest, left=left, width=width)
    most = room.groups * _group_height(max(map(len, room.legends)))
    whole = _height(cells, curve) - _TOP - made.bars.bottom
    bars = made.bars._replace(height=max(made.bars.height, min(most, whole)))
    return made._replace(form="under", bars=bars, curve=curve)


def _stretched(curve: Frame | None, room: Room, outside: float, **beside: float) -> Frame | None:
    """Return a curve that is as high as what stands beside it, if that is high enough."""
    if curve is None:
        return None
    placed = curve._replace(**beside)
    bottom = _below_curve(placed.width, room.lines)
    return placed._replace(bottom=bottom, height=max(170.0, outside - _TOP - bottom))


def _below_curve(width: float, lines: int) -> float:
    return _BELOW_CURVE + _LEGEND_ROW * -(-lines // curve_columns(width))


def _height(first: Frame, second: Frame | None) -> float:
    return first.outside + (GAP + second.outside if second else 0)


def _group_height(variants: int) -> float:
    """Return how high a group of bars is at most, with what is between groups."""
    return 20.0 * variants + 16


def curve_columns(width: float) -> int:
    """Return in how many columns the lines of a curve are named below it."""
    return 3 if width > 330 else 2


def legend_columns(names: tuple[str, ...], width: float) -> int:
    """Return in how many columns names of variants stand below bars."""
    return max(1, int(0.8 * width) // (34 + min(140, 6 * max(map(len, names), default=0))))


def _lines(names: tuple[str, ...], width: float) -> int:
    return -(-len(names) // legend_columns(names, width)) if len(names) > 1 else 0
