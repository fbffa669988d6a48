"""Heat maps of zeros by Transformer block, with colors from 0 to 100 %, and of other metrics.

Rows of a map are projections, or attention heads or experts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.heat_map_svg import HeatMap, MapCell
from sparsity_report.draw.theme import TEXT_WIDTH
from sparsity_report.draw.vega_lite import VegaLite
from sparsity_report.study.derived.heads_experts import Part
from sparsity_report.study.derived.zero_losses import kept_by_place
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.heatmap_grid import OUTSIDE
from sparsity_report.study.layers import records
from sparsity_report.study.policy_names import threshold_rule
from sparsity_report.study.schema import Column
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.words.number_format import percent
from sparsity_report.words.sentences import say

#: Most experts in a map of their use.
MOST_EXPERTS = 8_000
# Width of a small map; height of its rows, and of all of them at most.
_SMALL, _SMALL_ROW, _SMALL_HEIGHT = 210, 13, 200
# Most cells of a map of heads or experts, and its greatest height.
_MOST, _TALLEST = 5_000, 420
# Cells of a history from which tooltips would take most of a page.
_TIPPED = 600
# Titles of the blocks and of the tooltip's fields.
_AXIS, _TIPS = "chart.x_transformer_block", {"block": "kind.block", "projection": "name.projection"}


def _map(
    cells: pd.DataFrame,
    axes: tuple[Sequence[str], Sequence[str]],
    value: str = "sparsity",
    tips: Mapping[str, str] | None = None,
    **options: Any,
) -> HeatMap:
    """Return a map of cells.

    Parameters
    ----------
    cells : pandas.DataFrame
        One row per cell with ``block``, ``projection``, the value, null where it is unknown, the
        fields of `tips`, and ``crossed`` if some cells are crossed out.
    axes : tuple of sequence of str
        Blocks and rows in their order.
    value : str
        Column of the value.
    tips : mapping, optional
        Fields of the tooltip and the keys of their titles; no tooltips without it.
    **options
        Further fields of :class:`sparsity_report.draw.heat_map_svg.HeatMap`.
    """
    kind = options.get("kind", "share")
    cells = cells.assign(label=[theme.write(number, kind) for number in cells[value]])
    texts = [""] * len(cells)
    if tips:
        fields = [[f"{say(title)}: {text}" for text in cells[key]] for key, title in tips.items()]
        texts = ["; ".join(parts) for parts in zip(*fields, strict=True)]
    values = cells[value].astype(object).where(cells[value].notna(), None)
    crossed = cells.get("crossed", [False] * len(cells))
    drawn = [*map(MapCell, cells["block"], cells["projection"], values, texts, crossed)]
    return HeatMap(blocks=axes[0], names=axes[1], cells=drawn, **options)


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
    cells, axes = _numbered(rows.assign(crossed=~rows["is_kept"], kept=kept), "expert")
    removed, label = int(cells["crossed"].sum()), f"label.{figure}"
    title, ratio = say(f"chart.{figure}_title"), partial(theme.write, kind="ratio")
    numbers: dict[str, Any] = {"blocks": len(axes[0]), "experts": len(axes[1])}
    numbers |= {"low": ratio(known.min()), "high": ratio(known.max())}
    note = "chart.experts_removed_note" if removed else "chart.experts_note"
    return _map(
        cells,
        axes,
        figure,
        {**_TIPS, "projection": "kind.expert", "label": label, "kept": "column.is_kept"},
        width=width,
        row=min(theme.ROW, _TALLEST / len(axes[1])),
        kind="ratio",
        domain=(0.0, 1.0, max(1.01, float(known.max()))),
        title=title,
        note=say(note, variant=variant, removed=removed),
        alt=say("chart.experts_alt", title=title, variant=variant, **numbers),
        axis=say(_AXIS),
        legend=say(label),
    )


def _numbered(rows: pd.DataFrame, part: str) -> tuple[pd.DataFrame, tuple[list[str], list[str]]]:
    """Return the cells and the axes of a map of numbered parts by block."""
    blocks, names = ([*map(str, sorted(rows[column].unique()))] for column in ("block", part))
    cells = rows.assign(block=rows["block"].astype(str), projection=rows[part].astype(str))
    return cells, (blocks, names)


def metric_map(
    cells: pd.DataFrame,
    axes: tuple[Sequence[str], Sequence[str]],
    metric: Column,
    texts: tuple[str, str],
) -> VegaLite:
    """Return a heat map of any metric of layers as a chart.

    Parameters
    ----------
    cells : pandas.DataFrame
        One row per cell with ``block``, ``projection`` and ``value``.
    axes : tuple of sequence of str
        Blocks and projections in their order.
    metric : Column
    texts : tuple of str
        Name of the metric, and the variant or level in view.
    """
    kind, (name, subject) = metric.format.axis, texts
    known = cells["value"].dropna()
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    domain: tuple[float, ...] = (low, high if high > low else low + 1.0)
    if kind == "share":
        domain = (0.0, 1.0)
    elif kind == "ratio":
        domain = (0.0, 1.0, max(1.01, high))
    elif kind in {"points", "nats"}:
        far = max(0.01, -low, high)
        domain = (-far, 0.0, far)
    ends = {"low": theme.write(low, kind), "high": theme.write(high, kind)}
    counts = {"blocks": len(axes[0]), "projections": len(axes[1])}
    shape = _map(
        cells,
        axes,
        "value",
        width=TEXT_WIDTH,
        row=min(theme.ROW, _TALLEST / max(1, len(axes[1]))),
        kind=kind,
        domain=domain,
        title=name,
        note=subject,
        alt=say("chart.metric_map_alt", metric=name, shown=subject, **counts, **ends),
        axis=say(_AXIS),
        legend=name,
    )
    return marks.heat_map(shape)


def sparsity_map(study: StudyFigures, variant: str, width: float = TEXT_WIDTH) -> HeatMap | None:
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
    tips = {**_TIPS, "label": "chart.zeros_label"}
    if (layers := int(cells["layers"].max())) > 1:
        spans = zip(cells["low"], cells["high"], strict=True)
        cells = cells.assign(range=[say("format.percent_range", low=a, high=b) for a, b in spans])
        tips |= {"layers": "chart.layers_in_cell", "range": "chart.zeros_range_per_layer"}
    ends: dict[str, str] = {}
    for end, place in (("low", cells["sparsity"].argmin()), ("high", cells["sparsity"].argmax())):
        row = cells.iloc[int(place)]
        ends |= {end: theme.write(row["sparsity"], "share"), f"{end}_part": part_of(row)}
    title, note = _map_title(study, variant, layers)
    options = {"title": title, "note": note, "alt": say("chart.zeros_map_alt", **ends)}
    options |= {"axis": say(_AXIS), "legend": say("chart.zeros_label")}
    return _map(cells, (grid.blocks, grid.projections), tips=tips, width=width, **options)


def history_map(study: StudyFigures, width: float = TEXT_WIDTH) -> HeatMap | None:
    """Return a heat map of the pruned weights that are zero, by step and place.

    `width` is in points, everything included.

    Returns
    -------
    HeatMap or None
        None if the shares of all cells are equal.
    """
    cells = kept_by_place(study.facts.table("history"), study.layers)
    if cells["kept_share"].nunique() < 2:
        return None
    axes = [[*map(str, cells[column].unique())] for column in ("step", "place")]
    shares, title = cells["kept_share"], say("chart.history_map_title")
    ends = {"low": shares.min(), "high": shares.max()}
    counts = {"steps": len(axes[0]), "places": len(axes[1])}
    tips = {"block": "column.step", "projection": "label.place", "label": "chart.zeros_label"}
    return _map(
        cells.assign(block=cells["step"].map(str), projection=cells["place"].map(str)),
        (axes[0], axes[1]),
        "kept_share",
        tips if len(cells) < _TIPPED else None,
        width=width,
        row=min(theme.ROW, _TALLEST / len(axes[1])),
        title=title,
        alt=say("chart.history_map_alt", **counts, **ends),
        axis=say("column.step"),
        legend=say("chart.zeros_label"),
    )


def part_of(cell: pd.Series) -> str:
    """Return the name of a cell of the map: its projection, and its block unless outside."""
    outside = cell["block"] == OUTSIDE
    return say("map.part_outside" if outside else "map.part_in_block", **cell)


def _map_title(study: StudyFigures, variant: str, layers: int) -> tuple[str, str]:
    """Return the heading and the note."""
    (facts,) = records(study.variants[study.variants["variant"] == variant])
    heading = say("chart.zeros_map_title")
    notes = [say("chart.model_note", **facts), say("chart.variant_note", **facts)]
    if pd.notna(facts["asked_sparsity"]):
        heading = say("chart.pruned_zeros_map_title", **facts)
        if pd.notna(facts["threshold"]):
            notes[1] = threshold_rule(facts)
    if spread := study.facts.spread(variant):
        notes.append(say("chart.zeros_per_layer_range", low=spread.low, high=spread.high))
    if layers > 1:
        notes.append(say("chart.layers_per_cell_note", layers=layers))
    return heading, " · ".join(notes)


def small_map(study: StudyFigures, variant: str) -> HeatMap:
    """Return a heat map of a variant's zeros without a scale, one of several side by side."""
    grid = study.facts.grid(variant)
    title, axes = clip(variant, 24), (grid.blocks, grid.projections)
    shape = _small(study.facts.cells(variant), axes, _SMALL_HEIGHT, title)
    return replace(shape, alt=say("chart.small_map_alt", variant=clip(variant), note=shape.note))


def _small(
    cells: pd.DataFrame, axes: tuple[list[str], list[str]], tallest: float, title: str
) -> HeatMap:
    """Return a small map with the range of its values as a note, without a scale."""
    note = say("format.percent_range", low=cells["sparsity"].min(), high=cells["sparsity"].max())
    row = min(_SMALL_ROW, tallest / len(axes[1]))
    return _map(cells, axes, width=_SMALL, row=row, title=title, note=note)


def even(study: StudyFigures, variant: str) -> str | None:
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
    cells, axes = _numbered(part.rows, "part")
    title, projection = say(f"chart.zeros_title.{part.key}"), clip(part.projection)
    heading = " · ".join(filter(None, (short_name(variant), projection)))
    numbers = {"blocks": len(axes[0]), "parts": len(axes[1])}
    numbers |= {"low": cells["sparsity"].min(), "high": cells["sparsity"].max()}
    words = say("chart.heads_experts_alt", title=f"{title}, {heading}", **numbers)
    shape = _small(cells, axes, _TALLEST, clip(part.projection, 24) or title)
    return replace(shape, alt=words)
