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
from sparsity_report.draw.look import INK, METRICS, SCREEN, VERMILLION, config
from sparsity_report.draw.slider import COST_LINES
from sparsity_report.draw.vega import unchecked
from sparsity_report.explorer.plan import GAP, NOTE, Frame, Plan, curve_columns, group_height
from sparsity_report.words.language import Language, spoken
from sparsity_report.words.sentences import say

Data = dict[str, list[dict[str, Any]]]
# Whose charts are kept.
_LANGUAGES = 2

# Columns of `Facts.levels` and the lines that show them; the third line is even.
CURVES = {key: line.name for key, line in COST_LINES.items() if key != "dense"}
EVEN = COST_LINES["dense"].name
# Metrics of layers as well as of groups of them.
SHOWN = ("sparsity", "total", "nonzero", "flops_per_token", "stored_bytes", "bytes_ratio")
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
    plan: Plan
    alt: str
    numbers: bool = True


class Pictures:
    """Charts of one language by their look, each made once; get them from :func:`pictures`."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self.chart = lru_cache(maxsize=32)(picture)
        # As the front end reads them.
        self.compiled = lru_cache(maxsize=32)(lambda look: self.chart(look).to_dict(validate=False))


_kept: list[Pictures] = []


def pictures() -> Pictures:
    """Return the charts of the language spoken, the same for every explorer of a process."""
    for kept in _kept:
        if kept.language is spoken():
            return kept
    _kept[:0] = [Pictures(spoken())]
    del _kept[_LANGUAGES:]
    return _kept[0]


@unchecked()
def picture(look: Look) -> alt.HConcatChart | alt.VConcatChart:
    """Return the chart of a look, without data; its parts stand where its plan says."""
    # All at once: every call of a method would copy all parts again.
    whole: dict[str, Any] = {
        "resolve": alt.Resolve(scale=alt.ScaleResolveMap(**_APART)),
        "description": look.alt,
        # What the front end can tell the width of the page from that it was drawn for.
        "usermeta": {"width": look.width},
        "background": "white",
        "config": alt.Config(**_config()),
        "spacing": GAP,
    }
    inner: dict[str, Any] = {"spacing": GAP, "resolve": whole["resolve"]}
    cells, bars, curve, histogram = _cells(look), _bars(look), _curve(look), _histogram(look)
    if look.plan.form == "column":
        return alt.VConcatChart(vconcat=[cells, *histogram, bars, *curve], **whole)
    if look.plan.form == "above":
        below = [alt.VConcatChart(vconcat=[bars, *histogram], **inner), *curve]
        return alt.VConcatChart(vconcat=[cells, alt.HConcatChart(hconcat=below, **inner)], **whole)
    columns = ([cells, *histogram], [bars, *curve])
    if look.plan.form == "under":
        columns = ([cells, *curve], [bars])
    stacks = [alt.VConcatChart(vconcat=column, **inner) for column in columns]
    return alt.HConcatChart(hconcat=stacks, **whole)


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


def _panel(part: alt.LayerChart, name: str, title: str, frame: Frame) -> alt.LayerChart:
    """Name a part and give it its place; the line under its title is data, as the level is."""
    width = frame.left + frame.width
    notes = alt.NamedData(name="notes")
    part.layer += [
        marks.note(notes, name, width, SCREEN, frame.left),
        marks.frame(frame.width, frame.height, frame.left, frame.right, (NOTE, frame.bottom)),
    ]
    # Beside its axis, as what else stands on the page.
    part.title = alt.TitleParams(text=title, dx=-frame.left, limit=width)
    part.name, part.height = name, frame.height
    return part


def _cells(look: Look) -> alt.LayerChart:
    metric, frame = METRICS[look.metric], look.plan.cells
    shape = marks.HeatMap(
        blocks=look.blocks,
        projections=look.projections,
        width=frame.width,
        row=frame.height / max(1, len(look.projections)),
        kind=metric.kind,
        domain=look.domain,
        log=look.log,
        tips=(("tip", say("module")), ("label", say(metric.name))),
        below=True,
        selectable=True,
        names=frame.left - 10,
        numbers=look.numbers,
        sizes=SCREEN,
    )
    brush = alt.selection_interval(name="brush", encodings=["x", "y"], clear="dblclick")
    cells = marks.heat_map(alt.NamedData(name="cells"), shape, params=[brush])
    # The layer looked at, and the cell that keys are at.
    looked, pointed = (alt.NamedData(name=name) for name in ("looked", "pointed"))
    cells.layer += [marks.outlined(looked, shape, INK), marks.outlined(pointed, shape, VERMILLION)]
    return _panel(cells, "cells", say("{metric} per layer", metric=say(metric.name)), frame)


def _bars(look: Look) -> alt.LayerChart:
    metric, frame = METRICS[look.metric], look.plan.bars
    # Of one group with half of what is between groups: bars fill their frame, up to a size.
    group = min(frame.height / max(1, len(look.bars)), group_height(len(look.variants)))
    gap = min(12.0, 0.9 * group / (len(look.variants) + 1))
    band = (group - gap) / len(look.variants)
    shape = marks.Bars(
        groups=look.bars,
        inks=look.variants,
        width=frame.width,
        domain=(1, look.longest * 4) if look.log else (0, look.longest * 1.16),
        band=band,
        gap=gap,
        kind=metric.kind,
        log=look.log,
        labels=band >= 9,
        tips=(("group", say("group")), ("variant", say("variant")), ("label", say(metric.name))),
        below=True,
        selectable=True,
        names=frame.left - 10,
        sizes=SCREEN,
    )
    return _panel(marks.bars(alt.NamedData(name="bars"), shape), "bars", say(metric.name), frame)


def _curve(look: Look) -> list[alt.LayerChart]:
    if (frame := look.plan.curve) is None:
        return []
    shape = marks.Curve(
        lines=tuple(line._replace(name=say(line.name)) for line in COST_LINES.values()),
        width=frame.width,
        height=frame.height,
        top=look.curve,
        x_title=say("zeros of the prunable weights"),
        y_title=say("÷ dense"),
        ticks=(0, 0.5, 1, 1.5, 2, 2.5, 3),
        flip=True,
        below=True,
        columns=curve_columns(frame.width),
        sizes=SCREEN,
    )
    lines, even, level = (alt.NamedData(name=name) for name in ("curve", "even", "level"))
    part = marks.curve(lines, shape, evens=even, levels=level)
    return [_panel(part, "curve", say("CSR against dense"), frame)]


def _histogram(look: Look) -> list[alt.LayerChart]:
    if (frame := look.plan.histogram) is None:
        return []
    bars, threshold = alt.NamedData(name="magnitudes"), alt.NamedData(name="threshold")
    part = marks.histogram(bars, threshold, size=(frame.width, frame.height), sizes=SCREEN)
    return [_panel(part, "histogram", say("Magnitudes of one layer"), frame)]
