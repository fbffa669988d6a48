"""Heat maps of the zeros of each attention head and of each expert."""

from collections.abc import Iterator
from typing import NamedTuple

import altair as alt
import pandas as pd

from sparsity_report.draw import theme
from sparsity_report.draw.heat_maps import WIDTH, block_map
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.heads_experts import Part
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.words.sentences import say

# Most cells of a map.
_MOST = 5_000
# Greatest heights of a map and of a row.
_TALLEST, _ROW = 420, 13
_TITLES = {
    "heads": ("chart.head_zeros_title", "kind.head"),
    "experts": ("chart.expert_zeros_title", "kind.expert"),
}


class Inside(NamedTuple):
    """A heat map of heads or experts, and its rows.

    Attributes
    ----------
    key : {"heads", "experts"}
    projection : str
        Projection of the heads; "" for experts, whose projections are added.
    chart : altair.LayerChart or None
        None if there are too many cells.
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
    cells = part.rows.assign(
        block=part.rows["block"].astype(str), projection=part.rows["part"].astype(str)
    )
    blocks, names = (
        [str(number) for number in sorted(part.rows[column].unique())]
        for column in ("block", "part")
    )
    title, one = _TITLES[part.key]
    chart = block_map(
        cells,
        (blocks, names),
        width=width,
        row=min(_ROW, _TALLEST / len(names)),
        domain=(0.0, 1.0),
        tips={"block": "kind.block", "projection": one, "label": "chart.zeros_label"},
        legend=False,
        x_title="",
    )
    low, high = float(cells["sparsity"].min()), float(cells["sparsity"].max())
    names_of = " · ".join(filter(None, (short_name(variant), clip(part.projection))))
    alt_text = say(
        "chart.heads_experts_alt",
        title=f"{say(title)}, {names_of}",
        blocks=len(blocks),
        parts=len(names),
        low=low,
        high=high,
    )
    heading = clip(part.projection, 24) or say(title)
    note = say("format.percent_range", low=low, high=high)
    return theme.fitted(theme.titled(chart, heading, note, alt_text))
