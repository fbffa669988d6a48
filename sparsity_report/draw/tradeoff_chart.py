"""Quality against bytes: a mark per measured place, joined per policy in order of sparsity.

Only marks are measured. What joins them is thin and dotted, and says no more than whose they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import altair as alt

from sparsity_report.draw import marks
from sparsity_report.draw import theme as look
from sparsity_report.draw.marks import Data, Rows
from sparsity_report.draw.measured_charts import FAR, perplexity_text, policy_lines
from sparsity_report.draw.theme import BLACK, INK, VERMILLION, Sizes
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.zero_shot import METRIC, SEVEN
from sparsity_report.study.levels.tradeoff import Place, Point, Tradeoff
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.words.display_names import layout_name
from sparsity_report.words.number_format import plus_minus, scaled, with_error
from sparsity_report.words.sentences import say

#: Lines that a legend names.
NAMED = 9
# Above the highest mark, for what is said of where one stands.
_HEAD = 40
_SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down")
# Parts of the plot's width that labels of marks take.
_ROOM = 0.1
_MORE, _LESS = "chart.y_higher_is_better", "chart.y_lower_is_better"


class TradeoffShape(NamedTuple):
    """All of the chart that is not data.

    Attributes
    ----------
    lines : tuple of str
        Names of lines.
    domain : tuple of float
        Ends of y.
    log : bool
        Whether y is logarithmic.
    kind : str
        How its numbers are written.
    most : float
        End of x, in bytes.
    titles : tuple of (str, str)
        Of x and y.
    """

    lines: tuple[str, ...]
    domain: tuple[float, float]
    log: bool
    kind: str
    most: float
    titles: tuple[str, str]


def tradeoff_shape(study: Comparison) -> TradeoffShape | None:
    """Return the look of the chart of a study; None where quality was measured at no two places."""
    facts = study.facts
    if (found := facts.tradeoff) is None:
        return None
    ends = [
        point.value + side * (point.error or 0.0) for point in found.points for side in (-1.0, 1.0)
    ]
    low, high = min(ends), max(ends)
    room = (high - low or abs(high) or 1.0) / 8
    log = low > 0 and high / low > FAR
    domain = (low / 1.3, high * 1.3) if log else (low - room, high + room)
    first = str(study.variants["variant"].iloc[0])
    dense = facts.storage(first)["bytes"].get("dense", 0)
    most = max(int(dense), *(point.place.bytes for point in found.points))
    x_title = "chart.x_smallest_layout_bytes"
    if facts.unpacked_dtypes(first):
        x_title = "chart.x_smallest_layout_bytes_unpacked"
    name = measure_name(found)
    better = {True: _MORE, False: _LESS}.get(found.more_is_better)  # type: ignore[arg-type]
    lines = dict.fromkeys(row["line"] for row in tradeoff_rows(study)[0])
    return TradeoffShape(
        tuple(lines),
        domain,
        log,
        "share" if _is_share(found) else "number" if log else "plain",
        1.04 * most,
        (say(x_title), say(better, name=name) if better else name),
    )


def measure_name(found: Tradeoff) -> str:
    """Return what was measured, for people."""
    if found.measure == "perplexity":
        return say("label.perplexity")
    if found.measure == "mean":
        return say("chart.mean_accuracy_seven_tasks")
    return f"{clip(SEVEN.get(found.measure, found.measure), 24)}, {clip(found.of, 16)}"


def score_text(found: Tradeoff, point: Point) -> str:
    """Write a score with its standard error, where that is known."""
    if found.measure == "perplexity":
        return perplexity_text(point.value)
    write = with_error if _is_share(found) else plus_minus
    return write(point.value, point.error)


def place_text(size: int) -> str:
    """Write bytes beside a mark."""
    return scaled(size, "B")


def _is_share(found: Tradeoff) -> bool:
    return found.of == METRIC and (found.measure == "mean" or found.measure in SEVEN)


def tradeoff_rows(study: Comparison) -> tuple[Rows, Rows]:
    """Return rows of the lines, and of the marks.

    A mark's ``id`` is the place of its point among those of ``facts.tradeoff``, as text.
    """
    found = study.facts.tradeoff
    if found is None:
        return [], []
    rows = [_row(found, at) for at in range(len(found.points))]
    shown = ("id", "bytes", "value")
    lines = policy_lines(rows, shown)
    of: dict[str, dict[str, None]] = {}
    for row in lines:
        of.setdefault(row["id"], {})[row["line"]] = None
    several = {row["line"] for row in lines if rows[int(row["id"])]["method"] is not None}
    alone, taken = len({row["line"] for row in lines}) == 1, list[float]()
    for row in sorted(rows, key=lambda row: (row["method"] is not None, -row["bytes"])):
        row["line"] = next(iter(of[row["id"]]))
        # What nobody pruned begins the lines of its model, and is of no policy.
        row["begins"] = row["method"] is None and not several.isdisjoint(of[row["id"]])
        free = all(abs(row["bytes"] - other) > _ROOM * _most(found) for other in taken)
        row["shown"] = row["label"] if alone and free else ""
        taken += [row["bytes"]] if free else []
    kept = ("id", "bytes", "value", "low", "high", "line", "begins", "shown", "label", *_TIPS)
    return lines, [{"kind": "pull", **{key: row[key] for key in kept}} for row in rows]


_TIPS = {
    "line": "label.policy",
    "variant": "label.variant",
    "size": "label.bytes",
    "layout": "label.layout",
    "zeros": "label.prunable_zeros",
}


def _most(found: Tradeoff) -> int:
    return max(point.place.bytes for point in found.points)


def _row(found: Tradeoff, at: int) -> dict[str, Any]:
    point = found.points[at]
    place: Place = point.place
    error = point.error
    return {
        "id": str(at),
        "source": place.source,
        "model": clip(place.model),
        "method": place.method,
        "text": "",
        "protocol": "",
        "sparsity": place.sparsity,
        "bytes": place.bytes,
        "value": point.value,
        "low": None if error is None else point.value - error,
        "high": None if error is None else point.value + error,
        "label": score_text(found, point),
        "variant": ", ".join(map(short_name, point.variants)),
        "size": place_text(place.bytes),
        "layout": layout_name(place.layout),
        "zeros": look.write(place.sparsity, "share"),
    }


def tradeoff_curve(
    data: Mapping[str, Data],
    shape: TradeoffShape,
    size: tuple[float, float],
    columns: int,
    sizes: Sizes,
) -> alt.LayerChart:
    """Return the chart.

    Parameters
    ----------
    data : mapping
        ``curve`` and ``points`` of :func:`tradeoff_rows`; ``level``, where what is shown stands:
        rows with ``bytes``, ``label``, ``open`` where nothing was measured there, ``left`` of
        which its label stands, and ``on``, the ``id`` of a mark; ``pulls``, rows with ``from``,
        ``to`` and ``tip``.
    shape : TradeoffShape
    size : tuple of float
        Of the plot.
    columns : int
        Of the legend.
    sizes : Sizes
    """
    width, height = size
    wide = alt.Scale(domain=[0, shape.most], nice=False)
    ticked = alt.Axis(labelExpr=look.tick("number"), grid=False, tickCount=max(3, int(width / 90)))
    long = 5.6 * len(shape.titles[0]) > width
    title = say("chart.x_prunable_bytes") if long else shape.titles[0]
    x = alt.X("bytes:Q", title=title, scale=wide, axis=ticked)
    ticks = {"values": look.log_ticks(*shape.domain)} if shape.log else {"tickCount": 5}
    form: Any = "log" if shape.log else "linear"
    scale = alt.Scale(type=form, domain=list(shape.domain), range=[height, _HEAD], nice=False)
    axis = alt.Axis(labelExpr=look.tick(shape.kind), **ticks)
    y = alt.Y("value:Q", title=shape.titles[1], scale=scale, axis=axis)
    hue = _hue(shape, width, columns)
    lines = alt.Chart(data["curve"]).mark_line(strokeWidth=1, strokeDash=[1, 4], aria=False)
    points = alt.Chart(data["points"]).encode(x=x, y=y)
    rule, hollow, named = _standing(alt.Chart(data["level"]).encode(x=x), height, sizes)
    pulls = alt.Chart(data["pulls"]).mark_rect(opacity=0, cursor="ew-resize", aria=False)
    ends: dict[str, Any] = {"y": alt.value(0), "y2": alt.value(height)}
    tips = marks.tooltips([("label", shape.titles[1]), *((f, say(t)) for f, t in _TIPS.items())])
    error = points.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.2)
    text = points.mark_text(dy=-10, fontSize=sizes.small, color=INK, aria=False)
    layers = [
        rule,
        lines.encode(x=x, y=y, color=hue["color"], order="sparsity:Q"),
        pulls.encode(
            x=alt.X("from:Q", scale=wide),
            x2="to:Q",
            tooltip=marks.tooltips([("tip", say("chart.level_label"))]),
            **ends,
        ),
        error.encode(y=alt.Y("low:Q", scale=scale), y2="high:Q", color=hue["color"]),
        points.mark_point(filled=True, opacity=1, cursor="pointer", size=62).encode(
            tooltip=tips, **hue
        ),
        points.transform_filter("datum.on").mark_point(
            size=170, stroke=VERMILLION, strokeWidth=1.8, opacity=1, aria=False
        ),
        text.encode(text="shown:N"),
        hollow,
        named,
    ]
    return alt.LayerChart(layer=layers, width=width, height=height)


def _standing(level: alt.Chart, height: float, sizes: Sizes) -> tuple[alt.Chart, ...]:
    """Return where what is shown stands: a rule, on the axis what only has bytes, and words."""
    named = level.mark_text(
        align=alt.expr("datum.left ? 'right' : 'left'"),
        dx=alt.expr("datum.left ? -5 : 5"),
        baseline="top",
        color=VERMILLION,
        fontSize=sizes.small,
        lineBreak="\n",
    )
    # Hollow and on the axis: only the bytes are known here.
    hollow = level.transform_filter("datum.open").mark_point(
        shape="diamond", size=70, fill="white", stroke=VERMILLION, strokeWidth=1.6, opacity=1
    )
    rule = level.mark_rule(color=VERMILLION, strokeWidth=1.2).properties(name="standing")
    return (
        rule.encode(y=alt.value(0), y2=alt.value(height)),
        hollow.encode(y=alt.value(height)),
        named.encode(y=alt.value(2), text="label:N"),
    )


def _hue(shape: TradeoffShape, width: float, columns: int) -> dict[str, Any]:
    """Return colour and form by line, one legend for both; what begins lines is of none."""
    names = list(shape.lines)
    room = max(60, width / columns - 34)
    legend = None
    if len(names) > 1:
        legend = alt.Legend(
            title=None, orient="bottom", columns=columns, labelLimit=room, symbolLimit=NAMED
        )
    # Vermillion is where one stands, black what begins lines.
    hues = [hue for hue in look.HUES if hue not in {VERMILLION, BLACK}]
    hues, forms = look.cycle(hues, len(names)), look.cycle(_SHAPES, len(names))
    colour = alt.Scale(domain=names, range=hues)
    form = alt.Scale(domain=names, range=forms)
    begins = [{"test": "datum.begins", "value": INK}]
    return {
        "color": alt.Color("line:N", scale=colour, legend=legend, condition=begins),
        "shape": alt.Shape("line:N", scale=form, legend=legend),
    }
