"""A value in a notebook cell: findings, a map of zeros and a small table, without a script.

The cell shows only what is known already, and loads no chart library.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache, singledispatch
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import escape

from sparsity_report.counting.pruning import Pruning
from sparsity_report.findings.difference import Difference
from sparsity_report.findings.verdict import verdict
from sparsity_report.report.svg_map import ShareMap, draw_map
from sparsity_report.report.tables.column_heads import columns_of
from sparsity_report.report.tables.latex import tex, to_tabular
from sparsity_report.report.tables.pair_tables import totals as pair_totals
from sparsity_report.report.tables.table_model import Column, Table, kind_of, table_of, to_html
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.heatmap_grid import Grid
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.study.pairs.pair_cells import difference_map
from sparsity_report.study.variants import Variant
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.weights.weights import Weights
from sparsity_report.words.display_names import head
from sparsity_report.words.languages import template_text
from sparsity_report.words.number_format import shares_domain
from sparsity_report.words.sentences import first, say

# Most rows of a table and most sentences in a cell.
_ROWS, _SENTENCES = 20, 12
# Maps of a pair: columns of its cells and the keys of their titles.
_PAIR_MAPS = {
    "zeros_before": "cell.map_base_zero_before",
    "zero_or_gone": "cell.map_base_zero_or_gone_after",
}


class Content(NamedTuple):
    """Content of a cell: lines, the first of them in large type, maps and a table."""

    lines: Sequence[str]
    maps: Sequence[ShareMap]
    table: Table


def bundle(value: Any) -> dict[str, str]:
    """Return a value as HTML, LaTeX and text, by MIME type.

    Parameters
    ----------
    value : Comparison, Pair, Weights, Pruning, Variant or Difference

    Examples
    --------
    >>> import sparsity_report as sr
    >>> sorted(bundle(sr.load()))
    ['text/html', 'text/latex', 'text/plain']
    """
    content = _content(value)
    return {"text/html": _html(content), "text/latex": _latex(content), "text/plain": repr(value)}


@singledispatch
def _content(value: Any) -> Content:
    raise TypeError(type(value).__name__)


@_content.register
def _(study: Comparison) -> Content:
    variant = study.facts.headline
    names = repr(study).split("\n")[0]
    ratios = [study.facts.ratio(name, "stored_bytes") for name in study.totals["variant"]]
    frame = study.totals.assign(ratio=pd.Series(ratios, dtype="float64"))
    columns = columns_of(
        "variant sparsity_prunable sparsity_model stored_bytes ratio flops_per_token",
        ratio=say("column.ratio_to_variant", variant=short_name(study.facts.baseline)),
    )
    table = _first_rows(columns, frame)
    return Content([str(verdict(study)), names], _maps([(study, variant)]), table)


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
    columns = columns_of("group modules total prunable_total param_frac")
    return Content(repr(weights).split("\n"), [], _first_rows(columns, groups))


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
    groups["share"] = groups["pruned"] / groups["weight_total"]
    columns = columns_of("group weight_total pruned share", share=say("column.pruned_share"))
    return Content(repr(pruning).split("\n"), maps, _first_rows(columns, groups))


@_content.register
def _(variant: Variant) -> Content:
    return _content(variant.pruning or variant.weights)._replace(lines=repr(variant).split("\n"))


@_content.register
def _(difference: Difference) -> Content:
    lines = [repr(difference).split("\n")[0], *first(difference.sentences(), _SENTENCES)]
    studies = {"before": difference.before, "after": difference.after}
    keys = ("sparsity_prunable", "stored_bytes")
    sides = [
        study.totals.set_index("variant")[[*keys]].add_suffix(f"_{side}")
        for side, study in studies.items()
    ]
    values = pd.concat(sides, axis=1, sort=False).rename_axis("variant").reset_index()
    columns = columns_of("variant")
    for key in keys:
        for side in studies:
            columns.append(Column(f"{key}_{side}", head(side), kind_of(key), head(key)))
    maps = _maps((study, study.facts.headline) for study in studies.values())
    return Content(lines, maps, _first_rows(columns, values))


@_content.register
def _(pair: Pair) -> Content:
    main, *others = pair.sentences()
    lines = [main, repr(pair).split("\n")[0], *others[:_SENTENCES]]
    maps = []
    if (shown := difference_map(pair)) is not None:
        for column, title in _PAIR_MAPS.items():
            cells = shown.cells.assign(share=shown.cells[column] / shown.cells["weight_before"])
            maps.append(_map(say(title), shown.grid, cells, "share"))
    return Content(lines, maps, pair_totals(pair))


def _maps(variants: Iterable[tuple[Comparison, str]]) -> list[ShareMap]:
    maps = []
    for study, variant in variants:
        grid, cells = study.facts.grid(variant), study.facts.cells(variant)
        if not cells.empty:
            title = say("cell.map_zero_share", variant=short_name(variant))
            maps.append(_map(title, grid, cells, "sparsity"))
    return maps


def _map(title: str, grid: Grid, cells: pd.DataFrame, column: str) -> ShareMap:
    rows = cells[["block", "projection", column]].itertuples(index=False, name=None)
    return ShareMap(title, grid.blocks, grid.projections, [*rows])


def _first_rows(columns: Sequence[Column], values: pd.DataFrame) -> Table:
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
    # All maps share one scale.
    shares = [share for each in content.maps for *_, share in each.cells]
    domain = shares_domain(min(shares), max(shares)) if shares else (0.0, 1.0)
    parts = [draw_map(each, domain) for each in content.maps]
    if content.table.rows:
        parts.append(f'<div class="wide">{to_html(content.table)}</div>')
    body = f'<div class="parts">{"".join(parts)}</div>' if parts else ""
    return f'<style>{_style()}</style><div class="sparsity-report">{"".join(lines)}{body}</div>'


def _latex(content: Content) -> str:
    lines = [f"{tex(line, 200)}\\\\" for line in content.lines]
    if content.table.rows:
        lines.append(to_tabular(content.table))
    return "\n".join(lines)
