"""Heat maps of zeros by Transformer block, with colors from 0 to 100 %, and of other metrics.

Rows of a map are projections, or attention heads or experts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.heat_map_svg import HeatMap, MapCell
from sparsity_report.draw.theme import TEXT_WIDTH
from sparsity_report.study.comparison import Study
from sparsity_report.study.derived.heads_experts import Part
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.words.display_names import method_name
from sparsity_report.words.number_format import percent
from sparsity_report.words.sentences import say

#: Most experts in a map of their use.
MOST_EXPERTS = 8_000
# Width of a small map; height of its rows, and of all of them at most.
_SMALL, _SMALL_ROW, _SMALL_HEIGHT = 210, 13, 200
# Most cells of a map of heads or experts, and its greatest height.
_MOST, _TALLEST = 5_000, 420
# Titles of maps of heads and experts.
_PARTS = {"heads": "chart.head_zeros_title", "experts": "chart.expert_zeros_title"}


def map_cells(
    cells: pd.DataFrame,
    value: str = "sparsity",
    kind: str = "share",
    tips: Mapping[str, str] | None = None,
) -> list[MapCell]:
    """Return the cells of a map.

    Parameters
    ----------
    cells : pandas.DataFrame
        One row per cell with ``block``, ``projection``, the value, null where it is unknown, the
        fields of `tips`, and ``crossed`` if some cells are crossed out.
    value : str
        Column of the value.
    kind : str
        Notation of the value, see :func:`sparsity_report.draw.theme.write`.
    tips : mapping, optional
        Fields of the tooltip and their titles; no tooltips without it.
    """
    shown = cells.assign(label=[theme.write(number, kind) for number in cells[value]])
    crossed = shown.get("crossed", [False] * len(shown))
    texts = [""] * len(shown)
    if tips:
        fields = [[f"{title}: {text}" for text in shown[key]] for key, title in tips.items()]
        texts = ["; ".join(parts) for parts in zip(*fields, strict=True)]
    values = shown[value].astype(object).where(shown[value].notna(), None)
    columns = (shown["block"], shown["projection"], values, texts, crossed)
    return list(map(MapCell, *columns))


def expert_map(
    rows: pd.DataFrame, figure: str, variant: str, width: float = TEXT_WIDTH
) -> HeatMap | None:
    """Return a heat map of the use or the saliency of experts, by block.

    Parameters
    ----------
    rows : pandas.DataFrame
        From :func:`.expert_use.router_use`, of one variant.
    figure : {"expert_use", "expert_saliency"}
    variant : str
    width : float
        In points, everything included.

    Returns
    -------
    HeatMap or None
        None if there are too many experts, or fewer than two with a known figure.
    """
    rows = rows[rows["block"].notna()]
    known = rows[figure].dropna()
    if len(known) < 2 or len(rows) > MOST_EXPERTS or rows.duplicated(["block", "expert"]).any():
        return None
    kept = [say("format.yes" if is_kept else "format.no") for is_kept in rows["is_kept"]]
    cells, blocks, experts = _numbered(rows.assign(crossed=~rows["is_kept"], kept=kept), "expert")
    removed, label = int(cells["crossed"].sum()), say(f"label.{figure}")
    tips = {"block": say("kind.block"), "projection": say("kind.expert"), "label": label}
    tips["kept"] = say("column.is_kept")
    note_key = "chart.experts_removed_note" if removed else "chart.experts_note"
    heading = say(f"chart.{figure}_title")
    ends = {"low": theme.write(known.min(), "ratio"), "high": theme.write(known.max(), "ratio")}
    counts = {"blocks": len(blocks), "experts": len(experts)}
    return HeatMap(
        blocks=blocks,
        names=experts,
        cells=map_cells(cells, figure, "ratio", tips),
        width=width,
        row=min(theme.ROW, _TALLEST / len(experts)),
        kind="ratio",
        domain=(0.0, max(1.01, float(known.max()))),
        title=heading,
        note=say(note_key, variant=variant, removed=removed),
        alt=say("chart.experts_alt", title=heading, variant=variant, **counts, **ends),
        axis=say("chart.x_transformer_block"),
        legend=label,
    )


def _numbered(rows: pd.DataFrame, part: str) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Return the cells and the axes of a map of numbered parts by block."""
    blocks, names = ([*map(str, sorted(rows[column].unique()))] for column in ("block", part))
    cells = rows.assign(block=rows["block"].astype(str), projection=rows[part].astype(str))
    return cells, blocks, names


def metric_map(
    cells: pd.DataFrame, axes: tuple[Sequence[str], Sequence[str]], metric: str, shown: str
) -> alt.LayerChart:
    """Return a heat map of any metric of layers as a chart.

    Parameters
    ----------
    cells : pandas.DataFrame
        One row per cell with ``block``, ``projection`` and ``value``.
    axes : tuple of sequence of str
        Blocks and projections in their order.
    metric : str
        A key of :data:`sparsity_report.draw.theme.METRICS`, or a column of the user.
    shown : str
        The variant or level in view.
    """
    about = theme.METRICS.get(metric)
    kind, name = (about.kind, say(about.name)) if about else ("own", clip(metric, 40))
    known = cells["value"].dropna()
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    domain = (low, high if high > low else low + 1.0)
    if kind == "share":
        domain = (0.0, 1.0)
    elif kind in theme.EVEN:
        domain = (min(theme.EVEN[kind], low), max(theme.EVEN[kind] + 0.01, high))
    if kind in {"points", "nats"}:
        domain = (-max(map(abs, domain)), max(map(abs, domain)))
    blocks, names = axes
    ends = {"low": theme.write(low, kind), "high": theme.write(high, kind)}
    counts = {"blocks": len(blocks), "projections": len(names)}
    return marks.heat_map(
        HeatMap(
            blocks=blocks,
            names=names,
            cells=map_cells(cells, "value", kind),
            width=TEXT_WIDTH,
            row=min(theme.ROW, _TALLEST / max(1, len(names))),
            kind=kind,
            domain=domain,
            title=name,
            note=shown,
            alt=say("chart.metric_map_alt", metric=name, shown=shown, **counts, **ends),
            axis=say("chart.x_transformer_block"),
            legend=name,
        )
    )


def sparsity_map(study: Study, variant: str, width: float = TEXT_WIDTH) -> HeatMap | None:
    """Return a heat map of the sparsity of the prunable weights.

    Parameters
    ----------
    study : Study
    variant : str
    width : float
        In points, everything included.

    Returns
    -------
    HeatMap or None
        None if the variant has no prunable weights in numbered blocks, or all cells are equal.
    """
    cells, grid = study.facts.cells(variant), study.facts.grid(variant)
    if cells.empty or even(study, variant):
        return None
    keys = {"block": "kind.block", "projection": "name.projection", "label": "chart.zeros_label"}
    if (layers := int(cells["layers"].max())) > 1:
        ends = zip(cells["low"], cells["high"], strict=True)
        cells = cells.assign(range=[say("format.percent_range", low=a, high=b) for a, b in ends])
        keys |= {"layers": "chart.layers_in_cell", "range": "chart.zeros_range_per_layer"}
    counts: dict[str, Any] = {"blocks": len(grid.blocks), "projections": len(grid.projections)}
    for end, place in (("low", cells["sparsity"].argmin()), ("high", cells["sparsity"].argmax())):
        row = cells.iloc[int(place)]
        counts |= {end: theme.write(row["sparsity"], "share")}
        counts |= {f"{end}_{axis}": row[axis] for axis in ("block", "projection")}
    title, note = _map_title(study, variant, layers)
    return HeatMap(
        blocks=grid.blocks,
        names=grid.projections,
        cells=map_cells(cells, tips={field: say(key) for field, key in keys.items()}),
        width=width,
        title=title,
        note=note,
        alt=say("chart.zeros_map_alt", **counts),
        axis=say("chart.x_transformer_block"),
        legend=say("chart.zeros_label"),
    )


def _map_title(study: Study, variant: str, layers: int) -> tuple[str, str]:
    """Return the heading and the note."""
    facts = study.variants.set_index("variant").loc[variant]
    heading, notes = say("chart.zeros_map_title"), [clip(facts["model"]), clip(variant)]
    if pd.notna(facts["asked_sparsity"]):
        method = method_name(str(facts["method"] or ""))
        heading = say("chart.pruned_zeros_map_title", asked=facts["asked_sparsity"], method=method)
        if pd.notna(facts["threshold"]):
            notes[1] = say("chart.single_threshold_note", threshold=facts["threshold"])
    if spread := study.facts.spread(variant):
        notes.append(say("chart.zeros_per_layer_range", low=spread.low, high=spread.high))
    if layers > 1:
        notes.append(say("chart.layers_per_cell_note", layers=layers))
    return heading, " · ".join(notes)


def small_map(study: Study, variant: str) -> HeatMap | None:
    """Return a heat map of a variant's zeros without a scale, one of several side by side.

    Returns
    -------
    HeatMap or None
        None if the variant has no prunable weights in numbered blocks, or all cells are equal.
    """
    cells, grid = study.facts.cells(variant), study.facts.grid(variant)
    if cells.empty or even(study, variant):
        return None
    note = say("format.percent_range", low=cells["sparsity"].min(), high=cells["sparsity"].max())
    return HeatMap(
        blocks=grid.blocks,
        names=grid.projections,
        cells=map_cells(cells),
        width=_SMALL,
        row=min(_SMALL_ROW, _SMALL_HEIGHT / len(grid.projections)),
        title=clip(variant, 24),
        note=note,
        alt=say("chart.small_map_alt", variant=clip(variant), note=note),
    )


def even(study: Study, variant: str) -> str | None:
    """Return the sparsity that all cells of a variant's map round to, else None."""
    shares = {percent(share, digits=0) for share in study.facts.cells(variant)["sparsity"]}
    return shares.pop() if len(shares) == 1 else None


def colors() -> HeatMap:
    """Return the scale of colors that maps share, from no zeros to all."""
    legend, words = say("chart.small_map_scale_title"), say("chart.small_map_scale_alt")
    return HeatMap(width=280, legend=legend, alt=words)


def is_too_large(part: Part) -> bool:
    """Return true if a part has more cells than a map shows."""
    return len(part.rows) > _MOST


def part_map(part: Part, variant: str) -> HeatMap | None:
    """Return a small map of the heads of a projection or of experts, by block.

    Returns
    -------
    HeatMap or None
        None if there are too many cells, or all are equal.
    """
    if is_too_large(part) or len({percent(s, digits=0) for s in part.rows["sparsity"]}) < 2:
        return None
    cells, blocks, names = _numbered(part.rows, "part")
    ends = {"low": float(cells["sparsity"].min()), "high": float(cells["sparsity"].max())}
    counts = {"blocks": len(blocks), "parts": len(names)}
    title, projection = say(_PARTS[part.key]), clip(part.projection)
    heading = ", ".join((title, " · ".join(filter(None, (short_name(variant), projection)))))
    return HeatMap(
        blocks=blocks,
        names=names,
        cells=map_cells(cells),
        width=_SMALL,
        row=min(_SMALL_ROW, _TALLEST / len(names)),
        title=clip(part.projection, 24) or title,
        note=say("format.percent_range", **ends),
        alt=say("chart.heads_experts_alt", title=heading, **counts, **ends),
    )
