"""The explorer's picture: heat map, bars, curve and histogram as one chart, its data apart.

A :class:`Look` says how the picture is built, the data what it shows: as long as the look stays,
moving the slider or selecting only swaps data.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import altair as alt

from sparsity_report.draw import marks
from sparsity_report.draw.level_slider import COST_LINES
from sparsity_report.draw.theme import INK, SCREEN, VERMILLION, config
from sparsity_report.draw.tradeoff_chart import TradeoffShape, tradeoff_curve
from sparsity_report.draw.vega import unchecked
from sparsity_report.explorer.picture_layout import GAP, NOTE, THICK, Frame, Plan, curve_columns
from sparsity_report.words.languages import Language, spoken
from sparsity_report.words.sentences import say

Data = dict[str, list[dict[str, Any]]]
# Vega-Lite.
Spec = dict[str, Any]
# Whose charts are kept.
_LANGUAGES = 2
# What marks stand on that have no rows, as altair calls it.
_NOTHING: dict[str, Any] = {"empty": [{}]}
_BRUSHED = "brushed"
_BRUSH: dict[str, Any] = {
    "name": "brush",
    "select": {"type": "interval", "encodings": ["x", "y"], "clear": "dblclick"},
    "views": [_BRUSHED],
}

# Columns of `Facts.levels` and the lines that show them; the third line is even.
CURVES = {key: line.name for key, line in COST_LINES.items() if key != "dense"}
EVEN = COST_LINES["dense"].name
_APART: dict[str, Any] = dict.fromkeys(
    ("x", "y", "color", "fill", "stroke", "strokeDash", "shape"), "independent"
)


class Look(NamedTuple):
    """All of the picture that is not data: the same look, the same chart."""

    width: int
    name: str
    kind: str
    log: bool
    blocks: tuple[str, ...]
    projections: tuple[str, ...]
    domain: tuple[float, float]
    bars: tuple[str, ...]
    variants: tuple[tuple[str, str, str], ...]
    reach: tuple[float, float]
    curve: float
    plan: Plan
    alt: str
    quality: TradeoffShape | None = None
    numbers: bool = True


class Pictures:
    """Charts of one language by their look, each made once; get them from :func:`pictures`.

    Parts are kept by themselves, as a change of one leaves the others as they are.
    """

    def __init__(self, language: Language) -> None:
        self.language = language
        self.compiled = lru_cache(maxsize=32)(self._compiled)
        self._cells, self._bars, self._curve, self._quality, self._histogram = (
            lru_cache(maxsize=32)(part) for part in (_cells, _bars, _curve, _quality, _histogram)
        )

    def _compiled(self, look: Look) -> Spec:
        """Return the picture of a look as the front end reads it, without data."""
        plan = look.plan
        cells = self._cells(_map_of(look), look.name, plan.cells)
        bars = self._bars(_bars_of(look), look.name, plan.bars)
        curve: list[Spec] = []
        if plan.curve and look.quality:
            curve = [self._quality(look.quality, plan.curve)]
        elif plan.curve:
            curve = [self._curve(look.curve, plan.curve)]
        histogram = [self._histogram(plan.histogram)] if plan.histogram else []
        inner: Spec = {"spacing": GAP, "resolve": {"scale": _APART}}
        if plan.form == "column":
            parts: Spec = {"vconcat": [cells, *histogram, bars, *curve]}
        elif plan.form == "above":
            below = [{"vconcat": [bars, *histogram], **inner}, *curve]
            parts = {"vconcat": [cells, {"hconcat": below, **inner}]}
        else:
            columns = ([cells, *histogram], [bars, *curve])
            if plan.form == "under":
                columns = ([cells, *curve], [bars])
            parts = {"hconcat": [{"vconcat": column, **inner} for column in columns]}
        return {
            "$schema": alt.SCHEMA_URL,
            **parts,
            **inner,
            "description": look.alt,
            # What the front end can tell the width of the page from that it was drawn for.
            "usermeta": {"width": look.width},
            "background": "white",
            "config": _config(),
            "params": [_BRUSH],
            "datasets": _NOTHING,
        }


_kept: list[Pictures] = []


def pictures() -> Pictures:
    """Return the charts of the language spoken, the same for every explorer of a process."""
    for kept in _kept:
        if kept.language is spoken():
            return kept
    _kept[:0] = [Pictures(spoken())]
    del _kept[_LANGUAGES:]
    return _kept[0]


class Drawn(alt.TopLevelMixin, alt.Root):
    """A chart that is written as Vega-Lite already.

    Altair copies all parts of a concatenation whenever it makes or writes one, which takes longer
    than a slider may.
    """

    def to_dict(self, validate: bool = True, **_: Any) -> Spec:
        """Return the chart as Vega-Lite reads it."""
        spec = dict(vars(self)["_kwds"])
        if validate:
            self.validate(spec)
        return spec


def filled(spec: Spec, data: Data) -> Drawn:
    """Return a chart of :class:`Pictures` with its data in it."""
    return Drawn(**with_data(spec, data))  # type: ignore[no-untyped-call]


def with_data(spec: Spec, data: Data) -> Spec:
    """Return a spec with its data in it."""
    return {**spec, "datasets": {**spec["datasets"], **data}}


def _config() -> Spec:
    look = config(SCREEN)
    look["title"] |= {"frame": "group", "offset": 5}
    return look | {"padding": 2}


@unchecked()
def _panel(part: alt.LayerChart, name: str, title: str, frame: Frame) -> Spec:
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
    inside: Spec = {"top_level": False, "datasets": {}}
    spec: Spec = part.to_dict(validate=False, context=inside)
    return spec


def _map_of(look: Look) -> marks.HeatMap:
    frame = look.plan.cells
    return marks.HeatMap(
        blocks=look.blocks,
        projections=look.projections,
        width=frame.width,
        row=frame.height / max(1, len(look.projections)),
        kind=look.kind,
        title=_unit(look),
        domain=look.domain,
        log=look.log,
        tips=(("tip", say("column.module")), ("label", look.name)),
        below=True,
        selectable=True,
        names=frame.left - 10,
        numbers=look.numbers,
        sizes=SCREEN,
    )


def _unit(look: Look) -> str:
    """Return what stands over the colours."""
    unit = {
        "points": say("explorer.unit_percentage_points"),
        "nats": say("explorer.unit_nats_per_token"),
    }.get(look.kind)
    return f"{look.name}, {unit}" if unit else look.name


@unchecked()
def _cells(shape: marks.HeatMap, name: str, frame: Frame) -> Spec:
    cells = marks.heat_map(alt.NamedData(name="cells"), shape)
    # What is brushed are views by their names.
    cells.layer[0].name = _BRUSHED
    # The layer looked at, and the cell that keys are at.
    looked, pointed = (alt.NamedData(name=name) for name in ("looked", "pointed"))
    cells.layer += [marks.outlined(looked, shape, INK), marks.outlined(pointed, shape, VERMILLION)]
    return _panel(cells, "cells", say("explorer.map_title", metric=name), frame)


def _bars_of(look: Look) -> marks.Bars:
    frame = look.plan.bars
    # Groups share their frame, with bars up to a thickness and no less than a tenth between.
    group, count = frame.height / max(1, len(look.bars)), len(look.variants)
    band = min(THICK, (group - min(12.0, 0.9 * group / (count + 1))) / count)
    gap = group - band * count
    low, high = look.reach
    # For labels at their ends.
    room = 0.16 * (high - low)
    return marks.Bars(
        groups=look.bars,
        inks=look.variants,
        width=frame.width,
        domain=(1, high * 4) if look.log else (low - room if low < 0 else 0, high + room),
        band=band,
        gap=gap,
        kind=look.kind,
        log=look.log,
        labels=band >= 9,
        tips=(
            ("group", say("label.group")),
            ("variant", say("label.variant")),
            ("label", look.name),
        ),
        below=True,
        selectable=True,
        names=frame.left - 10,
        sizes=SCREEN,
    )


@unchecked()
def _bars(shape: marks.Bars, name: str, frame: Frame) -> Spec:
    return _panel(marks.bars(alt.NamedData(name="bars"), shape), "bars", name, frame)


@unchecked()
def _curve(top: float, frame: Frame) -> Spec:
    shape = marks.Curve(
        lines=tuple(line._replace(name=say(line.name)) for line in COST_LINES.values()),
        width=frame.width,
        height=frame.height,
        top=top,
        x_title=say("label.prunable_zeros"),
        y_title=say("column.ratio_to_dense"),
        ticks=(0, 0.5, 1, 1.5, 2, 2.5, 3),
        flip=True,
        below=True,
        columns=curve_columns(frame.width),
        # A mark without any takes no events of the pointer.
        tips=(("tip", say("chart.level_label")),),
        sizes=SCREEN,
    )
    named = (alt.NamedData(name=name) for name in ("curve", "even", "level", "pulls"))
    lines, even, level, pulls = named
    part = marks.curve(lines, shape, evens=even, levels=level, pulls=pulls)
    return _panel(part, "curve", say("explorer.cost_curve_title"), frame)


@unchecked()
def _quality(shape: TradeoffShape, frame: Frame) -> Spec:
    data = {name: alt.NamedData(name=name) for name in ("curve", "points", "level", "pulls")}
    size = (frame.width, frame.height)
    columns = min(curve_columns(frame.width), len(shape.lines))
    part = tradeoff_curve(data, shape, size, columns, SCREEN)
    return _panel(part, "curve", say("explorer.quality_curve_title"), frame)


@unchecked()
def _histogram(frame: Frame) -> Spec:
    bars, threshold = alt.NamedData(name="magnitudes"), alt.NamedData(name="threshold")
    size, outline = (frame.width, frame.height), alt.NamedData(name="outline")
    part = marks.histogram(bars, threshold, size=size, sizes=SCREEN, outline=outline)
    return _panel(part, "histogram", say("explorer.histogram_title"), frame)
