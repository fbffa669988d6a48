"""Heat map, bars, curve and named lines, for page and paper.

Names of models and modules are rows or domains, never fields or expressions: Vega compiles those.
One pixel is one point.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from sparsity_report.draw import theme
from sparsity_report.draw.heat_map_svg import INKS, HeatMap, digits
from sparsity_report.draw.theme import BLACK, BLUE, INK, LABEL, MUTED
from sparsity_report.draw.vega_lite import Rows, VegaLite, layer, layered, nominal, quantity, titled
from sparsity_report.words.sentences import say

#: Fields of a tooltip, and their titles.
Tips: TypeAlias = Sequence[tuple[str, str]]
#: Settings of an axis without line and ticks.
BARE: dict[str, Any] = {"ticks": False, "domain": False}
_QUARTERS = [0, 0.25, 0.5, 0.75, 1]
# Greatest width of names on the left.
_NAMES = 140
_UNKNOWN, _KNOWN = {"filter": "!isValid(datum.value)"}, {"filter": "isValid(datum.value)"}


@dataclass(frozen=True, kw_only=True)
class Bars:
    """A bar chart without its data, with one bar per row.

    Its rows have ``group``, ``value`` (null: no bar), ``label`` and the fields of `tips`.

    Attributes
    ----------
    width : float
        Width of the plot.
    axis : str
        Title of the axis.
    least : float
        Smallest reach of the axis, so that noise does not look like a finding.
    tips : sequence of (str, str)
        Fields of a row in its tooltip, and their titles.
    kind : str
        Notation on the axis, see :func:`sparsity_report.draw.theme.tick`.
    start : float, optional
        Start of the axis and of the bars; without it, bars start at 0 and go to both sides.
    row : float
        Height of a bar and of the space to the next.
    """

    width: float
    axis: str
    least: float
    tips: Tips = ()
    kind: str = "share"
    start: float | None = None
    row: float = 20


class Line(NamedTuple):
    """Name, color and dash of a line, and the text beside its last point."""

    name: str
    color: str
    dash: list[float]
    label: str = ""


def share_axis(
    field: str, title: str, domain: Sequence[float], kind: str = "share", **axis: Any
) -> dict[str, Any]:
    """Return a horizontal axis of numbers."""
    count = {} if "values" in axis else {"tickCount": 6}
    axis = {**count, "labelExpr": theme.tick(kind), "labelSeparation": 4, "grid": False, **axis}
    return quantity(field, title=title, scale={"domain": list(domain)}, axis=axis)


def height_axis(title: str, top: float, axis: dict[str, Any]) -> dict[str, Any]:
    """Return a vertical axis of numbers from 0."""
    return quantity("value", title=title, scale={"domain": [0, top]}, axis=axis)


def log_axis(title: str, domain: tuple[float, float]) -> dict[str, Any]:
    """Return a vertical logarithmic axis of numbers."""
    ticks = {"labelExpr": theme.tick("number"), "values": theme.log_ticks(*domain)}
    scale = {"type": "log", "domain": list(domain)}
    return quantity("value", title=title, scale=scale, axis={**ticks, "format": ".3~s"})


def names_axis(
    field: str, names: Sequence[str], *, grid: bool = False, **padding: Any
) -> dict[str, Any]:
    """Return a vertical axis of names."""
    axis = {"grid": grid, "labelLimit": _NAMES, "labelPadding": 7, "labelOverlap": True, **BARE}
    return nominal(field, title=None, scale={"domain": list(names), **padding}, axis=axis)


def channels(
    field: str, names: Sequence[str], legend: dict[str, Any] | None, **ranges: Sequence[Any]
) -> dict[str, Any]:
    """Return encodings of a field of names, one per channel and range, with one legend."""
    return {
        channel: nominal(field, scale={"domain": list(names), "range": list(steps)}, legend=legend)
        for channel, steps in ranges.items()
    }


def tips(**keys: str) -> tuple[tuple[str, str], ...]:
    """Return fields of a tooltip with their titles, given the keys of these."""
    return tuple((field, say(key)) for field, key in keys.items())


def tooltips(tips: Tips) -> dict[str, Any]:
    """Return encodings of a tooltip and of the same text for a static picture."""
    fields = [nominal(field, title=title) for field, title in tips]
    parts = [f"{theme.quoted(f'{title}: ')} + datum[{theme.quoted(f)}]" for f, title in tips]
    text = " + '; ' + ".join(parts) or "''"
    return {"tooltip": fields, "description": {"value": {"expr": text}}}


def heat_map(shape: HeatMap) -> VegaLite:
    """Return a heat map as a chart, with tooltips and digits in its cells."""
    rows = [
        {
            "block": cell.block,
            "projection": cell.name,
            "value": cell.value,
            "label": theme.write(cell.value, shape.kind),
            "digits": digits(cell.value, shape.kind),
            "ink": shape.paint(cell.value)[1],
        }
        for cell in shape.cells
    ]
    flush: dict[str, Any] = {"paddingInner": 0, "paddingOuter": 0}
    axis = {"labelAngle": 0, "labelOverlap": True, **BARE}
    scale = {"domain": list(shape.blocks), **flush}
    fields = tips(block="kind.block", projection="name.projection", label="label.value")
    base = {
        "x": nominal("block", title=shape.axis, scale=scale, axis=axis),
        "y": names_axis("projection", shape.names, **flush),
        **tooltips(fields),
    }
    colors = [f"#{color}" for color in shape.palette]
    stops = shape.values_at([k / (len(colors) - 1) for k in range(len(colors))])
    scale = {"domain": stops, "range": colors, "interpolate": "rgb"}
    legend = {"title": shape.legend, "labelExpr": theme.tick(shape.kind), "tickCount": 4}
    color = {"color": quantity("value", scale=scale, legend=legend)}
    layers = [
        layer(rows, "rect", base | color, _KNOWN, stroke="white", strokeWidth=0.5),
        layer(rows, "rect", base, _UNKNOWN, fill=shape.paint(None)[0]),
    ]
    if shape.has_digits(shape.width / len(shape.blocks)):
        inks = [{"test": f"datum.ink == '{ink}'", "value": ink} for ink in INKS]
        text = {"text": nominal("digits"), "color": {"value": MUTED, "condition": inks}}
        layers.append(layer(rows, "text", base | text, fontSize=LABEL))
    chart = layered(layers, shape.width, shape.row * len(shape.names))
    return titled(chart, shape.title, shape.note, shape.alt)


def bars(rows: Rows, shape: Bars) -> VegaLite:
    """Return bars, with room for labels beyond them."""
    values, base = [row["value"] or 0.0 for row in rows], shape.start or 0.0
    top = max([*values, base + shape.least])
    low = base if shape.start is not None else min([*values, 0.0])
    room = 0.15 * (top - low)
    domain = [low - room * (low < base), top + room]
    ticks: dict[str, Any] = {"tickCount": max(3, round(shape.width / 75))}
    if shape.kind == "share" and domain[1] > 1:
        # The room for labels beyond 100 % has no ticks.
        ticks = {"values": _QUARTERS}
    x = share_axis("value", shape.axis, domain, shape.kind, **ticks)
    names = [row["group"] for row in rows]
    y = names_axis("group", names, paddingInner=0.45, paddingOuter=0.12)
    drawn = {"y": y, **tooltips(shape.tips)}
    spans, texts = {"x": x, "x2": {"datum": base}}, {"x": quantity("end"), "text": nominal("label")}
    end = {"calculate": f"{_KNOWN['filter']} ? datum.value : {base:g}", "as": "end"}
    left = f"datum.end < {base:g} ?"
    place = {"align": {"expr": f"{left} 'right' : 'left'"}, "dx": {"expr": f"{left} -4 : 4"}}
    look = {"color": BLUE, "stroke": BLUE, "strokeWidth": 1}
    layers = [
        layer(rows, "bar", drawn | spans, _KNOWN, clip=True, **look),
        layer(rows, "text", drawn | texts, end, fontSize=LABEL, color=INK, **place),
    ]
    return layered(layers, shape.width, max(1, len(rows)) * shape.row)


def curve(
    rows: Rows,
    lines: Sequence[Line],
    width: float,
    axes: tuple[dict[str, Any], dict[str, Any]],
    *,
    rings: Rows,
    dots: Rows,
) -> VegaLite:
    """Return curves with a legend, rings and dots.

    Parameters
    ----------
    rows : list of dict
        Rows with the field of x, ``value`` and ``line``.
    lines : sequence of Line
    width : float
        In points, everything included.
    axes : tuple of dict
        Encodings of x and y.
    rings, dots : list of dict
        Points with the field of x, ``value`` and ``label``, and dots with ``tip``, their x in
        words.
    """
    x, y = axes
    base = {"x": x, "y": y}
    ring: dict[str, Any] = {"fill": "white", "strokeWidth": 1.3, "opacity": 1}
    place: dict[str, Any] = {"align": "left", "dx": 6, "dy": -8, "fontSize": LABEL}
    below: dict[str, Any] = {"align": "right", "dx": -4, "dy": 11, "fontSize": LABEL}
    # White around the letters keeps them legible on another line.
    halo: dict[str, Any] = {"stroke": "#ffffff", "strokeWidth": 3}
    text = {**base, "text": nominal("label")}
    columns = 4 if width > 430 else 2 if width >= theme.NARROW else 1
    form = {"symbolType": "stroke", "symbolSize": 220, "labelLimit": 220, "columns": columns}
    legend = {"title": None, "orient": "bottom" if width <= 300 else "top", **form}
    share = tooltips([("label", x["title"])])
    both = tooltips([("tip", x["title"]), ("label", y["title"])])
    layers = [
        layer(rows, "line", base | _looks(lines, legend), clip=True, strokeWidth=1.6),
        layer(rings, "point", base | share, color=BLACK, size=34, **ring),
        layer(rings, "text", text, **halo, **place),
        layer(rings, "text", text, color=INK, **place),
        layer(dots, "point", base | both, color=BLACK, filled=True, size=44, opacity=1),
        layer(dots, "text", text, **halo, **below),
        layer(dots, "text", text, color=INK, **below),
    ]
    return layered(layers, width, _height(width))


def lines(
    rows: Rows,
    lines: Sequence[Line],
    width: float,
    axes: tuple[dict[str, Any], dict[str, Any]],
    *,
    tips: Tips,
    edge: str,
) -> VegaLite:
    """Return lines, each with its label right of the plot and a rule from its end to the label.

    Parameters
    ----------
    rows : list of dict
        Rows with ``x``, ``value``, ``line``, the fields of `tips`, and ``form``: the shape of the
        point, ``"triangle-up"`` for a value beyond the axis, empty without a point. A line needs
        two. Rows with ``low`` and ``high`` have an interval.
    lines : sequence of Line
    width : float
        In points, everything included.
    axes : tuple of dict
        Encodings of x and y, from :func:`share_axis` and :func:`log_axis`.
    tips : sequence of (str, str)
        Fields of a row in its tooltip, and their titles.
    edge : str
        Text at the upper edge of y, where values beyond it are.
    """
    x, y = axes
    base = {"x": x, "y": y}
    looks = _looks(lines, None)
    color = {"color": looks["color"]}
    several = [row for row in rows if sum(r["line"] == row["line"] for r in rows) > 1]
    labels = {line.name: line.label for line in lines}
    ends, right = _ends(rows, labels, y["scale"]["domain"], _height(width)), {"value": "width"}
    leader = base | {"x2": right, "y2": {"field": "place"}} | color
    text = {"x": right, "y": quantity("place", scale=y["scale"]), "text": nominal("name")}
    layers = [
        layer(ends, "rule", leader, strokeWidth=0.8, opacity=0.6, x2Offset=7),
        layer(several, "line", base | looks, strokeWidth=2),
        layer(ends, "text", text, align="left", dx=10, fontSize=LABEL, color=INK),
    ]
    first, last = x["scale"]["domain"]
    if spans := _intervals(rows, 0.01 * (last - first)):
        bar = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, **color}
        bar["strokeWidth"] = quantity("wide", scale=None)
        layers.append(layer(spans, "rule", bar, opacity=0.6))
    for form in ("circle", "triangle-up"):
        some, look = {"filter": f"datum.form == '{form}'"}, {"filled": True, "size": 44}
        point = base | color | tooltips(tips)
        layers.append(layer(rows, "point", point, some, shape=form, opacity=1, **look))
    if edge:
        top, left = {"y": {"value": 0}}, {"x": {"value": 0}, "text": {"value": edge}}
        layers += [
            layer([{}], "rule", top, color=MUTED, strokeDash=[2, 2]),
            layer([{}], "text", top | left, align="left", dy=-7, fontSize=LABEL, color=MUTED),
        ]
    return layered(layers, width, _height(width))


def _height(width: float) -> float:
    """Return the height of curves."""
    return min(220.0, 60 + width / 3)


def _intervals(rows: Rows, step: float) -> Rows:
    """Return rows with intervals, each wider than the later ones that it meets."""
    # Layouts of one pruning have one interval.
    alone = {(row["line"], row["x"], row["low"]): row for row in rows if "low" in row}
    spans = [*alone.values()]
    later = [
        sum(
            abs(other["x"] - row["x"]) < step
            and other["low"] <= row["high"]
            and row["low"] <= other["high"]
            for other in spans[place:]
        )
        for place, row in enumerate(spans, 1)
    ]
    return [{**row, "wide": 1.5 + 2.5 * n} for row, n in zip(spans, later, strict=True)]


def _ends(
    rows: Rows, labels: Mapping[str, str], domain: tuple[float, float], height: float
) -> Rows:
    """Return the last point of each line with its label and the label's place on y."""
    last = {row["line"]: row for row in sorted(rows, key=lambda row: row["x"])}
    low, high = domain
    scale = height / math.log(high / low)
    heights = [math.log(high / row["value"]) * scale for row in last.values()]
    places = spaced(heights, 1.3 * LABEL, height)
    return [
        {**row, "name": labels[line], "place": high * math.exp(-place / scale)}
        for (line, row), place in zip(last.items(), places, strict=True)
    ]


def spaced(places: Sequence[float], gap: float, length: float) -> list[float]:
    """Return places in the same order, at least a gap apart and within a length if they fit.

    Examples
    --------
    >>> spaced([50, 10, 52], 12, 100), spaced([98, 99], 12, 100)
    ([45.0, 10.0, 57.0], [88, 100])
    """
    order = sorted(range(len(places)), key=lambda place: places[place])
    # Neighbors that are too near share the mean of where they would be.
    pools: list[tuple[float, int]] = []
    for step, place in enumerate(order):
        mean, size = float(places[place] - gap * step), 1
        while pools and pools[-1][0] > mean:
            before, number = pools.pop()
            mean, size = (before * number + mean * size) / (number + size), number + size
        pools.append((mean, size))
    means = [mean for mean, size in pools for _ in range(size)]
    most = length - gap * (len(places) - 1)
    moved = {
        place: max(0.0, min(mean, most)) + gap * step
        for step, (place, mean) in enumerate(zip(order, means, strict=True))
    }
    return [moved[place] for place in range(len(places))]


def _looks(lines: Sequence[Line], legend: dict[str, Any] | None) -> dict[str, Any]:
    """Return color and dash by line with one legend."""
    names, colors, dashes, _ = (list(part) for part in zip(*lines, strict=True))
    return channels("line", names, legend, color=colors, strokeDash=dashes)
