"""Small maps of several prunings beside each other, in one scale of colours."""

from __future__ import annotations

import altair as alt
import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.charts import zeros_domain
from sparsity_report.study.comparison import Comparison
from sparsity_report.untrusted.display_text import clip
from sparsity_report.words.languages import spoken
from sparsity_report.words.number_format import percent
from sparsity_report.words.sentences import say

#: Of one map, everything included.
WIDTH = 210
_BAR_WIDTH = 260
# Height of a projection's row; a map is no higher than so many of them.
_ROW, _HEIGHT = 13, 200


def small_map(
    study: Comparison, variant: str, domain: tuple[float, float] | None = None
) -> alt.LayerChart | None:
    """Return a heat map of a variant's zeros without a legend, to stand among others.

    Parameters
    ----------
    study : Comparison
    variant : str
    domain : tuple of float, optional
        Ends of the colours; by default the same for every map of the study.

    Returns
    -------
    altair.LayerChart or None
        None where the variant has no prunable weights in numbered blocks.
    """
    frame, grid = study.facts.cells(variant), study.facts.grid(variant)
    if frame.empty:
        return None
    rows = frame.rename(columns={"sparsity": "value"})
    rows["label"] = [theme.write(share, "share") for share in rows["value"]]
    shape = marks.HeatMap(
        blocks=tuple(grid.blocks),
        projections=tuple(grid.projections),
        width=WIDTH,
        row=min(_ROW, _HEIGHT / len(grid.projections)),
        domain=domain or zeros_domain(study),
        legend=False,
        x_title="",
        tips=(
            ("block", say("kind.block")),
            ("projection", say("name.projection")),
            ("label", say("chart.zeros_label")),
        ),
    )
    first, last = _ends(frame)
    note = first if first == last else say("format.range", low=first, high=last)
    said = say("chart.small_map_alt", variant=clip(variant), note=note)
    chart = theme.titled(marks.heat_map(marks.inline(rows), shape), clip(variant, 24), note, said)
    return theme.fitted(chart)


def even(study: Comparison, variant: str) -> str | None:
    """Return the share of zeros that is told of every cell of a variant's map, if it is one."""
    frame = study.facts.cells(variant)
    if frame.empty:
        return None
    first, last = _ends(frame)
    return first if first == last else None


def _ends(cells: pd.DataFrame) -> tuple[str, str]:
    """Write the least and the most zeros of a map's cells."""
    space = spoken().space
    low, high = (float(cells["sparsity"].agg(end)) for end in ("min", "max"))
    return percent(low, space=space), percent(high, space=space)


def colours(ends: tuple[float, float]) -> alt.LayerChart:
    """Return the bar of colours that small maps share, from the least to the most zeros."""
    chart = marks.colour_bar("share", ends, say("chart.small_map_scale_title"), _BAR_WIDTH)
    low, high = (theme.write(end, "share") for end in ends)
    chart.description = say("chart.small_map_scale_alt", low=low, high=high)
    return theme.fitted(chart)
