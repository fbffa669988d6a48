"""Heat maps of the zeros of each attention head and of each expert."""

import altair as alt

from sparsity_report.draw import theme
from sparsity_report.draw.heat_maps import WIDTH, block_map
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


def part_map(part: Part, variant: str) -> alt.LayerChart | None:
    """Return a small map of the heads of a projection or of experts, by block.

    Returns
    -------
    altair.LayerChart or None
        None if there are too many cells.
    """
    if len(part.rows) > _MOST:
        return None
    cells = part.rows.assign(
        block=part.rows["block"].astype(str), projection=part.rows["part"].astype(str)
    )
    blocks, names = (
        [*map(str, sorted(part.rows[column].unique()))] for column in ("block", "part")
    )
    title, one = _TITLES[part.key]
    chart = block_map(
        cells,
        (blocks, names),
        width=WIDTH,
        row=min(_ROW, _TALLEST / len(names)),
        domain=(0.0, 1.0),
        tips={"projection": one},
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
    return theme.titled(chart, heading, note, alt_text)
