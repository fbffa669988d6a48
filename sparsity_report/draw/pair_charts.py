"""Charts of a pair: differences per layer, removed units, and the overlap of zeros."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import altair as alt
import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.heat_maps import block_map, extremes
from sparsity_report.draw.theme import BLUE, LABEL, TEXT_WIDTH, VERMILLION
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.study.pairs.pair_cells import Strip, difference_map, overlaps, strips
from sparsity_report.untrusted.display_text import clip
from sparsity_report.words.display_names import display_name, group_name
from sparsity_report.words.number_format import count
from sparsity_report.words.pair_labels import both, strip_names, strip_title
from sparsity_report.words.sentences import say

# Most cells of a strip.
_MOST = 5_000
# Greatest width of a matrix of four cells.
_MATRIX = 250
# Greatest heights of a row and of all rows of a strip.
_ROW, _TALLEST = 16, 420
# Cells of a matrix: their counts, and whether the weight is nonzero before and after.
_OVERLAP = (("kept", 0, 0), ("revived", 0, 1), ("new", 1, 0), ("surviving", 1, 1))


def difference_chart(pair: Pair, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return a heat map of the increase of zero or removed weights, block by projection.

    Vermillion cells lost weights, blue ones got nonzero weights back. `width` is in points,
    everything included.

    Returns
    -------
    altair.LayerChart or None
        None if the base has no prunable weights in numbered blocks, or all cells are equal.
    """
    if (shown := difference_map(pair)) is None:
        return None
    cells, grid = shown.cells, shown.grid
    if len({theme.write(value, "points") for value in cells["moved"]}) < 2:
        return None
    chart = block_map(
        cells.assign(
            gone=[count(number) for number in cells["gone"]],
            weights=[count(number) for number in cells["weight_before"]],
        ),
        (grid.blocks, grid.projections),
        "points",
        value="moved",
        width=width,
        title=say("chart.percentage_points"),
        label="chart.percentage_points",
        tips={"gone": "label.weights_removed", "weights": "label.of_total"},
    )
    alt_text = say("chart.pair_difference_alt", **extremes(cells, "moved", "points"))
    note = say("chart.pair_difference_note", models=both(pair))
    return theme.titled(chart, say("chart.pair_difference_title"), note, alt_text)


def strip_charts(
    pair: Pair, width: float = TEXT_WIDTH
) -> Iterator[tuple[Strip, alt.LayerChart | None]]:
    """Yield a strip per kind of removed units: rows of cells, hollow for removed ones.

    The chart is None if there are too many cells. `width` is in points, everything included.
    """
    for strip in strips(pair):
        if (chart := strip_mark(strip, width)) is not None:
            note = say("chart.removed_strip_note", models=both(pair))
            chart = theme.titled(chart, strip_title(strip), note, strip_words(strip))
        yield strip, chart


def strip_chart(pair: Pair, kind: str, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return the strip of one kind; None if none of it was removed or there are too many cells."""
    return next((c for strip, c in strip_charts(pair, width) if strip.kind == kind), None)


def strip_mark(strip: Strip, width: float) -> alt.LayerChart | None:
    """Return rows of cells of removed and present units; None if there are too many.

    `width` is that of the cells alone.
    """
    if sum(row.among for row in strip.rows) > _MOST:
        return None
    names, unit = strip_names(strip), display_name("kind", strip.kind)
    states = (say("chart.state_present"), say("chart.state_removed"))
    rows = [
        {"row": name, "place": place, "gone": place in row.gone, "label": states[place in row.gone]}
        for name, row in zip(names, strip.rows, strict=True)
        for place in range(row.among)
    ]
    number = max(row.among for row in strip.rows)
    step = max(1, math.ceil(number * (0.62 * LABEL * len(str(number)) + 6) / width))
    values = list(range(0, number, step))
    axis = alt.Axis(values=values, labelAngle=0, labelOverlap=False, **marks.BARE)
    scale = alt.Scale(domain=list(range(number)), paddingInner=0.2, paddingOuter=0)
    tips = (("row", say("label.location")), ("place", unit), ("label", say("label.state")))
    cells = alt.Chart(marks.inline(rows)).encode(
        x=alt.X("place:O", title=unit, scale=scale, axis=axis),
        y=marks.names_axis("row", names, paddingInner=0.25, paddingOuter=0.1),
        **marks.tooltips(tips),
    )
    full: dict[str, Any] = {"fill": BLUE, "stroke": BLUE, "strokeWidth": 1}
    hollow = {**full, "fillOpacity": 0, "stroke": VERMILLION, "strokeWidth": 1.3}
    layers = [
        cells.transform_filter("!datum.gone").mark_rect(**full),
        cells.transform_filter("datum.gone").mark_rect(**hollow),
    ]
    return alt.LayerChart(layer=layers, width=width, height=min(_ROW * len(names), _TALLEST))


def strip_words(strip: Strip) -> str:
    """Return the alternative text of a strip."""
    names = strip_names(strip)
    gone, among = sum(len(row.gone) for row in strip.rows), sum(row.among for row in strip.rows)
    rows = "; ".join(
        say("format.named_numbers", name=name, numbers=[str(n) for n in row.gone])
        for name, row in zip(names[:20], strip.rows, strict=False)
    )
    title = strip_title(strip)
    return say("chart.removed_strip_alt", title=title, gone=gone, among=among, rows=rows)


def overlap_charts(pair: Pair, width: float) -> list[alt.LayerChart]:
    """Return a small matrix per row of ``pair.survival``: zero or not before and after."""
    return [_overlap(row, width) for row in overlaps(pair)]


def overlap_colors() -> alt.LayerChart:
    """Return the bar of colors that the small matrices share."""
    title, alt_text = say("chart.overlap_scale_title"), say("chart.overlap_scale_alt")
    return marks.color_bar(title, alt_text)


def overlap_chart(pair: Pair, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return the matrix of all prunable weights of both models; None if there is no zero."""
    rows = overlaps(pair)
    heading = say("chart.overlap_title")
    return _overlap(rows[0], min(width, _MATRIX), heading) if rows else None


def overlap_rows(row: Mapping[str, Any]) -> marks.Rows:
    """Return the four cells of a matrix of zeros before and after."""
    after, before = _sides()
    return [
        {
            "block": after[now],
            "projection": before[was],
            "value": row[key] / row["compared"],
            "label": count(row[key]),
        }
        for key, was, now in _OVERLAP
    ]


def _sides() -> tuple[tuple[str, str], tuple[str, str]]:
    """Return the names of zero and nonzero weights, after and before."""
    return (
        (say("chart.overlap_zero"), say("label.nonzero")),
        (say("chart.overlap_zero_before"), say("chart.overlap_nonzero_before")),
    )


def overlap_words(row: Mapping[str, Any], name: str) -> str:
    """Return the alternative text of a matrix of :func:`overlap_rows`."""
    shares = {key: row[key] / row["compared"] for key, _, _ in _OVERLAP}
    return say("chart.overlap_alt", name=name, compared=row["compared"], **shares)


def overlap_mark(data: marks.Data, width: float) -> alt.LayerChart:
    """Return a matrix of :func:`overlap_rows`."""
    after, before = _sides()
    shape = marks.HeatMap(
        blocks=after,
        projections=before,
        width=width,
        row=2 * theme.ROW,
        domain=(0.0, 1.0),
        legend=False,
        x_title=say("label.after"),
        tips=marks.tips(projection="label.before", block="label.after", label="label.weights"),
    )
    return marks.heat_map(data, shape)


def _overlap(row: Mapping[str, Any], width: float, heading: str = "") -> alt.LayerChart:
    """Return a titled matrix, by default with the group as its heading."""
    name = say("name.all_prunable_weights") if row["group"] is None else group_name(row["group"])
    note = "" if pd.isna(row["iou"]) else say("chart.overlap_iou_note", iou=row["iou"])
    chart = overlap_mark(marks.inline(overlap_rows(row)), width)
    return theme.titled(chart, heading or clip(name, 40), note, overlap_words(row, name))
