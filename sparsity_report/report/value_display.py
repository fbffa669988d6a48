"""A value as text for ``repr``, and in a notebook cell as HTML and LaTeX without a script.

Values are weights, prunings, kept experts, variants, studies, and pairs. A
cell has findings, a map of zeros and a small table. It shows only what is known already, and loads
no chart library.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache, singledispatch
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import escape

from sparsity_report.counting.kept_experts import KeptExperts
from sparsity_report.counting.pruning import Pruning
from sparsity_report.findings.pair_findings import pair_verdict
from sparsity_report.findings.verdict import verdict
from sparsity_report.report.tables.html import to_html
from sparsity_report.report.tables.latex import tex, to_tabular
from sparsity_report.report.tables.pair_tables import totals as pair_totals
from sparsity_report.report.tables.table_model import Table, table_of
from sparsity_report.report.template_files import template_text
from sparsity_report.sparse.shares import ratio
from sparsity_report.study.comparison import Study
from sparsity_report.study.derived.heatmap_grid import Grid
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.study.pairs.pair_cells import difference_map
from sparsity_report.study.schema import MEASURED, Column, columns_of
from sparsity_report.study.variants import Variant
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.weights.weights import Weights
from sparsity_report.words.display_names import layout_name, method_name
from sparsity_report.words.number_format import percent
from sparsity_report.words.sentences import say, some

# Most rows of a table and most sentences in a cell.
_ROWS, _SENTENCES = 20, 12
# Maps of a pair: columns of its cells and the keys of their titles.
_PAIR_MAPS = {
    "zeros_before": "cell.map_base_zero_before",
    "zero_or_gone": "cell.map_base_zero_or_gone_after",
}
# Maps: width without names; greatest height and width of a cell; height without a scale; height
# of a row from which rows have names.
_WIDTH, _HIGH, _WIDE, _MAPPED, _NAMED = 420, 16, 24, 240, 12
# Viridis at ten even steps, as in Matplotlib, and the number of colors drawn.
_VIRIDIS = (
    "440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b",
    "fde725",
)  # fmt: skip
_COLORS = 48


def describe(value: Any) -> str:
    """Return the text of a value in a few lines."""
    return "\n".join(_lines(value))


@singledispatch
def _lines(value: Any) -> list[str]:
    raise TypeError(type(value).__name__)


@_lines.register
def _(weights: Weights) -> list[str]:
    name, architecture = short_name(weights.name), short_name(weights.architecture or "–")
    total, modules = sum(p.total for p in weights.stored), len(weights.modules)
    prunable = sum(p.total for p in weights.prunable)
    count = sum(p.experts for p in weights.prunable)
    return [
        say("repr.weights_source", name=name, architecture=architecture, source=weights.source),
        say("repr.parameters_in_modules", total=total, modules=modules),
        say("repr.prunable_matrices", total=prunable, count=count),
    ]


@_lines.register
def _(pruning: Pruning) -> list[str]:
    name, method = short_name(pruning.weights.name), short_name(method_name(pruning.method))
    total = sum(p.total for p in pruning.weights.prunable)
    pruned, share = pruning.pruned, ratio(pruning.pruned, total)
    threshold = say("repr.no_single_threshold")
    if pruning.threshold is not None:
        threshold = say("repr.pruning_threshold", threshold=pruning.threshold)
    return [
        say("repr.pruning_target", name=name, method=method, sparsity=pruning.sparsity),
        say("repr.pruned_weights", pruned=pruned, total=total, share=share),
        threshold,
    ]


@_lines.register
def _(kept: KeptExperts) -> list[str]:
    total, modules = sum(kept.counts.values()), len(kept.counts)
    name, method = short_name(kept.weights.name), method_name(kept.method)
    numbers = {"kept": total - kept.removed, "total": total, "modules": modules}
    return [say("repr.kept_experts", name=name, method=method, **numbers)]


@_lines.register
def _(variant: Variant) -> list[str]:
    name, layout = short_name(variant.name), layout_name(variant.layout)
    title = say("repr.variant_layout", variant=name, layout=layout)
    return [title, *_lines(variant.pruning or variant.weights)[:2]]


@_lines.register
def _(study: Study) -> list[str]:
    models, names = (list(study.variants[key].unique()) for key in ("model", "variant"))
    title = say(
        "repr.study_summary",
        models=[*map(short_name, models)],
        variants=some([*map(short_name, names)], 8),
        modules=study.layers["module_name"].nunique(),
    )
    measured = [name for name in MEASURED if getattr(study, name) is not None]
    frames = ["layers", "groups", "totals", "storage", *measured]
    return [title, verdict(study), say("repr.frame_names", frames=frames)]


@_lines.register
def _(pair: Pair) -> list[str]:
    before, after = map(short_name, pair.models["model"])
    title = say("repr.pair_models", before=before, after=after)
    frames = ["layers", "removed", "survival", "groups", "totals", "sparsities"]
    verdict_text = " ".join(pair_verdict(pair))
    return [title, verdict_text, say("repr.frame_names", frames=frames)]


class ShareMap(NamedTuple):
    """Shares of 1 by block and projection, one per cell."""

    title: str
    blocks: Sequence[str]
    projections: Sequence[str]
    cells: Sequence[tuple[str, str, float]]


class Content(NamedTuple):
    """Content of a cell: lines, the first of them in large type, maps and a table."""

    lines: Sequence[str]
    maps: Sequence[ShareMap]
    table: Table


def bundle(value: Any) -> dict[str, str]:
    """Return a value as HTML, LaTeX and text, by MIME type.

    Parameters
    ----------
    value : Study, Pair, Weights, Pruning, KeptExperts or Variant

    Examples
    --------
    >>> import sparsity_report as sr
    >>> sorted(bundle(sr.load()))
    ['text/html', 'text/latex', 'text/plain']
    """
    content = _content(value)
    return {
        "text/html": _html(content),
        "text/latex": _latex(content),
        "text/plain": describe(value),
    }


@singledispatch
def _content(value: Any) -> Content:
    raise TypeError(type(value).__name__)


@_content.register
def _(study: Study) -> Content:
    variant = study.facts.headline
    names = _lines(study)[0]
    ratios = [study.facts.ratio(name, "stored_bytes") for name in study.totals["variant"]]
    frame = study.totals.assign(ratio=pd.Series(ratios, dtype="float64"))
    columns = columns_of(
        "variant sparsity_prunable sparsity_model stored_bytes ratio flops_per_token",
        ratio=say("column.ratio_to_variant", variant=study.facts.baseline),
    )
    table = _first_rows(columns, frame)
    return Content([verdict(study), names], _maps([(study, variant)]), table)


@_content.register
def _(weights: Weights) -> Content:
    rows = [
        (
            module.group,
            1,
            sum(p.total for p in module.parameters if p.tied_to is None),
            sum(p.total for p in module.parameters if p.prunable),
        )
        for module in weights.modules
    ]
    frame = pd.DataFrame(rows, columns=["group", "modules", "total", "prunable_total"])
    groups = frame.groupby("group", sort=False).sum().reset_index()
    total = sum(p.total for p in weights.stored)
    groups["param_frac"] = groups["total"] / total if total else None
    columns = "group modules total prunable_total param_frac"
    return Content(_lines(weights), [], _first_rows(columns, groups))


@_content.register
def _(pruning: Pruning) -> Content:
    rows = []
    for module in pruning.weights.modules:
        parameters = [p for p in module.parameters if p.prunable]
        if total := sum(p.total for p in parameters):
            cuts = (pruning.cuts.get(p.name) for p in parameters)
            pruned = sum(cut.pruned for cut in cuts if cut)
            rows.append((module.name, module.block, module.group, total, pruned))
    frame = pd.DataFrame(rows, columns=["module_name", "block", "group", "weight_total", "pruned"])
    maps = []
    inside = frame[frame["block"].notna()]
    if len(inside):
        grid = Grid(inside)
        sums = inside.groupby(grid.codes)[["weight_total", "pruned"]].sum()
        shares = (sums["pruned"] / sums["weight_total"]).tolist()
        cells = pd.DataFrame(grid.cells).assign(share=shares)
        maps.append(_map(say("cell.map_share_pruned"), grid, cells, "share"))
    groups = frame.groupby("group", sort=False)[["weight_total", "pruned"]].sum().reset_index()
    groups["pruned_share"] = groups["pruned"] / groups["weight_total"]
    columns = "group weight_total pruned pruned_share"
    return Content(_lines(pruning), maps, _first_rows(columns, groups))


@_content.register
def _(kept: KeptExperts) -> Content:
    return _content(kept.weights)._replace(lines=_lines(kept))


@_content.register
def _(variant: Variant) -> Content:
    return _content(variant.pruning or variant.weights)._replace(lines=_lines(variant))


@_content.register
def _(pair: Pair) -> Content:
    title, verdict_text, _ = _lines(pair)
    others = pair.sentences()[len(pair_verdict(pair)) :]
    lines = [verdict_text, title, *others[:_SENTENCES]]
    maps = []
    if (shown := difference_map(pair)) is not None:
        for column, title in _PAIR_MAPS.items():
            cells = shown.cells.assign(share=shown.cells[column] / shown.cells["weight_before"])
            if cells["share"].nunique() > 1:
                maps.append(_map(say(title), shown.grid, cells, "share"))
    return Content(lines, maps, pair_totals(pair))


def _maps(variants: Iterable[tuple[Study, str]]) -> list[ShareMap]:
    maps = []
    for study, variant in variants:
        grid, cells = study.facts.grid(variant), study.facts.cells(variant)
        if not cells.empty:
            title = say("cell.map_zero_share", variant=variant)
            maps.append(_map(title, grid, cells, "sparsity"))
    return maps


def _map(title: str, grid: Grid, cells: pd.DataFrame, column: str) -> ShareMap:
    rows = cells[["block", "projection", column]].itertuples(index=False, name=None)
    return ShareMap(title, grid.blocks, grid.projections, [*rows])


def _first_rows(columns: str | Sequence[Column], values: pd.DataFrame) -> Table:
    """Return a table of the first rows; its caption says how many more there are."""
    more = len(values) - _ROWS
    caption = say("format.count_more", count=more) if more > 0 else ""
    return table_of("cell", caption, columns, values.head(_ROWS))


@lru_cache(1)
def _style() -> str:
    return template_text("notebook/cell.css").partition("*/")[2].replace("\n", "")


def _html(content: Content) -> str:
    main, *others = content.lines
    lines = [f'<p class="verdict">{escape(main)}</p>']
    lines += [f'<p class="soft">{escape(line)}</p>' for line in others]
    parts = [*map(draw_map, content.maps)]
    if content.table.rows:
        parts.append(f'<div class="wide">{to_html(content.table)}</div>')
    body = f'<div class="parts">{"".join(parts)}</div>' if parts else ""
    return f'<style>{_style()}</style><div class="sparsity-report">{"".join(lines)}{body}</div>'


def _latex(content: Content) -> str:
    lines = [f"{tex(line, 200)}\\\\" for line in content.lines]
    if content.table.rows:
        lines.append(to_tabular(content.table))
    return "\n".join(lines)


def draw_map(shares: ShareMap) -> str:
    """Return a figure with a map from 0 to 100 %; cells of one color are one path of strokes."""
    columns, rows = len(shares.blocks), len(shares.projections)
    high = max(3, min(_HIGH, _MAPPED // rows))
    wide = max(2, min(_WIDE, _WIDTH // columns))
    named = [clip(name, 18) for name in shares.projections] if high >= _NAMED else []
    left = 6 + 6 * max(map(len, named), default=0)
    x = {block: place for place, block in enumerate(shares.blocks)}
    y = {projection: place for place, projection in enumerate(shares.projections)}
    strokes: dict[int, list[str]] = {}
    for block, projection, share in shares.cells:
        step = round((_COLORS - 1) * share)
        strokes.setdefault(step, []).append(f"M{x[block]} {y[projection]}h1")
    paths = "".join(
        f'<path stroke="{_viridis(step / (_COLORS - 1))}" d="{"".join(lines)}"/>'
        for step, lines in sorted(strokes.items())
    )
    middle = f"translate({left} {high / 2:g}) scale({wide} {high})"
    texts = [
        f'<text x="{left - 4}" y="{(place + 0.5) * high + 3.5:g}" text-anchor="end">'
        f"{escape(name)}</text>"
        for place, name in enumerate(named)
    ]
    bottom, width = rows * high + 12, left + columns * wide
    texts.append(f'<text x="{left}" y="{bottom}">{escape(shares.blocks[0])}</text>')
    if columns > 1:
        texts.append(
            f'<text x="{width}" y="{bottom}" text-anchor="end">{escape(shares.blocks[-1])}</text>'
        )
    scale = "".join(
        f'<path stroke="{_viridis(step / (_COLORS - 1))}" d="M{step} 0h1"/>'
        for step in range(_COLORS)
    )
    ends = [escape(percent(end, 0)) for end in (0.0, 1.0)]
    key = (
        f'<g stroke-width="8" transform="translate({left + 34} {bottom + 12}) scale(1.5 1)" '
        f'shape-rendering="crispEdges">{scale}</g>'
        f'<text x="{left}" y="{bottom + 16}">{ends[0]}</text>'
        f'<text x="{left + 38 + 1.5 * _COLORS:g}" y="{bottom + 16}">{ends[1]}</text>'
    )
    width, height = max(width, left + 150), bottom + 20
    title = escape(shares.title)
    return (
        f'<figure style="width:{width}px"><p class="soft">{title}</p>'
        f'<svg role="img" aria-label="{title}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><g transform="{middle}" stroke-width="1" '
        f'shape-rendering="crispEdges">{paths}</g>{"".join(texts)}{key}</svg></figure>'
    )


def _viridis(share: float) -> str:
    """Return the color of a share of 1, between the anchors of viridis."""
    place = share * (len(_VIRIDIS) - 1)
    first = min(int(place), len(_VIRIDIS) - 2)
    sides = (bytes.fromhex(_VIRIDIS[at]) for at in (first, first + 1))
    mixed = (round(a + (b - a) * (place - first)) for a, b in zip(*sides, strict=True))
    return "#" + bytes(mixed).hex()
