"""Zeros minus what Gaussians of the same spread would have, as a heat map."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.theme import TEXT_WIDTH
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.heatmap_grid import Grid
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.words.sentences import say


def excess_map(study: Comparison, variant: str, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return a heat map of zeros minus expected zeros of a pruning by one threshold.

    Blue cells lost fewer weights than a Gaussian of their spread would, vermillion ones more.
    `width` is in points, everything included.

    Returns
    -------
    altair.LayerChart or None
        None where no expectation is known, or of no cell.
    """
    frame, grid = study.facts.excess(variant), study.facts.grid(variant)
    known = frame["excess"].dropna()
    if known.empty:
        return None
    rows = frame[["block", "projection"]].assign(
        value=frame["excess"].astype(object).where(frame["excess"].notna(), None),
        label=[theme.write(value, "points") for value in frame["excess"]],
        zeros=[theme.write(share, "share") for share in frame["sparsity"]],
    )
    tips = (
        ("block", say("kind.block")),
        ("projection", say("name.projection")),
        ("label", say("chart.excess_zeros_label")),
        ("zeros", say("chart.zeros_label")),
    )
    shape = in_points(grid, known, width, tips)
    said = say("chart.gaussian_excess_alt", **ends(frame, "excess"))
    note = say(
        "chart.gaussian_excess_note",
        model=clip(study.variants.set_index("variant")["model"][variant]),
        variant=short_name(variant),
    )
    chart = marks.heat_map(marks.inline(rows), shape)
    return theme.fitted(theme.titled(chart, say("chart.gaussian_excess_title"), note, said))


def in_points(
    grid: Grid, points: pd.Series[Any], width: float, tips: tuple[tuple[str, str], ...]
) -> marks.HeatMap:
    """Return the look of a map of points, its colours as far from zero on either side."""
    far = max(0.01, float(points.abs().max()))
    return marks.HeatMap(
        blocks=tuple(grid.blocks),
        projections=tuple(grid.projections),
        width=width,
        row=theme.ROW,
        domain=(-far, far),
        title=say("chart.percentage_points"),
        kind="points",
        tips=tips,
    )


def ends(frame: pd.DataFrame, column: str) -> dict[str, Any]:
    """Return what a sentence says of the cells of the least and of the most points."""
    said: dict[str, Any] = {}
    for name, end in (("low", "argmin"), ("high", "argmax")):
        row = frame.iloc[int(frame[column].agg(end))]
        said |= {name: theme.write(row[column], "points")}
        said |= {f"{name}_{part}": row[part] for part in ("block", "projection")}
    return said
