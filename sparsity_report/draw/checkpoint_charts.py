"""Charts of a pair: the fate of zeros and weights by block, and removed units."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt
import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.theme import BLUE, INK, LABEL, SMALL, TEXT_WIDTH, VERMILLION
from sparsity_report.findings.checkpoint_labels import (
    block_names,
    blocks_axis,
    blocks_title,
    both,
    strip_names,
    strip_title,
)
from sparsity_report.study.derived.removed_strips import Strip, block_shares, strips
from sparsity_report.study.figures import StudyFigures
from sparsity_report.untrusted.display_text import clip
from sparsity_report.words.display_names import display_name, head
from sparsity_report.words.sentences import say

# Most cells of a strip.
_MOST = 5_000
# Height of columns by block.
_COLUMNS = 150
# Greatest heights of a row and of all rows of a strip.
_ROW, _TALLEST = 16, 420


def blocks_chart(
    study: StudyFigures, width: float = TEXT_WIDTH, *, heading: bool = True
) -> alt.LayerChart | None:
    """Return columns of the share of zeros revived, weights removed or new zeros, by block.

    `width` is in points, everything included. The `heading` is the finding.

    Returns
    -------
    altair.LayerChart or None
        None if none of the shares varies.
    """
    if (shown := block_shares(study.facts.table("matches"))) is None:
        return None
    names = block_names(shown)
    rows = [
        {"row": name, "value": share, "label": theme.write(share, "share")}
        for name, share in zip(names, shown.rows["share"], strict=True)
        if pd.notna(share)
    ]
    has_blocks = shown.rows["block"].notna().any()
    title = blocks_axis(shown)
    x_title = say("chart.x_transformer_block") if has_blocks else head("group")
    y = alt.Y(
        "value:Q",
        title=title,
        scale=alt.Scale(domain=[0, max(row["value"] for row in rows)], nice=True),
        axis=alt.Axis(tickCount=4, labelExpr=theme.tick("share")),
    )
    base = alt.Chart(marks.inline(rows)).encode(x=_columns_axis(names, x_title, width), y=y)
    tips = (("row", x_title), ("label", title))
    color = BLUE if shown.figure == "new" else VERMILLION
    layers = [base.mark_bar(color=color).encode(**marks.tooltips(tips))]
    if len(names) * 3.4 * LABEL <= width:
        text = base.transform_filter("datum.value > 0").mark_text(dy=-6, fontSize=SMALL, color=INK)
        layers.append(text.encode(text="label:N"))
    chart = alt.LayerChart(layer=layers, width=width, height=_COLUMNS)
    texts = "; ".join(f"{row['row']}: {row['label']}" for row in rows)
    alt_text = say("chart.blocks_alt", title=title, rows=texts)
    if heading:
        return theme.titled(chart, blocks_title(shown), both(study), alt_text)
    chart.description = clip(alt_text, 1500)
    return theme.fitted(chart)


def strip_charts(
    study: StudyFigures, width: float = TEXT_WIDTH
) -> Iterator[tuple[Strip, alt.LayerChart | None]]:
    """Yield a strip per kind of removed units: rows of cells, hollow for removed ones.

    The chart is None if there are too many cells. `width` is in points, everything included.
    """
    for strip in strips(study.facts.table("removed")):
        if (chart := strip_mark(strip, width)) is not None:
            note = say("chart.removed_strip_note", models=both(study))
            chart = theme.titled(chart, strip_title(strip), note, strip_words(strip))
        yield strip, chart


def strip_chart(study: StudyFigures, kind: str, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return the strip of one kind; None if none of it was removed or there are too many cells."""
    return next((c for strip, c in strip_charts(study, width) if strip.kind == kind), None)


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
    tips = (("row", say("label.location")), ("place", unit), ("label", say("label.state")))
    cells = alt.Chart(marks.inline(rows)).encode(
        x=_columns_axis([*range(number)], unit, width, "place:O"),
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


def _columns_axis(
    names: Sequence[str] | Sequence[int], title: str, width: float, field: str = "row:N"
) -> alt.X:
    """Return a horizontal axis of columns; names that have no room are left out."""
    room = 0.62 * LABEL * max(len(str(name)) for name in names) + 6
    values: Any = names[:: max(1, math.ceil(len(names) * room / width))]
    axis = alt.Axis(values=values, labelAngle=0, labelOverlap=False, **marks.BARE)
    scale = alt.Scale(domain=[*names], paddingInner=0.2, paddingOuter=0)
    return alt.X(field, title=title, scale=scale, axis=axis)
