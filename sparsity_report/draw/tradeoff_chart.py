"""Chart of quality against bytes: a mark per measurement, joined per policy by thin lines."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import altair as alt

from sparsity_report.draw import marks, theme
from sparsity_report.draw.marks import Data, Rows
from sparsity_report.draw.measured_charts import FAR, policy_lines
from sparsity_report.draw.theme import BLACK, INK, VERMILLION, Sizes
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.levels.tradeoff import Tradeoff
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.words.display_names import layout_name
from sparsity_report.words.number_format import scaled
from sparsity_report.words.score_text import is_accuracy, measure_name, score_text
from sparsity_report.words.sentences import say

#: Most lines of a legend.
NAMED = 9
# Height above the highest mark, for the label of the level.
_HEAD = 40
_SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down")
# Width of the label of a mark as a share of the plot.
_ROOM = 0.1
_MORE, _LESS = "chart.y_higher_is_better", "chart.y_lower_is_better"


class TradeoffShape(NamedTuple):
    """The chart without its data.

    Attributes
    ----------
    lines : tuple of str
        Names of lines.
    domain : tuple of float
        Ends of y.
    log : bool
        Whether y is logarithmic.
    kind : str
        Notation of its numbers.
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
    """Return the look of a study's chart; None if quality was measured at fewer than two places."""
    facts = study.facts
    if (tradeoff := study.tradeoff) is None:
        return None
    low = min(point.value - (point.error or 0.0) for point in tradeoff.points)
    high = max(point.value + (point.error or 0.0) for point in tradeoff.points)
    room = (high - low or abs(high) or 1.0) / 8
    log = low > 0 and high / low > FAR
    domain = (low / 1.3, high * 1.3) if log else (low - room, high + room)
    first = str(study.variants["variant"].iloc[0])
    dense = facts.storage(first)["bytes"].get("dense", 0)
    most = max(int(dense), *(point.place.bytes for point in tradeoff.points))
    x_title = "chart.x_smallest_layout_bytes"
    if facts.unpacked_dtypes(first):
        x_title = "chart.x_smallest_layout_bytes_unpacked"
    name = measure_name(tradeoff)
    better = {True: _MORE, False: _LESS}.get(tradeoff.more_is_better)  # type: ignore[arg-type]
    lines = dict.fromkeys(row["line"] for row in tradeoff_rows(study)[0])
    return TradeoffShape(
        tuple(lines),
        domain,
        log,
        "share" if is_accuracy(tradeoff) else "number" if log else "plain",
        1.04 * most,
        (say(x_title), say(better, name=name) if better else name),
    )


def place_text(size: int) -> str:
    """Write bytes beside a mark."""
    return scaled(size, "B")


def tradeoff_rows(study: Comparison) -> tuple[Rows, Rows]:
    """Return rows of the lines, and of the marks.

    A mark's ``id`` is the place of its point among those of ``study.tradeoff``, as text.
    """
    tradeoff = study.tradeoff
    if tradeoff is None:
        return [], []
    rows = [_row(tradeoff, at) for at in range(len(tradeoff.points))]
    shown = ("id", "bytes", "value")
    lines = policy_lines(rows, shown)
    several = {row["line"] for row in lines if rows[int(row["id"])]["method"] is not None}
    is_alone, taken = len({row["line"] for row in lines}) == 1, list[float]()
    for row in sorted(rows, key=lambda row: (row["method"] is not None, -row["bytes"])):
        names = [line["line"] for line in lines if line["id"] == row["id"]]
        row["line"] = names[0]
        # The unpruned model begins the lines of its policies.
        row["begins"] = row["method"] is None and not several.isdisjoint(names)
        free = all(abs(row["bytes"] - other) > _ROOM * _most(tradeoff) for other in taken)
        row["shown"] = row["label"] if is_alone and free else ""
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


def _most(tradeoff: Tradeoff) -> int:
    return max(point.place.bytes for point in tradeoff.points)


def _row(tradeoff: Tradeoff, at: int) -> dict[str, Any]:
    point = tradeoff.points[at]
    place, error = point.place, point.error
    return {
        "id": str(at),
        "source": place.source,
        "model": clip(place.model),
        "method": place.method,
        "sparsity": place.sparsity,
        "bytes": place.bytes,
        "value": point.value,
        "low": None if error is None else point.value - error,
        "high": None if error is None else point.value + error,
        "label": score_text(tradeoff, point),
        "variant": ", ".join(map(short_name, point.variants)),
        "size": place_text(place.bytes),
        "layout": layout_name(place.layout),
        "zeros": theme.write(place.sparsity, "share"),
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
        ``curve`` and ``points`` of :func:`tradeoff_rows`; ``level``, the place in view: rows with
        ``bytes``, ``label``, ``open`` without a measurement, ``left`` if the label is on the
        left, and ``on``, the ``id`` of a mark; ``pulls``, rows with ``from``, ``to`` and ``tip``.
    shape : TradeoffShape
    size : tuple of float
        Of the plot.
    columns : int
        Of the legend.
    sizes : Sizes
    """
    width, height = size
    wide = alt.Scale(domain=[0, shape.most], nice=False)
    ticked = alt.Axis(labelExpr=theme.tick("number"), grid=False, tickCount=max(3, int(width / 90)))
    long = 5.6 * len(shape.titles[0]) > width
    title = say("chart.x_prunable_bytes") if long else shape.titles[0]
    x = alt.X("bytes:Q", title=title, scale=wide, axis=ticked)
    ticks = {"values": theme.log_ticks(*shape.domain)} if shape.log else {"tickCount": 5}
    form: Any = "log" if shape.log else "linear"
    scale = alt.Scale(type=form, domain=list(shape.domain), range=[height, _HEAD], nice=False)
    axis = alt.Axis(labelExpr=theme.tick(shape.kind), **ticks)
    y = alt.Y("value:Q", title=shape.titles[1], scale=scale, axis=axis)
    hue = _hue(shape, width, columns)
    lines = alt.Chart(data["curve"]).mark_line(strokeWidth=1, strokeDash=[1, 4], aria=False)
    points = alt.Chart(data["points"]).encode(x=x, y=y)
    rule, hollow, named = _standing(alt.Chart(data["level"]).encode(x=x), height, sizes)
    tips = marks.tooltips([("label", shape.titles[1]), *((f, say(t)) for f, t in _TIPS.items())])
    error = points.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.2)
    text = points.mark_text(dy=-10, fontSize=sizes.small, color=INK, aria=False)
    layers = [
        rule,
        lines.encode(x=x, y=y, color=hue["color"], order="sparsity:Q"),
        marks.bands(
            data["pulls"], alt.X("from:Q", scale=wide), height, marks.tips(tip="chart.level_label")
        ),
        error.encode(y=alt.Y("low:Q", scale=scale), y2="high:Q", color=hue["color"]),
        points.mark_point(filled=True, opacity=1, cursor="pointer", size=62).encode(**tips, **hue),
        points.transform_filter("datum.on").mark_point(
            size=170, stroke=VERMILLION, strokeWidth=1.8, opacity=1, aria=False
        ),
        text.encode(text="shown:N"),
        hollow,
        named,
    ]
    return alt.LayerChart(layer=layers, width=width, height=height)


def _standing(level: alt.Chart, height: float, sizes: Sizes) -> tuple[alt.Chart, ...]:
    """Return the place in view: its rule, a hollow mark without a measurement, and its label."""
    text = marks.beside("datum.left", dx=5, color=VERMILLION, fontSize=sizes.small)
    named = level.mark_text(baseline="top", lineBreak="\n", **text)
    # On the axis, because only the bytes are known.
    hollow = level.transform_filter("datum.open").mark_point(
        shape="diamond", size=70, fill="white", stroke=VERMILLION, strokeWidth=1.6, opacity=1
    )
    rule = level.mark_rule(color=VERMILLION, strokeWidth=1.2).properties(name="standing")
    return (
        rule.encode(y=alt.YValue(0), y2=alt.Y2Value(height)),
        hollow.encode(y=alt.YValue(height)),
        named.encode(y=alt.YValue(2), text="label:N"),
    )


def _hue(shape: TradeoffShape, width: float, columns: int) -> dict[str, Any]:
    """Return color and shape by line with one legend; unpruned models have their own color."""
    names = list(shape.lines)
    room = max(60, width / columns - 34)
    legend = marks.legend(names, True, columns, labelLimit=room, symbolLimit=NAMED)
    # Vermillion is the place in view, black the unpruned model.
    hues = [hue for hue in theme.HUES if hue not in {VERMILLION, BLACK}]
    hues, forms = theme.cycle(hues, len(names)), theme.cycle(_SHAPES, len(names))
    encodings = marks.channels("line", names, legend, color=hues, shape=forms)
    encodings["color"]["condition"] = [{"test": "datum.begins", "value": INK}]
    return encodings
