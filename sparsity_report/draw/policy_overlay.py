"""Zeros per Transformer block, one line per pruning policy."""

from collections.abc import Mapping

import altair as alt
import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.theme import TEXT_WIDTH
from sparsity_report.study.comparison import Comparison
from sparsity_report.untrusted.display_text import clip, distinct_names
from sparsity_report.words.sentences import say


def blocks_chart(study: Comparison, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return the sparsity of each block, one line per pruning of a model.

    A policy has a hue, its levels have shades and dashes. Prunings with the same labels in every
    block share a line. `width` is in points, everything included.

    Returns
    -------
    altair.LayerChart or None
        None if fewer than two prunings have zeros in two blocks.
    """
    facts = study.facts
    if not facts.rivals:
        return None
    blocks = {v: facts.blocks(v) for v in facts.rivals}
    names = _named(blocks)
    frame = pd.concat([blocks[v].assign(line=name, variant=v) for v, name in names.items()])
    low, high = float(frame["sparsity"].min()), float(frame["sparsity"].max())
    room = max(high - low, 0.02) / 8
    rows = frame[["block", "line"]].assign(
        value=frame["sparsity"], label=[theme.write(share, "share") for share in frame["sparsity"]]
    )
    shape = marks.Curve(
        lines=_lines(facts.methods, names),
        width=width,
        x_title=say("kind.block"),
        y_title=say("chart.y_block_zeros"),
        kind="share",
        x="block",
        x_kind="plain",
        x_domain=(float(frame["block"].min()), float(frame["block"].max())),
        scale=alt.Scale(domain=[max(0.0, low - room), min(1.0, high + room)]),
        columns=marks.legend_columns(names.values(), width),
        tips=marks.tips(line="label.variant", block="kind.block", label="chart.zeros_label"),
    )
    model = str(facts.methods.set_index("variant")["model"][facts.rivals[0]])
    ranges = frame.groupby("line", sort=False)["sparsity"].agg(["min", "max"])
    texts = [
        say("chart.variant_zeros_range", variant=name, low=low, high=high)
        for name, low, high in ranges.itertuples()
    ]
    return theme.titled(
        marks.curve(marks.inline(rows), shape),
        say("chart.zeros_by_block_title"),
        say("chart.zeros_by_block_note", model=clip(model)),
        say("chart.zeros_by_block_alt", rows="; ".join(texts)),
    )


def _named(blocks: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Return the names of lines by the first of the prunings that share each."""
    shown = dict(zip(blocks, distinct_names(list(blocks)), strict=True))
    labels = {
        variant: (*rows["block"], *(theme.write(share, "share") for share in rows["sparsity"]))
        for variant, rows in blocks.items()
    }
    alike = theme.alike(labels)
    joined = [", ".join(shown[name] for name in names) for names in alike.values()]
    return dict(zip(alike, distinct_names(joined, 60), strict=True))


def _lines(methods: pd.DataFrame, names: dict[str, str]) -> tuple[marks.Line, ...]:
    """Return a line per variant: a hue per policy, a shade and a dash per level."""
    rows = methods.set_index("variant").loc[list(names)]
    policies = rows["policy"].where(rows["policy"].notna(), rows.index.to_series())
    kinds = rows["kind"].fillna(rows["sparsity"].round(2).astype(str))
    hues, dashes = (list(dict.fromkeys(column)) for column in (policies, kinds))
    colours = theme.cycle(theme.HUES, len(hues))
    strokes = theme.cycle(theme.DASHES, len(dashes))
    lines = []
    for variant, name in names.items():
        same = policies == policies[variant]
        levels = list(dict.fromkeys(rows.loc[same, "sparsity"].round(3).sort_values()))
        shades = theme.shades(colours[hues.index(policies[variant])], len(levels))
        colour = shades[levels.index(round(rows["sparsity"][variant], 3))]
        lines.append(marks.Line(name, colour, strokes[dashes.index(kinds[variant])]))
    return tuple(lines)
