"""The chart of a pair: the fate of zeros and weights by block."""

import math
from collections.abc import Sequence

import altair as alt
import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.theme import BLUE, INK, LABEL, SMALL, TEXT_WIDTH, VERMILLION
from sparsity_report.findings.checkpoint_labels import (
    block_names,
    blocks_axis,
    blocks_title,
    both,
)
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.pairs.removed_strips import block_shares
from sparsity_report.untrusted.display_text import clip
from sparsity_report.words.display_names import head
from sparsity_report.words.sentences import say

# Height of columns by block.
_COLUMNS = 150


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


def _columns_axis(names: Sequence[str], title: str, width: float) -> alt.X:
    """Return a horizontal axis of columns; names that have no room are left out."""
    room = 0.62 * LABEL * max(map(len, names)) + 6
    values = [*names[:: max(1, math.ceil(len(names) * room / width))]]
    axis = alt.Axis(values=values, labelAngle=0, labelOverlap=False, **marks.BARE)
    scale = alt.Scale(domain=[*names], paddingInner=0.2, paddingOuter=0)
    return alt.X("row:N", title=title, scale=scale, axis=axis)
