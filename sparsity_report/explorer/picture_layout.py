"""Layout of the picture's parts, which depends only on the study and the width of the page.

Every part has a frame with room for its title, axes and legend at any level, metric or modules, so
that nothing moves when these change.
"""

from typing import NamedTuple

GAP = 14
# Height of the line under a title, and of both.
NOTE, _TOP = 22, 42
# Width below which there is one column.
_NARROW = 620
# Widths of a cell: with a number, and the greatest.
_CELL, _WIDEST = 30, 110
# Heights below a map (names of blocks, title, colors), a histogram, bars and a curve (axes).
_BELOW_CELLS, _BELOW_HISTOGRAM, _BELOW_BARS, _BELOW_CURVE = 88, 44, 36, 54
_LEGEND_ROW = 19
_HISTOGRAM = 130
# Widths on the left of a curve, for its axis, and on the right, for half a number.
_AXIS, _RIGHT = 54, 22
# Width on the right of a map or a histogram.
_END = 18
#: Greatest thickness of a bar.
THICK = 18.0
# Heights of a bar in a group, and of the space between groups.
_BAND, _BETWEEN = 11, 9
# Width of the space on the left of a plot, and its own.
_Plot = tuple[float, float]


class Room(NamedTuple):
    """Space that the picture of a study needs at most.

    Attributes
    ----------
    blocks, rows, most_rows, letters : int
        Columns of the map; its rows at first and at most; letters of their longest name.
    groups, group_letters : int
        Number of groups of bars, and letters of their longest name.
    legends : tuple of tuple of str
        Names in each legend of the bars.
    curve, histogram : bool
        True if there are such parts.
    lines : int
        Most names in a legend of the curve.
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
    """Size of a part's plot and of the space around it, in pixels."""

    left: float
    width: float
    height: float
    right: float
    bottom: float

    @property
    def outside(self) -> float:
        """Height including title and axes."""
        return _TOP + self.height + self.bottom


class Plan(NamedTuple):
    """Frames of the parts, and their form: one column, the map above the rest, or two columns."""

    form: str
    cells: Frame
    bars: Frame
    curve: Frame | None
    histogram: Frame | None


def plan(room: Room, width: int) -> Plan:
    """Return the frames of the parts on a page of a width."""
    map_left, bars_left = (20 + min(110, 6 * n) for n in (room.letters, room.group_letters))
    bars_left = max(_AXIS, bars_left)
    both, half = max(map_left, bars_left), round(0.48 * width)
    if width < _NARROW:
        column = both, width - both - _RIGHT - 4
        return _plan("column", room, column, column, column, column)
    if room.blocks * _CELL > half - map_left:
        bars = both, half - both - _RIGHT
        curve = _AXIS, width - half - GAP - _AXIS - _RIGHT - 4
        frames = _plan("above", room, (both, width - both - _END - 4), bars, bars, curve)
        beside = frames.bars.outside + (GAP + frames.histogram.outside if frames.histogram else 0)
        return frames._replace(curve=_stretched(frames.curve, beside))
    cells = map_left, max(220, min(half - map_left, _WIDEST * room.blocks))
    rest = width - sum(cells) - _END - GAP - bars_left - _RIGHT - 4
    frames = _plan("beside", room, cells, (bars_left, rest), cells, (bars_left, rest))
    left, right = frames.cells.outside, frames.bars.outside + GAP
    if frames.histogram:
        left += GAP + frames.histogram.outside
    frames = frames._replace(curve=_stretched(frames.curve, left - right))
    if frames.histogram and frames.curve:
        more = max(0, right + frames.curve.outside - left)
        return frames._replace(histogram=frames.histogram._replace(height=_HISTOGRAM + more))
    return frames


def _plan(form: str, room: Room, cells: _Plot, bars: _Plot, histogram: _Plot, curve: _Plot) -> Plan:
    """Return a plan whose parts have the given room on the left and the given widths."""
    high = float(max(132, min(420, max(44 * room.rows, 22 * room.most_rows))))
    lines = max(_legend_rows(names, bars[1]) for names in room.legends)
    variants = max(map(len, room.legends))
    wanted = room.groups * (variants * _BAND + _BETWEEN)
    # Many bars are thin, but each is visible.
    height = max(110.0, min(wanted, 250), 1.5 * room.groups * (variants + 1))
    below_curve = _BELOW_CURVE + _LEGEND_ROW * -(-room.lines // curve_columns(curve[1]))
    below_bars = _BELOW_BARS + _LEGEND_ROW * lines
    return Plan(
        form,
        Frame(*cells, high, _END, _BELOW_CELLS),
        Frame(*bars, height, _RIGHT, below_bars),
        Frame(*curve, 190, _RIGHT, below_curve) if room.curve else None,
        Frame(*histogram, _HISTOGRAM, _END, _BELOW_HISTOGRAM) if room.histogram else None,
    )


def _stretched(curve: Frame | None, outside: float) -> Frame | None:
    """Return the curve as high as its neighbor, but no lower than it can be read."""
    return curve and curve._replace(height=max(170.0, outside - _TOP - curve.bottom))


def curve_columns(width: float) -> int:
    """Return the number of columns of the legend of a curve."""
    return 3 if width > 330 else 2


def legend_columns(names: tuple[str, ...], width: float) -> int:
    """Return the number of columns of the legend of bars."""
    return max(1, int(0.8 * width) // (34 + min(140, 6 * max(map(len, names), default=0))))


def _legend_rows(names: tuple[str, ...], width: float) -> int:
    return -(-len(names) // legend_columns(names, width)) if len(names) > 1 else 0
