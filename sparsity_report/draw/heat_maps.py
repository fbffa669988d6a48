"""Heat maps of zeros by Transformer block, with colors from 0 to 100 %.

Rows of a map are projections, or attention heads or experts.

``block_map`` is the map that all of them share, and that of a pair.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import altair as alt
import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.theme import TEXT_WIDTH
from sparsity_report.study.comparison import Study
from sparsity_report.study.derived.heads_experts import Part
from sparsity_report.study.schema import Column
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.words.display_names import method_name
from sparsity_report.words.number_format import percent
from sparsity_report.words.sentences import say

#: Most experts in a map of their use.
MOST_EXPERTS = 8_000
#: Width of a small map, everything included.
WIDTH = 210
# Height of a row of a small map, and of all its rows at most.
_SMALL_ROW, _SMALL_HEIGHT = 13, 200
_SMALL: dict[str, Any] = {"width": WIDTH, "legend": False, "x_title": "", "tips": None}
# Most cells of a map of heads or experts, and its greatest height.
_MOST, _TALLEST = 5_000, 420
# Titles of maps of heads and experts.
_PARTS = {"heads": "chart.head_zeros_title", "experts": "chart.expert_zeros_title"}


def block_map(
    cells: pd.DataFrame,
    axes: tuple[Sequence[str], Sequence[str]],
    kind: str = "share",
    *,
    value: str = "sparsity",
    label: str = "chart.zeros_label",
    tips: Mapping[str, str] | None = MappingProxyType({}),
    **look: Any,
) -> alt.LayerChart:
    """Return a heat map without its title.

    Parameters
    ----------
    cells : pandas.DataFrame
        One row per cell with ``block``, ``projection``, the value, null where it is unknown, and
        the fields of `tips`.
    axes : tuple of sequence of str
        Blocks and projections in their order.
    kind : str
        Notation of the value, see :func:`sparsity_report.draw.theme.write`.
    value : str
        Column of the value.
    label : str
        Key of the title of the value in the tooltip.
    tips : mapping, optional
        Further fields of the tooltip and the keys of their titles; None for no tooltips.
    **look
        Further fields of :class:`sparsity_report.draw.marks.HeatMap`: the width in points, the
        domain of the colors (by default 0 to 1 of shares, else equally far from zero).
    """
    far = max(0.01, float(cells[value].abs().max()))
    domain = (0.0, 1.0) if kind == "share" else (-far, far)
    fields = {"block": "kind.block", "projection": "name.projection", "label": label}
    fields |= tips or {}
    rows = cells.assign(
        value=cells[value].astype(object).where(cells[value].notna(), None),
        label=[theme.write(number, kind) for number in cells[value]],
    )
    shape = marks.HeatMap(
        blocks=tuple(axes[0]),
        projections=tuple(axes[1]),
        kind=kind,
        tips=() if tips is None else marks.tips(**fields),
        **{"row": theme.ROW, "domain": domain, **look},
    )
    columns = [*fields, "value", *(["crossed"] if shape.has_crosses else [])]
    return marks.heat_map(marks.inline(rows[columns]), shape)


def expert_map(rows: pd.DataFrame, figure: str, variant: str, width: float = TEXT_WIDTH) -> Any:
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
    altair.LayerChart or None
        None if there are too many experts, or fewer than two with a known figure.
    """
    rows = rows[rows["block"].notna()]
    known = rows[figure].dropna()
    if len(known) < 2 or len(rows) > MOST_EXPERTS or rows.duplicated(["block", "expert"]).any():
        return None
    stays = [say("format.yes" if is_kept else "format.no") for is_kept in rows["is_kept"]]
    cells, axes = _numbered(rows.assign(crossed=~rows["is_kept"], stays=stays), "expert")
    removed, label = int(cells["crossed"].sum()), f"label.{figure}"
    look: dict[str, Any] = {
        "row": min(float(theme.ROW), _TALLEST / len(axes[1])),
        "domain": (0.0, max(1.01, float(known.max()))),
        "tips": {"projection": "kind.expert", "stays": "column.is_kept"},
        "has_crosses": bool(removed),
    }
    look |= {"title": say(label), "label": label, "value": figure, "width": width}
    chart = block_map(cells, axes, "ratio", **look)
    note_key = "chart.experts_removed_note" if removed else "chart.experts_note"
    heading, note = say(f"chart.{figure}_title"), say(note_key, variant=variant, removed=removed)
    ends = {"low": theme.write(known.min(), "ratio"), "high": theme.write(known.max(), "ratio")}
    counts = {"blocks": len(axes[0]), "experts": len(axes[1])}
    alt_text = say("chart.experts_alt", title=heading, variant=variant, **counts, **ends)
    return theme.titled(chart, heading, note, alt_text)


def _numbered(rows: pd.DataFrame, part: str) -> tuple[pd.DataFrame, tuple[list[str], list[str]]]:
    """Return the cells and the axes of a map of numbered parts by block."""
    blocks, names = ([*map(str, sorted(rows[column].unique()))] for column in ("block", part))
    cells = rows.assign(block=rows["block"].astype(str), projection=rows[part].astype(str))
    return cells, (blocks, names)


def metric_map(
    cells: pd.DataFrame, axes: tuple[Sequence[str], Sequence[str]], metric: Column, shown: str
) -> alt.LayerChart:
    """Return a heat map of any metric of layers.

    Parameters
    ----------
    cells : pandas.DataFrame
        One row per cell with ``block``, ``projection`` and ``value``.
    axes : tuple of sequence of str
        Blocks and projections in their order.
    metric : Column
    shown : str
        The variant or level in view.
    """
    kind, name = metric.format.axis, metric.label
    known = cells["value"].dropna()
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    domain = (low, high if high > low else low + 1.0)
    if kind == "share":
        domain = (0.0, 1.0)
    elif kind in theme.EVEN:
        domain = (min(theme.EVEN[kind], low), max(theme.EVEN[kind] + 0.01, high))
    if kind in {"points", "nats"}:
        domain = (-max(map(abs, domain)), max(map(abs, domain)))
    row = min(float(theme.ROW), _TALLEST / max(1, len(axes[1])))
    look: dict[str, Any] = {"row": row, "domain": domain, "title": name, "width": TEXT_WIDTH}
    chart = block_map(cells, axes, kind, value="value", label="label.value", **look)
    ends = {"low": theme.write(low, kind), "high": theme.write(high, kind)}
    counts = {"blocks": len(axes[0]), "projections": len(axes[1])}
    words = say("chart.metric_map_alt", metric=name, shown=shown, **counts, **ends)
    return theme.titled(chart, name, shown, words)


def extremes(cells: pd.DataFrame, value: str, kind: str) -> dict[str, Any]:
    """Return the cells of the least and of the greatest value, as values of a phrase."""
    texts: dict[str, Any] = {}
    for name, place in (("low", cells[value].argmin()), ("high", cells[value].argmax())):
        row = cells.iloc[int(place)]
        texts |= {name: theme.write(row[value], kind)}
        texts |= {f"{name}_{axis}": row[axis] for axis in ("block", "projection")}
    return texts


def sparsity_map(
    study: Study,
    variant: str,
    width: float = TEXT_WIDTH,
) -> alt.LayerChart | None:
    """Return a heat map of the sparsity of the prunable weights.

    Parameters
    ----------
    study : Study
    variant : str
    width : float
        In points, everything included.

    Returns
    -------
    altair.LayerChart or None
        None if the variant has no prunable weights in numbered blocks, or all cells are equal.
    """
    cells, grid = study.facts.cells(variant), study.facts.grid(variant)
    if cells.empty or even(study, variant):
        return None
    tips = {}
    if (layers := int(cells["layers"].max())) > 1:
        ends = zip(cells["low"], cells["high"], strict=True)
        cells = cells.assign(range=[say("format.percent_range", low=a, high=b) for a, b in ends])
        tips = {"layers": "chart.layers_in_cell", "range": "chart.zeros_range_per_layer"}
    look: dict[str, Any] = {"width": width, "title": say("chart.zeros_label"), "tips": tips}
    chart = block_map(cells, (grid.blocks, grid.projections), **look)
    counts = {"blocks": len(grid.blocks), "projections": len(grid.projections)}
    alt_text = say("chart.zeros_map_alt", **counts, **extremes(cells, "sparsity", "share"))
    return theme.titled(chart, *_map_title(study, variant, layers), alt_text)


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


def small_map(study: Study, variant: str) -> alt.LayerChart | None:
    """Return a heat map of a variant's zeros without a legend, one of several side by side.

    Returns
    -------
    altair.LayerChart or None
        None if the variant has no prunable weights in numbered blocks, or all cells are equal.
    """
    cells, grid = study.facts.cells(variant), study.facts.grid(variant)
    if cells.empty or even(study, variant):
        return None
    row = min(_SMALL_ROW, _SMALL_HEIGHT / len(grid.projections))
    chart = block_map(cells, (grid.blocks, grid.projections), row=row, **_SMALL)
    note = say("format.percent_range", low=cells["sparsity"].min(), high=cells["sparsity"].max())
    alt_text = say("chart.small_map_alt", variant=clip(variant), note=note)
    return theme.titled(chart, clip(variant, 24), note, alt_text)


def even(study: Study, variant: str) -> str | None:
    """Return the sparsity that all cells of a variant's map round to, else None."""
    shares = {percent(share, digits=0) for share in study.facts.cells(variant)["sparsity"]}
    return shares.pop() if len(shares) == 1 else None


def colors() -> alt.LayerChart:
    """Return the bar of colors that maps share, from no zeros to all."""
    return marks.color_bar(say("chart.small_map_scale_title"), say("chart.small_map_scale_alt"))


def is_too_large(part: Part) -> bool:
    """Return true if a part has more cells than a map shows."""
    return len(part.rows) > _MOST


def part_map(part: Part, variant: str) -> alt.LayerChart | None:
    """Return a small map of the heads of a projection or of experts, by block.

    Returns
    -------
    altair.LayerChart or None
        None if there are too many cells, or all are equal.
    """
    if is_too_large(part) or len({percent(s, digits=0) for s in part.rows["sparsity"]}) < 2:
        return None
    cells, (blocks, names) = _numbered(part.rows, "part")
    look = {**_SMALL, "row": min(_SMALL_ROW, _TALLEST / len(names))}
    chart = block_map(cells, (blocks, names), **look)
    ends = {"low": float(cells["sparsity"].min()), "high": float(cells["sparsity"].max())}
    counts = {"blocks": len(blocks), "parts": len(names)}
    names_of = " · ".join(filter(None, (short_name(variant), clip(part.projection))))
    title = say(_PARTS[part.key])
    alt_text = say("chart.heads_experts_alt", title=f"{title}, {names_of}", **counts, **ends)
    heading = clip(part.projection, 24) or title
    note = say("format.percent_range", **ends)
    return theme.titled(chart, heading, note, alt_text)
