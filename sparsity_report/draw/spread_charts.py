"""Spread of zeros: a dot per layer, and per Transformer block a line per pruning policy."""

import math
from collections.abc import Mapping

import altair as alt
import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.theme import BLUE, TEXT_WIDTH, VERMILLION
from sparsity_report.study.comparison import Comparison
from sparsity_report.untrusted.display_text import clip, distinct_names, short_name
from sparsity_report.words.sentences import say

# Most dots of a strip; further layers would cover them.
_DOTS = 4_000
_ROW = 22


def spread_chart(study: Comparison, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return a dot per prunable layer at its sparsity, a line per pruning.

    For one pruning the lines are its projections. `width` is in points, everything included.

    Returns
    -------
    altair.LayerChart or None
        None if in every pruning all layers have the same sparsity.
    """
    facts = study.facts
    uneven = [v for v in facts.prunings if (s := facts.spread(v)) and s.high - s.low >= 0.001]
    if not uneven:
        return None
    if len(facts.prunings) == 1:
        frame, note = _of_projections(study, uneven[0]), short_name(uneven[0])
    else:
        frame, note = _of_prunings(study), ""
    names = list(dict.fromkeys(frame["line"]))
    top = min(1.0, math.ceil(frame["share"].max() * 10) / 10)
    x = marks.share_axis("share", say("chart.x_layer_zeros_ratio"), [0, top], grid=True)
    y = marks.names_axis("line", names, grid=True)
    further = marks.tips(label="kind.layer", text="chart.zeros_label")
    tips = (("line", note or say("label.variant")), *further)
    dots = alt.Chart(marks.inline(_thinned(frame))).mark_circle(size=30, color=BLUE, opacity=0.45)
    means = frame.drop_duplicates("line")[["line", "mean"]].rename(columns={"mean": "share"})
    means["text"] = [theme.write(share, "share") for share in means["share"]]
    mean = alt.Chart(marks.inline(means)).encode(x=x, y=y)
    layers = [
        dots.encode(x=x, y=y, **marks.tooltips(tips)),
        mean.mark_tick(color=VERMILLION, thickness=2, size=0.6 * _ROW),
    ]
    chart = alt.LayerChart(layer=layers, width=width, height=_ROW * len(names))
    note = " · ".join(filter(None, (note, say("chart.layer_spread_note"))))
    return theme.titled(chart, say("chart.layer_spread_title"), note, _alt_text(frame))


def _of_projections(study: Comparison, variant: str) -> pd.DataFrame:
    facts = study.facts
    rows = facts.prunable(variant)
    inside = rows[rows["block"].notna()]
    grid = facts.grid(variant)
    lines = pd.Series([grid.cells[code].projection for code in grid.codes], index=inside.index)
    outside = rows["module_name"].map(short_name)
    return _dots(rows, lines.reindex(rows.index).fillna(outside))


def _of_prunings(study: Comparison) -> pd.DataFrame:
    prunings = {name: study.facts.prunable(name) for name in study.side_by_side}
    names = distinct_names(list(prunings))
    frames = [
        _dots(rows, pd.Series(name, index=rows.index))
        for name, rows in zip(names, prunings.values(), strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


def _dots(rows: pd.DataFrame, lines: pd.Series) -> pd.DataFrame:
    """Return the dots, each with the sparsity of all layers on its line."""
    zeros = (rows["weight_total"] - rows["weight_nonzero"]).groupby(lines).transform("sum")
    means = zeros.astype(float) / rows["weight_total"].groupby(lines).transform("sum")
    return pd.DataFrame(
        {
            "line": lines,
            "share": rows["share"],
            "label": rows["module_name"].map(short_name),
            "text": [theme.write(share, "share") for share in rows["share"]],
            "mean": means,
        }
    )


def _thinned(frame: pd.DataFrame) -> pd.DataFrame:
    """Return as many dots as can be shown, among them the outermost of every line."""
    columns = ["line", "share", "label", "text"]
    if len(frame) <= _DOTS:
        return frame[columns]
    ends = frame.groupby("line")["share"].agg(["idxmin", "idxmax"]).to_numpy().ravel()
    step = -(-len(frame) // _DOTS)
    kept = sorted({*ends.tolist(), *frame.index[::step].tolist()})
    return frame.loc[kept, columns]


def _alt_text(frame: pd.DataFrame) -> str:
    ranges = frame.groupby("line", sort=False)["share"].agg(["min", "max"])
    parts = [
        say("format.named_percent_range", line=line, low=low, high=high)
        for line, low, high in ranges.itertuples()
    ]
    return say("chart.layer_spread_alt", rows="; ".join(parts))


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
    colors = theme.cycle(theme.HUES, len(hues))
    strokes = theme.cycle(theme.DASHES, len(dashes))
    lines = []
    for variant, name in names.items():
        same = policies == policies[variant]
        levels = list(dict.fromkeys(rows.loc[same, "sparsity"].round(3).sort_values()))
        shades = theme.shades(colors[hues.index(policies[variant])], len(levels))
        color = shades[levels.index(round(rows["sparsity"][variant], 3))]
        lines.append(marks.Line(name, color, strokes[dashes.index(kinds[variant])]))
    return tuple(lines)
