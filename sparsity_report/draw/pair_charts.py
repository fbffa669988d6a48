"""Two checkpoints in pictures: where they differ, what was taken away, how their zeros overlap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import altair as alt
import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.gaussian_excess import ends, in_points
from sparsity_report.draw.small_multiples import WIDTH
from sparsity_report.draw.strip_labels import strip_names, strip_title
from sparsity_report.draw.theme import PAPER, TEXT_WIDTH, Sizes
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.study.pairs.pair_cells import Strip, difference_map, overlaps, strips
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.words.display_names import display_name, group_name
from sparsity_report.words.number_format import count
from sparsity_report.words.sentences import say

# Things that a strip shows one by one.
_MOST = 5_000
# Widths of the bar of colours, and of a matrix of four cells at most.
_BAR_WIDTH, _MATRIX = 260, 250
# Heights of a strip's row, and of all at most.
_ROW, _TALLEST = 16, 420
# Cells of a matrix: what they count, and whether it was nonzero before and after.
_OVERLAP = (("kept", 0, 0), ("revived", 0, 1), ("new", 1, 0), ("surviving", 1, 1))


class Drawn(NamedTuple):
    """A strip and its chart; None of more things than can be shown one by one."""

    strip: Strip
    chart: alt.LayerChart | None


def both(pair: Pair) -> str:
    """Name the two models, the base first."""
    before, after = map(short_name, pair.models["model"])
    return f"{before} → {after}"


def difference_chart(pair: Pair, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return a heat map of how much more of the base is zero or gone, block by projection.

    Vermillion cells lost weights, blue ones got weights back where zeros were. `width` is in
    points, everything included.

    Returns
    -------
    altair.LayerChart or None
        None of a base without prunable weights in numbered blocks.
    """
    if (shown := difference_map(pair)) is None:
        return None
    frame, grid = shown.cells, shown.grid
    rows = frame[["block", "projection"]].assign(
        value=frame["moved"],
        label=[theme.write(value, "points") for value in frame["moved"]],
        gone=[count(number) for number in frame["gone"]],
        weights=[count(number) for number in frame["weight_before"]],
    )
    tips = (
        ("block", say("kind.block")),
        ("projection", say("name.projection")),
        ("label", say("chart.percentage_points")),
        ("gone", say("label.weights_removed")),
        ("weights", say("label.of_total")),
    )
    shape = in_points(grid, frame["moved"], width, tips)
    said = say("chart.pair_difference_alt", **ends(frame, "moved"))
    note = say("chart.pair_difference_note", models=both(pair))
    chart = marks.heat_map(marks.inline(rows), shape)
    return theme.fitted(theme.titled(chart, say("chart.pair_difference_title"), note, said))


def strip_charts(pair: Pair, width: float = TEXT_WIDTH) -> Iterator[Drawn]:
    """Yield a strip per kind of thing that is gone: rows of cells, those that are gone hollow.

    `width` is in points, everything included.
    """
    for strip in strips(pair):
        if (chart := strip_mark(strip, width)) is not None:
            note = say("chart.removed_strip_note", models=both(pair))
            chart = theme.fitted(theme.titled(chart, strip_title(strip), note, strip_words(strip)))
        yield Drawn(strip, chart)


def strip_chart(pair: Pair, kind: str, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return the strip of one kind; None where none of it is gone, or too many are there."""
    return next((d.chart for d in strip_charts(pair, width) if d.strip.kind == kind), None)


def strip_mark(strip: Strip, width: float, sizes: Sizes = PAPER) -> alt.LayerChart | None:
    """Return rows of cells of what is gone and what stands; None of too many cells.

    `width` is that of the cells alone.
    """
    if sum(row.among for row in strip.rows) > _MOST:
        return None
    names = strip_names(strip)
    rows = [
        {"row": name, "place": place, "gone": place in row.gone, "label": _state(place in row.gone)}
        for name, row in zip(names, strip.rows, strict=True)
        for place in range(row.among)
    ]
    shape = marks.Cells(
        rows=tuple(names),
        number=max(row.among for row in strip.rows),
        width=width,
        row=min(_ROW, _TALLEST / len(names)),
        title=display_name("kind", strip.kind),
        tips=(
            ("row", say("label.location")),
            ("place", display_name("kind", strip.kind)),
            ("label", say("label.state")),
        ),
        sizes=sizes,
    )
    return marks.strip(marks.inline(rows), shape)


def strip_words(strip: Strip) -> str:
    """Say what a strip shows."""
    names = strip_names(strip)
    gone, among = sum(len(row.gone) for row in strip.rows), sum(row.among for row in strip.rows)
    return say(
        "chart.removed_strip_alt",
        title=strip_title(strip),
        gone=gone,
        among=among,
        rows="; ".join(
            say("format.named_numbers", name=name, numbers=[str(n) for n in row.gone])
            for name, row in zip(names[:20], strip.rows, strict=False)
        ),
    )


def _state(gone: bool) -> str:
    return say("chart.state_removed") if gone else say("chart.state_present")


def overlap_charts(
    pair: Pair, width: float = WIDTH
) -> Iterator[tuple[Mapping[str, Any], alt.LayerChart]]:
    """Yield rows of ``pair.survival`` as small matrices: zero or not before, and after."""
    for row in overlaps(pair):
        yield row, _overlap(row, width)


def overlap_colours() -> alt.LayerChart:
    """Return the bar of colours that the small matrices share."""
    title = say("chart.overlap_scale_title")
    chart = marks.colour_bar("share", (0.0, 1.0), title, _BAR_WIDTH)
    chart.description = say("chart.overlap_scale_alt")
    return theme.fitted(chart)


def overlap_chart(pair: Pair, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return the matrix of all prunable weights that stand in both; None without a zero.

    Four cells need no more than a column, however wide the text is.
    """
    rows = overlaps(pair)
    heading = say("chart.overlap_title")
    return _overlap(rows[0], min(width, _MATRIX), heading) if rows else None


def overlap_rows(row: Mapping[str, Any]) -> marks.Rows:
    """Return the four cells of a matrix of zeros before and after, of what stands in both."""
    after, before = (
        (say("chart.overlap_zero"), say("label.nonzero")),
        (say("chart.overlap_zero_before"), say("chart.overlap_nonzero_before")),
    )
    return [
        {
            "block": after[now],
            "projection": before[was],
            "value": row[key] / row["compared"],
            "label": count(row[key]),
        }
        for key, was, now in _OVERLAP
    ]


def overlap_words(row: Mapping[str, Any], name: str) -> str:
    """Say what a matrix of :func:`overlap_rows` shows, of what is called so."""
    return say(
        "chart.overlap_alt",
        name=name,
        compared=row["compared"],
        **{key: row[key] / row["compared"] for key, _, _ in _OVERLAP},
    )


def overlap_mark(data: marks.Data, width: float, sizes: Sizes = PAPER) -> alt.LayerChart:
    """Return a matrix of :func:`overlap_rows`."""
    shape = marks.HeatMap(
        blocks=(say("chart.overlap_zero"), say("label.nonzero")),
        projections=(say("chart.overlap_zero_before"), say("chart.overlap_nonzero_before")),
        width=width,
        row=2 * theme.ROW,
        domain=(0.0, 1.0),
        legend=False,
        x_title=say("label.after"),
        tips=(
            ("projection", say("label.before")),
            ("block", say("label.after")),
            ("label", say("label.weights")),
        ),
        sizes=sizes,
    )
    return marks.heat_map(data, shape)


def _overlap(row: Mapping[str, Any], width: float, heading: str = "") -> alt.LayerChart:
    """Return a matrix, called by the group that it is of if not told."""
    name = say("name.all_prunable_weights") if row["group"] is None else group_name(row["group"])
    said = overlap_words(row, name)
    note = (
        say("chart.overlap_iou_note", iou=row["iou"])
        if row["iou"] is not None and not pd.isna(row["iou"])
        else ""
    )
    chart = overlap_mark(marks.inline(overlap_rows(row)), width)
    return theme.fitted(theme.titled(chart, heading or clip(name, 40), note, said))
