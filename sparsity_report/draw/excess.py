"""Zeros minus what Gaussians of the same spread would have, as a heat map."""

from __future__ import annotations

import altair as alt

from sparsity_report.draw import look, marks
from sparsity_report.draw.look import TEXT_WIDTH
from sparsity_report.study.study import Comparison
from sparsity_report.words.names import clip, short_name
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
    far = max(0.01, float(known.abs().max()))
    rows = frame[["block", "projection"]].assign(
        value=frame["excess"].astype(object).where(frame["excess"].notna(), None),
        label=[look.write(value, "points") for value in frame["excess"]],
        zeros=[look.write(share, "share") for share in frame["sparsity"]],
    )
    tips = (
        ("block", say("block")),
        ("projection", say("projection")),
        ("label", say("more than expected")),
        ("zeros", say("zeros")),
    )
    shape = marks.HeatMap(
        blocks=tuple(grid.blocks),
        projections=tuple(grid.projections),
        width=width,
        row=look.ROW,
        domain=(-far, far),
        title=say("points"),
        kind="points",
        tips=tips,
    )
    low, high = (frame.iloc[int(frame["excess"].agg(end))] for end in ("argmin", "argmax"))
    said = say(
        "Heat map of zeros minus those of Gaussians, in percentage points: from {low} in block "
        "{low_block}, {low_projection}, to {high} in block {high_block}, {high_projection}.",
        low=look.write(low["excess"], "points"),
        low_block=low["block"],
        low_projection=low["projection"],
        high=look.write(high["excess"], "points"),
        high_block=high["block"],
        high_projection=high["projection"],
    )
    note = say(
        "{model} · {variant} · zeros − those of a Gaussian of the matrix’s own spread, in "
        "percentage points",
        model=clip(study.variants.set_index("variant")["model"][variant]),
        variant=short_name(variant),
    )
    chart = marks.heat_map(marks.inline(rows), shape)
    return look.fitted(look.titled(chart, say("More zeros than expected"), note, said))
