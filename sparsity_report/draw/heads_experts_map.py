"""Inside matrices: zeros of each attention head, and of each expert, as cells of heat maps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import altair as alt
import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.small_multiples import WIDTH
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.heads_experts import Part
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.words.sentences import say

# Cells that a map shows one by one.
_MOST = 5_000
# Heights of a map at most, and of a row.
_TALLEST, _ROW = 420, 13
_TITLES = {
    "heads": ("chart.head_zeros_title", "kind.head"),
    "experts": ("chart.expert_zeros_title", "kind.expert"),
}


class Inside(NamedTuple):
    """A heat map of parts of matrices, and its rows.

    Attributes
    ----------
    key : {"heads", "experts"}
    projection : str
        The one whose parts they are; "" of experts, whose projections are added.
    chart : altair.LayerChart or None
        None of more parts than cells can show.
    rows : pandas.DataFrame
        ``block, part, sparsity``.
    """

    key: str
    projection: str
    chart: alt.LayerChart | None
    rows: pd.DataFrame


def inside_charts(study: Comparison, variant: str, width: float = WIDTH) -> Iterator[Inside]:
    """Yield a small map of heads by block for each projection that has any, and one of experts.

    `width` is in points, everything included.
    """
    for part in study.facts.parts(variant):
        chart = _chart(part, variant, width) if len(part.rows) <= _MOST else None
        yield Inside(part.key, part.projection, chart, part.rows)


def _chart(part: Part, variant: str, width: float) -> alt.LayerChart:
    frame = part.rows
    blocks = [str(block) for block in sorted(frame["block"].unique())]
    names = [str(number) for number in sorted(frame["part"].unique())]
    title, one = map(say, _TITLES[part.key])
    rows = pd.DataFrame(
        {
            "block": frame["block"].astype(str),
            "projection": frame["part"].astype(str),
            "value": frame["sparsity"],
            "label": [theme.write(share, "share") for share in frame["sparsity"]],
        }
    )
    low, high = float(frame["sparsity"].min()), float(frame["sparsity"].max())
    shape = marks.HeatMap(
        blocks=tuple(blocks),
        projections=tuple(names),
        width=width,
        row=min(_ROW, _TALLEST / len(names)),
        domain=(0.0, 1.0),
        legend=False,
        x_title="",
        tips=(
            ("block", say("kind.block")),
            ("projection", one),
            ("label", say("chart.zeros_label")),
        ),
    )
    of = " · ".join(filter(None, (short_name(variant), clip(part.projection))))
    said = say(
        "chart.heads_experts_alt",
        title=f"{title}, {of}",
        blocks=len(blocks),
        parts=len(names),
        low=low,
        high=high,
    )
    chart = marks.heat_map(marks.inline(rows), shape)
    heading = clip(part.projection, 24) or title
    note = say("format.percent_range", low=low, high=high)
    return theme.fitted(theme.titled(chart, heading, note, said))
