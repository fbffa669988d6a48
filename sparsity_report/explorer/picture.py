"""The explorer's picture: heat map, bars, curve and histogram as one chart, its data apart.

A :class:`Look` says how the picture is built, the data what it shows: as long as the look stays,
moving the slider or selecting only swaps data. Names are only ever data, as in
:mod:`sparsity_report.draw.charts`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import altair as alt
import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.counting.histogram import Magnitudes
from sparsity_report.draw.charts import BLACK, BLUE, GRID, INK, MUTED, VERMILLION
from sparsity_report.draw.fonts import FAMILY
from sparsity_report.words.sentences import percent, scaled

Rows = list[dict[str, Any]]
Data = dict[str, Rows]
Floats = npt.NDArray[np.float64]

LIVE = ("at level", "Masked at level", "CSR at level")
SUMMED = (
    "total",
    "nonzero",
    "weight_total",
    "weight_nonzero",
    "flops_per_token",
    "stored_bytes",
    "dense_bytes",
)
OUTSIDE = "outside"
_BINS = 56
_DIVERGING = [BLUE, "#f3f1ec", VERMILLION]
_APART: dict[str, Any] = dict.fromkeys(
    ("x", "y", "color", "fill", "stroke", "strokeDash"), "independent"
)
_NOTE: dict[str, Any] = {"align": "left", "baseline": "bottom", "fontSize": 11, "color": MUTED}
_PERCENT = "format(100 * datum.value, '~r') + ' %'"
_SI = "format(datum.value, '~s')"
_TIMES = "format(datum.value, '~r') + ' ×'"


class Metric(NamedTuple):
    """What cells and bars show: a share of 1, a number, or a ratio that is even at 1."""

    title: str
    kind: str
    note: str


METRICS = {
    "sparsity": Metric("Zeros", "share", "zeros ÷ weights of the matrix"),
    "total": Metric("Parameters", "number", "zeros included"),
    "nonzero": Metric("Nonzeros", "number", "parameters that are not zero"),
    "flops_per_token": Metric("FLOPs per token", "number", "only CSR skips zeros"),
    "stored_bytes": Metric("Stored bytes", "number", "from integers"),
    "bytes_ratio": Metric("Bytes ÷ dense bytes", "ratio", "even at 1"),
}
_BAR_NOTES = {"sparsity": "zeros ÷ parameters, biases included"}


class Look(NamedTuple):
    """All of the picture that is not data: the same look, the same chart."""

    width: int
    metric: str
    log: bool
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    shades: tuple[float, float]
    bars: tuple[str, ...]
    variants: tuple[tuple[str, str, str], ...]
    longest: float
    curve: float
    histogram: bool
    said: str


def sums(frame: pd.DataFrame, codes: npt.NDArray[np.intp], size: int) -> dict[str, Floats]:
    """Sum the columns ``SUMMED`` of a frame per code; what is unknown stays unknown, as NaN."""
    found: dict[str, Floats] = {}
    for column in SUMMED:
        numbers = frame[column].to_numpy(dtype=float, na_value=np.nan)
        found[column] = np.bincount(codes, weights=numbers, minlength=size).astype(float)
    return found


def values(of: Mapping[str, Floats], metric: str, *, weights: bool = False) -> Floats:
    """Return a metric from sums; NaN where it is unknown or there is nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if metric == "sparsity":
            prefix = "weight_" if weights else ""
            found = 1 - of[f"{prefix}nonzero"] / of[f"{prefix}total"]
        elif metric == "bytes_ratio":
            found = of["stored_bytes"] / of["dense_bytes"]
        else:
            found = of[metric]
    return np.where(np.isfinite(found), found, np.nan)


def write(value: float, metric: str) -> str:
    """Write a value of a metric for people."""
    if not math.isfinite(value):
        return "unknown"
    kind = METRICS[metric].kind
    if kind == "share":
        return percent(value)
    return f"{value:.2f} ×" if kind == "ratio" else scaled(value, "")


def shades(found: Floats, metric: str, *, log: bool, fixed: bool) -> tuple[float, float]:
    """Return the ends of the colour scale: those of the data, but no narrower than is honest."""
    known = found[np.isfinite(found)]
    kind = METRICS[metric].kind
    if kind == "ratio":
        return 0.0, max(2.0, float(known.max(initial=2.0)))
    if kind == "number":
        positive = known[known > 0]
        if log and positive.size:
            low = float(positive.min())
            return low, max(float(positive.max()), low * 1.01)
        return 0.0, float(known.max(initial=0.0)) or 1.0
    if fixed or not known.size:
        return 0.0, 1.0
    low, high = (math.floor(known.min() * 20) / 20, math.ceil(known.max() * 20) / 20)
    # A scale of less than 20 points would make noise look like a finding.
    while high - low < 0.199:
        low, high = max(0.0, low - 0.05), min(1.0, high + 0.05)
    return round(low, 2), round(high, 2)


def cell_rows(
    found: Floats,
    places: Sequence[tuple[str, str]],
    tips: Sequence[str],
    selected: npt.NDArray[np.bool_],
    look: Look,
) -> Rows:
    """Return one row per cell of the heat map."""
    low, high = look.shades
    kind = METRICS[look.metric].kind
    rows = []
    for place, ((block, projection), value, tip, on) in enumerate(
        zip(places, found.tolist(), tips, selected.tolist(), strict=True)
    ):
        known = math.isfinite(value) and not (look.log and kind == "number" and value <= 0)
        digits = "–"
        if known:
            digits = {"share": f"{100 * value:.0f}", "ratio": f"{value:.2f}"}.get(
                kind, scaled(value, "").replace(" ", "")
            )
        rows.append(
            {
                "kind": "cell",
                "id": place,
                "block": block,
                "projection": projection,
                "value": value if known else None,
                "label": write(value, look.metric),
                "digits": digits,
                "light": known and _is_light(value, low, high, kind, look.log),
                "tip": tip,
                "on": on,
            }
        )
    return rows


def _is_light(value: float, low: float, high: float, kind: str, log: bool) -> bool:
    if kind == "ratio":
        return abs(value - 1) < 0.5 * (1 if value < 1 else high - 1)
    if log and kind == "number":
        value, low, high = math.log(value), math.log(low), math.log(high)
    return value > low + 0.6 * (high - low)


def histogram_rows(seen: Magnitudes, threshold: float | None) -> tuple[Rows, Rows]:
    """Return a layer's magnitudes as bars of equal area per weight, and where the threshold is.

    Bars end where buckets of the count do, so that no count is guessed; the outermost thousandth
    of the weights is left out.
    """
    values, counts = seen.values, seen.counts
    total = int(counts.sum())
    if not total or values[-1] <= 0:
        return [], []
    top = max(float(values[np.searchsorted(np.cumsum(counts), 0.999 * total)]), threshold or 0.0)
    grid = np.linspace(0, top * 1.02, _BINS + 1)
    edges = np.unique(values[np.minimum(np.searchsorted(values, grid), values.size - 1)])
    if threshold is not None:
        edges = np.unique([*edges, values[min(_after(values, threshold), values.size - 1)]])
    edges = np.unique([0.0, *edges])
    if edges.size < 2:
        return [], []
    before = np.concatenate([[0], np.cumsum(counts)])
    inside = np.diff(before[np.searchsorted(values, edges)])
    density = inside / np.diff(edges)
    peak = float(density.max()) or 1.0
    cut = -1.0 if threshold is None else threshold
    bars = [
        {
            "from": float(start),
            "to": float(stop),
            "height": float(height / peak),
            "pruned": bool(start <= cut),
            "label": f"{int(count):,} weights",
            "between": f"{start:.3g} to {stop:.3g}",
        }
        for start, stop, height, count in zip(edges[:-1], edges[1:], density, inside, strict=True)
    ]
    mark = [] if threshold is None else [{"at": threshold, "label": f"threshold {threshold:.3g}"}]
    return bars, mark


def _after(values: Floats, threshold: float) -> int:
    return int(np.searchsorted(values, threshold, side="right"))


def spread(seen: Magnitudes) -> float:
    """Return the root mean square of a layer's weights, from the middle of each bucket."""
    wide = 1.0 if seen.exact else 1 + 2.0**-8
    weights = int(seen.counts.sum())
    return math.sqrt(float((seen.counts * (seen.values * wide) ** 2).sum()) / weights)


@lru_cache(maxsize=32)
def picture(look: Look) -> alt.HConcatChart | alt.VConcatChart:
    """Return the chart of a look, without data."""
    narrow = look.width < 620
    # Labels of rows on the left, names of groups on the right, and what axis titles need.
    names, gap = min(130, 6 * max((len(name) for name in look.bars), default=0) + 14), 44
    left = min(74 * len(look.columns), round(0.46 * look.width) - 50)
    left = look.width - 66 if narrow else max(220, left)
    right = look.width - 30 if narrow else look.width - left - 74 - gap
    rows = max(1, len(look.rows))
    tall = max(4, min(44, round(420 / rows)))
    cells, bars = _cells(look, left, tall), _bars(look, right - names - 14)
    columns: tuple[list[Any], list[Any]] = ([cells], [bars])
    if look.histogram:
        columns[0].append(_histogram(left, 130))
    if look.curve:
        # Both columns end level, as far as a curve can be stretched for it.
        beside = rows * tall - int(bars.height) + (140 if look.histogram else -80)
        columns[1].append(_curve(look, right - 50, 190 if narrow else max(170, min(330, beside))))
    # All at once: every call of a method would copy all parts again.
    rest: dict[str, Any] = {
        "resolve": alt.Resolve(scale=alt.ScaleResolveMap(**_APART)),
        "description": look.said,
        "background": "white",
        "config": alt.Config(**_config()),
    }
    if narrow:
        return alt.VConcatChart(vconcat=[*columns[0], *columns[1]], spacing=34, **rest)
    apart = {"spacing": 34, "resolve": rest["resolve"]}
    stacks = [alt.VConcatChart(vconcat=column, **apart) for column in columns]
    return alt.HConcatChart(hconcat=stacks, spacing=gap, **rest)


@lru_cache(maxsize=32)
def compiled(look: Look) -> dict[str, Any]:
    """Return the chart of a look as the front end reads it."""
    spec: dict[str, Any] = picture(look).to_dict(validate=False)
    return spec


def filled(chart: Any, data: Data) -> Any:
    """Return a chart of :func:`picture` with its data in it."""
    # Its own copy() copies every part of a concatenation: 90 ms, and the slider has 100.
    whole = copy.copy(chart)
    vars(whole)["_kwds"] = {**vars(chart)["_kwds"], "datasets": data}
    return whole


def _config() -> dict[str, Any]:
    text = {"labelColor": INK, "labelFontSize": 11, "titleColor": MUTED, "titleFontSize": 11}
    return {
        "font": FAMILY,
        "padding": 2,
        "view": {"stroke": None},
        "title": {
            "anchor": "start", "frame": "group", "fontSize": 13, "color": INK, "offset": 5,
        },
        "axis": {
            **text, "titleFontWeight": "normal", "gridColor": GRID, "domainColor": MUTED,
            "tickColor": MUTED, "tickSize": 4, "titlePadding": 8, "labelFlush": False,
        },
        "legend": {**text, "titleFontWeight": "normal", "offset": 10},
    }  # fmt: skip


def _named(name: str) -> alt.Chart:
    return alt.Chart(alt.NamedData(name=name))


def _subtitle(panel: str, width: int) -> alt.Chart:
    """Draw the line under a panel's title, whose text is data because the level is in it."""
    note = _named("notes").transform_filter(f"datum.panel === '{panel}'")
    drawn: alt.Chart = note.mark_text(**_NOTE, limit=width).encode(
        x=alt.value(0), y=alt.value(-8), text="text:N"
    )
    return drawn


def _cells(look: Look, width: int, height: int) -> alt.LayerChart:
    metric = METRICS[look.metric]
    low, high = look.shades
    tick = {"share": _PERCENT, "ratio": _TIMES}.get(metric.kind, _SI)
    if metric.kind == "ratio":
        scale = alt.Scale(domain=[0, 1, high], range=_DIVERGING)
    else:
        kind: Any = "log" if look.log and metric.kind == "number" else "linear"
        scale = alt.Scale(type=kind, scheme="viridis", domain=[low, high], nice=False)
    legend = alt.Legend(
        title=None,
        orient="bottom",
        direction="horizontal",
        labelExpr=tick,
        tickCount=4,
        gradientLength=min(width, 240),
        gradientThickness=9,
    )
    bare: dict[str, Any] = {"ticks": False, "domain": False}
    step = math.ceil(len(look.rows) * 13 / (height * len(look.rows) or 1))
    x = alt.X(
        "projection:N",
        title=None,
        scale=alt.Scale(domain=list(look.columns), paddingInner=0.06, paddingOuter=0),
        axis=alt.Axis(
            orient="bottom",
            labelAngle=-40,
            labelLimit=84,
            labelPadding=5,
            labelOverlap=False,
            **bare,
        ),
    )
    y = alt.Y(
        "block:N",
        title="Transformer block" if set(look.rows) - {OUTSIDE} else None,
        scale=alt.Scale(domain=list(look.rows), paddingInner=0.06, paddingOuter=0),
        axis=alt.Axis(values=list(look.rows)[::step], labelPadding=6, **bare),
    )
    base = _named("cells").encode(
        x=x,
        y=y,
        opacity=alt.condition("datum.on", alt.value(1), alt.value(0.18)),
        tooltip=[
            alt.Tooltip(f"{field}:N", title=title)
            for field, title in (
                ("tip", "module"),
                ("label", metric.title.lower()),
            )
        ],
    )
    brush = alt.selection_interval(name="brush", encodings=["x", "y"], clear="dblclick")
    colour = alt.Color("value:Q", scale=scale, legend=legend)
    known = base.transform_filter("isValid(datum.value)").mark_rect(cursor="pointer")
    layers = [
        known.encode(color=colour).add_params(brush),
        base.transform_filter("!isValid(datum.value)")
        .mark_rect(cursor="pointer", fill="#8c8c8c", fillOpacity=0.16),
    ]  # fmt: skip
    if height >= 12 and width / max(1, len(look.columns)) >= 26:
        ink = alt.condition("datum.light", alt.value("#1a1a1a"), alt.value("#fdfdfd"))
        number = _named("cells").encode(
            x=x, y=y, text="digits:N",
            opacity=alt.condition("datum.on", alt.value(1), alt.value(0.25)),
        )  # fmt: skip
        layers += [
            number.transform_filter("isValid(datum.value)")
            .mark_text(fontSize=10, tooltip=None)
            .encode(color=ink),
            number.transform_filter("!isValid(datum.value)").mark_text(fontSize=10, color=MUTED),
        ]
    title = alt.TitleParams(text=f"{metric.title} per layer")
    return alt.LayerChart(
        layer=[*layers, _subtitle("cells", width)],
        width=width,
        height=max(1, len(look.rows)) * height,
        title=title,
        name="map",
    )


def _bars(look: Look, width: int) -> alt.LayerChart:
    metric = METRICS[look.metric]
    many = len(look.bars) * max(1, len(look.variants))
    band = max(3, min(12, 420 // max(1, many)))
    height = len(look.bars) * (band * max(1, len(look.variants)) + max(3, min(10, band)))
    names = [name for name, _, _ in look.variants]
    tick = {"share": _PERCENT, "ratio": _TIMES}.get(metric.kind, _SI)
    log = look.log and metric.kind == "number"
    x = alt.X(
        "value:Q",
        title=None,
        scale=alt.Scale(
            type="log" if log else "linear",
            domain=[1, look.longest * 4] if log else [0, look.longest * 1.16],
            nice=False,
            zero=False,
            clamp=log,
        ),
        axis=alt.Axis(labelExpr=tick, tickCount=5, grid=False),
    )
    y = alt.Y(
        "group:N",
        title=None,
        scale=alt.Scale(domain=list(look.bars), paddingInner=0.2, paddingOuter=0.1),
        axis=alt.Axis(
            ticks=False, domain=False, labelLimit=124, labelPadding=7, labelOverlap="greedy"
        ),
    )
    offset = alt.YOffset("variant:N", scale=alt.Scale(domain=names, paddingInner=0.12))
    legend = alt.Legend(
        title=None, orient="bottom", columns=max(1, width // 130), symbolType="square",
        labelLimit=110,
    )  # fmt: skip
    base = _named("bars").encode(
        y=y,
        yOffset=offset,
        opacity=alt.condition("datum.on", alt.value(1), alt.value(0.22)),
        tooltip=[
            alt.Tooltip("group:N", title="group"),
            alt.Tooltip("variant:N", title="variant"),
            alt.Tooltip("label:N", title=metric.title.lower()),
        ],
    )
    stroke, fill = (
        alt.Scale(domain=names, range=[inks[which] for inks in look.variants]) for which in (1, 2)
    )
    bars = (
        base.transform_filter("isValid(datum.value)")
        .mark_bar(clip=True, strokeWidth=1, cursor="pointer")
        .encode(
            x=x,
            x2=alt.datum(1 if log else 0),
            fill=alt.Fill("variant:N", legend=legend, scale=fill),
            stroke=alt.Stroke("variant:N", legend=legend, scale=stroke),
        )
    )
    layers = [bars]
    if band >= 9:
        text = base.mark_text(align="left", dx=5, fontSize=10, color=INK)
        layers.append(text.encode(x=alt.X("at:Q"), text="label:N"))
    if metric.kind == "ratio":
        even = alt.Chart(alt.InlineData(values=[{}])).mark_rule(color=MUTED, strokeDash=[3, 3])
        layers.append(even.encode(x=alt.datum(1)))
    title = alt.TitleParams(text=metric.title)
    return alt.LayerChart(
        layer=[*layers, _subtitle("bars", width)],
        width=width,
        height=height,
        title=title,
        name="bars",
    )


def _curve(look: Look, width: int, height: int) -> alt.LayerChart:
    x = alt.X(
        "sparsity:Q",
        title="zeros of the prunable weights",
        scale=alt.Scale(domain=[0, 1], nice=False),
        axis=alt.Axis(labelExpr=_PERCENT, tickCount=5, grid=False),
    )
    y = alt.Y(
        "ratio:Q",
        title="÷ dense",
        scale=alt.Scale(domain=[0, look.curve * 1.05], nice=False),
        axis=alt.Axis(values=[0, 0.5, 1, 1.5, 2, 2.5, 3], labelExpr=_TIMES),
    )
    names = ["bytes of CSR", "FLOPs of CSR", "dense"]
    legend = alt.Legend(
        title=None, orient="bottom", columns=3 if width > 330 else 2, symbolSize=200
    )
    lines = _named("curve").mark_line(clip=True, strokeWidth=1.8).encode(
        x=x,
        y=y,
        color=alt.Color(
            "line:N", legend=legend, scale=alt.Scale(domain=names, range=[BLACK, MUTED, BLUE])
        ),
        strokeDash=alt.StrokeDash(
            "line:N", legend=legend,
            scale=alt.Scale(domain=names, range=[[1, 0], [2, 3], [6, 3]]),
        ),
    )  # fmt: skip
    even, here = _named("even").encode(x=x, y=y), _named("here").encode(x=x, y=y)
    label: dict[str, Any] = {"fontSize": 11, "fontWeight": "bold"}
    layers = [
        lines,
        _named("here").mark_rule(color=VERMILLION, strokeWidth=1.2).encode(x=x),
        even.mark_point(color=BLACK, fill="white", size=60, strokeWidth=1.6, opacity=1),
        even.mark_text(color=INK, align="left", dx=8, dy=-9, fontSize=11).encode(text="label:N"),
        here.mark_point(color=VERMILLION, filled=True, size=70, opacity=1),
        here.transform_filter("datum.sparsity <= 0.6")
        .mark_text(color=VERMILLION, align="left", dx=8, dy=-9, **label)
        .encode(text="label:N"),
        here.transform_filter("datum.sparsity > 0.6")
        .mark_text(color=VERMILLION, align="right", dx=-8, dy=11, **label)
        .encode(text="label:N"),
        _subtitle("curve", width),
    ]
    title = alt.TitleParams(text="CSR against dense")
    return alt.LayerChart(layer=layers, width=width, height=height, title=title, name="curve")


def _histogram(width: int, height: int) -> alt.LayerChart:
    x = alt.X(
        "from:Q",
        title="magnitude of a weight",
        scale=alt.Scale(nice=False, zero=True),
        axis=alt.Axis(tickCount=5, grid=False),
    )
    bars = _named("magnitudes").mark_bar(strokeWidth=0).encode(
        x=x,
        x2="to:Q",
        y=alt.Y(
            "height:Q", title="density", axis=alt.Axis(values=[]),
            scale=alt.Scale(domain=[0, 1.12]),
        ),
        y2=alt.datum(0),
        fill=alt.condition("datum.pruned", alt.value(VERMILLION), alt.value(BLUE)),
        fillOpacity=alt.condition("datum.pruned", alt.value(0.45), alt.value(0.9)),
        tooltip=[
            alt.Tooltip("between:N", title="magnitude"),
            alt.Tooltip("label:N", title="holds"),
        ],
    )  # fmt: skip
    mark = _named("threshold").encode(x=alt.X("at:Q"))
    layers = [
        bars,
        mark.mark_rule(color=VERMILLION, strokeWidth=1.4),
        mark.mark_text(
            color=VERMILLION, align="left", baseline="top", dx=5, fontSize=11, fontWeight="bold"
        ).encode(y=alt.value(0), text="label:N"),
        _subtitle("histogram", width),
    ]
    title = alt.TitleParams(text="Magnitudes of one layer")
    return alt.LayerChart(layer=layers, width=width, height=height, title=title, name="histogram")
