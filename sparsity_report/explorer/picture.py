"""The explorer's picture: heat map, bars, curve and histogram as one chart, its data apart.

A :class:`Look` says how the picture is built, the data what it shows: as long as the look stays,
moving the slider or selecting only swaps data.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any, NamedTuple

import altair as alt

from sparsity_report.draw import marks
from sparsity_report.draw.look import METRICS, SCREEN, config
from sparsity_report.draw.slider import COST_LINES
from sparsity_report.words.sentences import say

Data = dict[str, list[dict[str, Any]]]

# Columns of `Facts.levels` and the lines that show them; the third line is even.
CURVES = {key: line.name for key, line in COST_LINES.items() if key != "dense"}
EVEN = COST_LINES["dense"].name
# Metrics of layers as well as of groups of them.
SHOWN = ("sparsity", "total", "nonzero", "flops_per_token", "stored_bytes", "bytes_ratio")
_GAP = 34
# Width below which all stands in one column.
_NARROW = 620
# Widths of a cell: that holds its number, and at most.
_CELL = 30
_WIDEST = 110
_APART: dict[str, Any] = dict.fromkeys(
    ("x", "y", "color", "fill", "stroke", "strokeDash"), "independent"
)


class Look(NamedTuple):
    """All of the picture that is not data: the same look, the same chart."""

    width: int
    metric: str
    log: bool
    blocks: tuple[str, ...]
    projections: tuple[str, ...]
    domain: tuple[float, float]
    bars: tuple[str, ...]
    variants: tuple[tuple[str, str, str], ...]
    longest: float
    curve: float
    histogram: bool
    alt: str
    numbers: bool = True


class Pictures:
    """Charts by their look, each made once, in the language spoken then."""

    def __init__(self) -> None:
        self.chart = lru_cache(maxsize=32)(picture)
        # As the front end reads them.
        self.compiled = lru_cache(maxsize=32)(lambda look: self.chart(look).to_dict(validate=False))


def picture(look: Look) -> alt.HConcatChart | alt.VConcatChart:
    """Return the chart of a look, without data.

    Its parts stand in one column, in two, or the map above the others where its blocks are many.
    """
    # All at once: every call of a method would copy all parts again.
    whole: dict[str, Any] = {
        "resolve": alt.Resolve(scale=alt.ScaleResolveMap(**_APART)),
        "description": look.alt,
        # What the front end can tell the width of the page from that it was drawn for.
        "usermeta": {"width": look.width},
        "background": "white",
        "config": alt.Config(**_config()),
    }
    stacked: dict[str, Any] = {"spacing": _GAP, "resolve": whole["resolve"]}
    labels, names = (
        20 + min(140, 6 * max(map(len, part), default=0)) for part in (look.projections, look.bars)
    )
    # Parts above each other start where the longer names end.
    beside_rows = max(labels, names)
    if look.width < _NARROW:
        inner = look.width - max(54, beside_rows) - 30
        column = [_cells(look, width=inner), *_histogram(look, width=inner)]
        column += [_bars(look, width=inner - 10), *_curve(look, width=inner, height=190)]
        return alt.VConcatChart(vconcat=column, spacing=_GAP, **whole)
    half = round(0.48 * look.width)
    if len(look.blocks) * _CELL > half - labels:
        column = [_bars(look, width=half - names - 30), *_histogram(look, width=half - 60)]
        beside = _curve(
            look,
            width=look.width - half - 110,
            height=int(column[0].height) + (215 if look.histogram else -14),
        )
        parts = [alt.VConcatChart(vconcat=column, **stacked), *beside]
        below = alt.HConcatChart(hconcat=parts, **stacked)
        cells = _cells(look, width=look.width - beside_rows - 24)
        return alt.VConcatChart(vconcat=[cells, below], spacing=_GAP, **whole)
    half = max(220, min(half - labels, _WIDEST * len(look.blocks)))
    cells = _cells(look, width=half)
    bars = _bars(look, width=look.width - half - labels - names - 80)
    # Both columns end level, as far as a curve can be stretched for it.
    beside = _curve(
        look,
        width=look.width - half - labels - 130,
        height=int(cells.height) - int(bars.height) + (139 if look.histogram else -90),
    )
    columns = ([cells, *_histogram(look, width=half)], [bars, *beside])
    stacks = [alt.VConcatChart(vconcat=column, **stacked) for column in columns]
    return alt.HConcatChart(hconcat=stacks, spacing=44, **whole)


def filled(chart: Any, data: Data) -> Any:
    """Return a chart of :func:`picture` with its data in it."""
    # Its own copy() copies every part of a concatenation: 90 ms, and the slider has 100.
    whole = copy.copy(chart)
    vars(whole)["_kwds"] = {**vars(chart)["_kwds"], "datasets": data}
    return whole


def _config() -> dict[str, Any]:
    look = config(SCREEN)
    look["title"] |= {"frame": "group", "offset": 5}
    return look | {"padding": 2}


def _panel(part: alt.LayerChart, name: str, title: str) -> alt.LayerChart:
    """Name a part; the line under its title is data, because the level is in it."""
    part.layer.append(marks.note(alt.NamedData(name="notes"), name, part.width, SCREEN))
    part.title, part.name = alt.TitleParams(text=title), name
    return part


def _cells(look: Look, width: float) -> alt.LayerChart:
    metric = METRICS[look.metric]
    row = max(4, min(44, round(420 / max(1, len(look.projections)))))
    shape = marks.HeatMap(
        blocks=look.blocks,
        projections=look.projections,
        width=width,
        row=row,
        kind=metric.kind,
        domain=look.domain,
        log=look.log,
        tips=(("tip", say("module")), ("label", say(metric.name))),
        below=True,
        selectable=True,
        numbers=look.numbers,
        sizes=SCREEN,
    )
    brush = alt.selection_interval(name="brush", encodings=["x", "y"], clear="dblclick")
    cells = marks.heat_map(alt.NamedData(name="cells"), shape, params=[brush])
    return _panel(cells, "cells", say("{metric} per layer", metric=say(metric.name)))


def _bars(look: Look, width: float) -> alt.LayerChart:
    metric = METRICS[look.metric]
    band = max(3, min(12, 420 // max(1, len(look.bars) * len(look.variants))))
    shape = marks.Bars(
        groups=look.bars,
        inks=look.variants,
        width=width,
        domain=(1, look.longest * 4) if look.log else (0, look.longest * 1.16),
        band=band,
        gap=min(10, band),
        kind=metric.kind,
        log=look.log,
        labels=band >= 9,
        tips=(("group", say("group")), ("variant", say("variant")), ("label", say(metric.name))),
        below=True,
        selectable=True,
        sizes=SCREEN,
    )
    return _panel(marks.bars(alt.NamedData(name="bars"), shape), "bars", say(metric.name))


def _curve(look: Look, width: float, height: float) -> list[alt.LayerChart]:
    if not look.curve:
        return []
    shape = marks.Curve(
        lines=tuple(line._replace(name=say(line.name)) for line in COST_LINES.values()),
        width=width,
        height=max(170, min(330, height)),
        top=look.curve,
        x_title=say("zeros of the prunable weights"),
        y_title=say("÷ dense"),
        ticks=(0, 0.5, 1, 1.5, 2, 2.5, 3),
        flip=True,
        below=True,
        columns=3 if width > 330 else 2,
        sizes=SCREEN,
    )
    lines, even, level = (alt.NamedData(name=name) for name in ("curve", "even", "level"))
    part = marks.curve(lines, shape, evens=even, levels=level)
    return [_panel(part, "curve", say("CSR against dense"))]


def _histogram(look: Look, width: float) -> list[alt.LayerChart]:
    if not look.histogram:
        return []
    bars, threshold = alt.NamedData(name="magnitudes"), alt.NamedData(name="threshold")
    part = marks.histogram(bars, threshold, size=(width, 130), sizes=SCREEN)
    return [_panel(part, "histogram", say("Magnitudes of one layer"))]
