"""The explorer's picture: heat map, bars, curve and histogram as one chart without its data.

A :class:`Look` determines the chart. With the same look, the slider only swaps data.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import altair as alt

from sparsity_report.draw import export, marks
from sparsity_report.draw.level_slider import COST_LINES
from sparsity_report.draw.marks import Rows
from sparsity_report.draw.theme import INK, SCREEN, VERMILLION, config
from sparsity_report.draw.tradeoff_chart import TradeoffShape, tradeoff_curve
from sparsity_report.draw.vega import unchecked
from sparsity_report.explorer.picture_layout import GAP, NOTE, THICK, Frame, Plan, curve_columns
from sparsity_report.files.atomic import write_file
from sparsity_report.study.derived.heatmap_grid import Cell, Grid
from sparsity_report.words import number_format
from sparsity_report.words.languages import Language, spoken
from sparsity_report.words.sentences import say

Data = dict[str, list[dict[str, Any]]]
# Vega-Lite.
Spec = dict[str, Any]
# Most languages with cached charts.
_LANGUAGES = 2
# The data of marks without rows, as altair names it.
_NOTHING: dict[str, Any] = {"empty": [{}]}
_BRUSHED = "brushed"
_BRUSH: dict[str, Any] = {
    "name": "brush",
    "select": {"type": "interval", "encodings": ["x", "y"], "clear": "dblclick"},
    "views": [_BRUSHED],
}

# Columns of `Facts.levels` and their lines; the third line is dense.
CURVES = {key: line.name for key, line in COST_LINES.items() if key != "dense"}
EVEN = COST_LINES["dense"].name
_APART: dict[str, Any] = dict.fromkeys(
    ("x", "y", "color", "fill", "stroke", "strokeDash", "shape"), "independent"
)


class Look(NamedTuple):
    """The picture without its data."""

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
    """Charts in one language by their look; get them from :func:`pictures`.

    Parts are cached separately, because a change of one leaves the others as they are.
    """

    def __init__(self, language: Language) -> None:
        self.language = language
        self.compiled = lru_cache(maxsize=32)(self._compiled)
        self._cells, self._bars, self._curve, self._quality, self._histogram = (
            lru_cache(maxsize=32)(part) for part in (_cells, _bars, _curve, _quality, _histogram)
        )

    def _compiled(self, look: Look) -> Spec:
        """Return the Vega-Lite of a look without data."""
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
            parts = {"hconcat": [{"vconcat": column, **inner} for column in columns]}
        spec = chart_spec({**parts, **inner}, look.width, _config(), _NOTHING)
        return spec | {"description": look.alt, "params": [_BRUSH]}


_kept: list[Pictures] = []


def pictures() -> Pictures:
    """Return the charts in the language in use, the same for every explorer of a process."""
    known = next((each for each in _kept if each.language is spoken()), None)
    _kept[:] = [known or Pictures(spoken()), *(each for each in _kept if each is not known)]
    del _kept[_LANGUAGES:]
    return _kept[0]


class Drawn(alt.TopLevelMixin, alt.Root):
    """A chart made of Vega-Lite.

    Altair copies all parts of a concatenation at every step, which is too slow for a slider.
    """

    def to_dict(self, validate: bool = True, **_: Any) -> Spec:
        """Return the chart as Vega-Lite."""
        spec = dict(vars(self)["_kwds"])
        if validate:
            self.validate(spec)
        return spec

    def save(self, fp: Any, *arguments: Any, **options: Any) -> None:
        """Save the chart as Altair does, and as PDF with fewer nested groups."""
        kind = options.get("format") or next(iter(arguments), None) or str(fp).rpartition(".")[2]
        if kind != "pdf":
            super().save(fp, *arguments, **options)
            return
        content = export.pdf(export.svg(self.to_dict(validate=False)))
        fp.write(content) if hasattr(fp, "write") else write_file(fp, content)


def chart_spec(layout: Spec, width: int, config: Spec, datasets: Spec) -> Spec:
    """Return a chart as Vega-Lite; its width tells the front end for which page it was drawn."""
    page = {"usermeta": {"width": width}, "background": "white", "config": config}
    return {"$schema": alt.SCHEMA_URL, **layout, **page, "datasets": datasets}


def cell_rows(
    cells: Sequence[Cell], values: Sequence[Any], labels: Sequence[str], tips: Sequence[str]
) -> Rows:
    """Return the rows of a map; an unknown value becomes None."""
    rows: Rows = []
    parts = zip(cells, values, labels, tips, strict=True)
    for place, (cell, value, label, tip) in enumerate(parts):
        known = value if number_format.known(value) else None
        shown = {"value": known, "label": label, "tip": tip, "on": True}
        rows.append({"kind": "cell", "id": place, **cell._asdict(), **shown})
    return rows


def looked(cells: Rows, grid: Grid, module: str | None) -> Rows:
    """Return the cell of a module, if it is in the map."""
    return [
        {"block": row["block"], "projection": row["projection"]}
        for row, members in zip(cells, grid.members, strict=True)
        if module in members
    ]


def map_cells(shape: marks.HeatMap) -> alt.LayerChart:
    """Return a heat map with outlines of the layer in detail and of the cell with the focus."""
    chart = marks.heat_map(alt.NamedData(name="cells"), shape)
    for name, color in (("looked", INK), ("pointed", VERMILLION)):
        chart.layer.append(marks.outlined(alt.NamedData(name=name), shape, color))
    return chart


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
    """Return a part with its name, its title and its frame; the line under the title is data."""
    width = frame.left + frame.width
    notes = alt.NamedData(name="notes")
    part.layer += [
        marks.note(notes, name, width, SCREEN, frame.left),
        marks.frame(frame.width, frame.height, frame.left, frame.right, (NOTE, frame.bottom)),
    ]
    # Aligned with the labels of the axis, not with the plot.
    part.title = alt.TitleParams(text=title, dx=-frame.left, limit=width)
    part.name, part.height = name, frame.height
    inside: Spec = {"top_level": False, "datasets": {}}
    spec: Spec = part.to_dict(validate=False, context=inside)
    return spec


def _shape_of(look: Look, frame: Frame) -> dict[str, Any]:
    """Return the options that the map and the bars share."""
    screen = {"below": True, "selectable": True, "sizes": SCREEN, "names": frame.left - 10}
    return {"width": frame.width, "kind": look.kind, "log": look.log, **screen}


def _map_of(look: Look) -> marks.HeatMap:
    frame = look.plan.cells
    return marks.HeatMap(
        blocks=look.blocks,
        projections=look.projections,
        row=frame.height / max(1, len(look.projections)),
        title=_unit(look),
        domain=look.domain,
        tips=(("tip", say("column.module")), ("label", look.name)),
        numbers=look.numbers,
        **_shape_of(look, frame),
    )


def _unit(look: Look) -> str:
    """Return the title of the colors."""
    unit = {
        "points": say("explorer.unit_percentage_points"),
        "nats": say("explorer.unit_nats_per_token"),
    }.get(look.kind)
    return f"{look.name}, {unit}" if unit else look.name


@unchecked()
def _cells(shape: marks.HeatMap, name: str, frame: Frame) -> Spec:
    cells = map_cells(shape)
    cells.layer[0].name = _BRUSHED
    return _panel(cells, "cells", say("explorer.map_title", metric=name), frame)


def _bars_of(look: Look) -> marks.Bars:
    frame = look.plan.bars
    # Groups share the height: bars have a greatest thickness, spaces a least one.
    group, count = frame.height / max(1, len(look.bars)), len(look.variants)
    band = min(THICK, (group - min(12.0, 0.9 * group / (count + 1))) / count)
    gap = group - band * count
    low, high = look.reach
    # Room for labels at the ends.
    room = 0.16 * (high - low)
    return marks.Bars(
        groups=look.bars,
        inks=look.variants,
        domain=(1, high * 4) if look.log else (low - room if low < 0 else 0, high + room),
        band=band,
        gap=gap,
        labels=band >= 9,
        tips=(*marks.tips(group="label.group", variant="label.variant"), ("label", look.name)),
        **_shape_of(look, frame),
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
        # A mark without a tooltip gets no events of the pointer.
        tips=marks.tips(tip="chart.level_label"),
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
