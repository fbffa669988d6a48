"""A value in a notebook cell: a verdict, a picture and a small table, without a script.

Nothing is counted or read for it that was not known before, and no library of charts is loaded:
the map is a few paths of SVG, one per colour. Where a front end shows no style it is plain HTML.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import singledispatch
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import escape

from sparsity_report.counting.pruning import Pruning
from sparsity_report.findings.difference import Difference
from sparsity_report.findings.verdict import verdict
from sparsity_report.report.tables.latex import tex
from sparsity_report.report.tables.pair_tables import totals as pair_totals
from sparsity_report.report.tables.table_model import (
    SHARE,
    Column,
    Table,
    kind_of,
    table_of,
    to_html,
)
from sparsity_report.sparse.shares import ratio
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.heatmap_grid import Grid
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.study.pairs.pair_cells import difference_map
from sparsity_report.study.variants import Variant
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.weights.weights import Weights
from sparsity_report.words.column_titles import head
from sparsity_report.words.number_format import percent, shares_domain
from sparsity_report.words.sentences import say

# Rows of a table, and sentences, that a cell has room for.
_ROWS, _SENTENCES = 20, 12
# Of the map: its width without names, sizes of a cell at most, height from which rows are named.
_WIDTH, _HIGH, _WIDE, _MAPPED, _NAMED = 420, 16, 24, 240, 9
# Viridis at ten even steps, as Matplotlib has it, and how many colours are told apart.
_VIRIDIS = (
    "440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b",
    "fde725",
)  # fmt: skip
_COLOURS = 24
# Its own ground in both themes: the page below may not follow the system.
_STYLE = """
.sparsity-report{--ink:#1b1b1b;--soft:#595959;--line:#d0d0d0;--ground:#fff;color:var(--ink);
background:var(--ground);font:14px/1.45 system-ui,sans-serif;padding:12px;max-width:960px;
box-sizing:border-box;overflow-wrap:anywhere}
@media (prefers-color-scheme:dark){.sparsity-report{--ink:#ececec;--soft:#b4b4b4;--line:#4a4a4a;
--ground:#161616}}
[data-jp-theme-light="true"] .sparsity-report{--ink:#1b1b1b;--soft:#595959;--line:#d0d0d0;
--ground:#fff}
[data-jp-theme-light="false"] .sparsity-report{--ink:#ececec;--soft:#b4b4b4;--line:#4a4a4a;
--ground:#161616}
.sparsity-report p{margin:0 0 8px;color:var(--ink)}
.sparsity-report .verdict{font-size:18px;line-height:1.3}
.sparsity-report .soft,.sparsity-report caption{color:var(--soft);font-size:12px;text-align:left}
.sparsity-report .parts{display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start}
.sparsity-report figure{margin:0;width:min-content;min-width:210px;max-width:100%}
.sparsity-report svg{display:block;max-width:100%;height:auto}
.sparsity-report svg text{fill:var(--soft);font:10px system-ui,sans-serif}
.sparsity-report .wide{flex:1 1 320px;min-width:0;max-width:100%;overflow-x:auto;
background:linear-gradient(90deg,var(--ground) 40%,transparent) 0/48px 100% no-repeat local,
linear-gradient(270deg,var(--ground) 40%,transparent) 100%/48px 100% no-repeat local,
linear-gradient(90deg,var(--soft),transparent) 0/10px 100% no-repeat scroll,
linear-gradient(270deg,var(--soft),transparent) 100%/10px 100% no-repeat scroll}
.sparsity-report table{border-collapse:collapse;font-size:13px;margin:0;color:var(--ink);
background:none}
.sparsity-report tr{background:none}
.sparsity-report th,.sparsity-report td{padding:3px 8px;border:0;
border-bottom:1px solid var(--line);text-align:right;background:none;color:var(--ink);
font-weight:400;overflow-wrap:normal}
.sparsity-report td{white-space:nowrap}
.sparsity-report thead th{font-weight:600;vertical-align:bottom}
.sparsity-report tr>:first-child{text-align:left;min-width:7.5em;max-width:14em;
overflow-wrap:anywhere}
"""


class Shares(NamedTuple):
    """Shares of 1 in a map: block × projection, one of them per cell."""

    title: str
    blocks: Sequence[str]
    projections: Sequence[str]
    cells: Sequence[tuple[str, str, float]]


class Seen(NamedTuple):
    """What a cell shows of a value: lines, the first of them in large type, maps and a table."""

    lines: Sequence[str]
    maps: Sequence[Shares]
    table: Table | None


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
    seen = _seen(value)
    return {"text/html": _html(seen), "text/latex": _latex(seen), "text/plain": repr(value)}


@singledispatch
def _seen(value: Any) -> Seen:
    raise TypeError(type(value).__name__)


@_seen.register
def _(study: Comparison) -> Seen:
    variant = study.facts.headline
    names = repr(study).split("\n")[0]
    ratios = [study.facts.ratio(name, "stored_bytes") for name in study.totals["variant"]]
    frame = study.totals.assign(ratio=pd.Series(ratios, dtype="float64"))
    keys = ("variant", "sparsity_prunable", "sparsity_model", "stored_bytes", "ratio")
    columns = [*map(_column, (*keys, "flops_per_token"))]
    base = short_name(study.facts.baseline)
    columns[4] = columns[4]._replace(head=say("column.ratio_to_variant", variant=base))
    table = _table(columns, frame)
    return Seen([verdict(study), names], _maps([(study, variant)]), table)


@_seen.register
def _(weights: Weights) -> Seen:
    rows: dict[str, dict[str, Any]] = {}
    total = sum(p.total for p in weights.stored)
    for module in weights.modules:
        row = rows.setdefault(
            module.group, {"group": module.group, "modules": 0, "total": 0, "prunable_total": 0}
        )
        row["modules"] += 1
        row["total"] += sum(p.total for p in module.parameters if p.tied_to is None)
        row["prunable_total"] += sum(p.total for p in module.parameters if p.prunable)
    values = [{**row, "param_frac": ratio(row["total"], total)} for row in rows.values()]
    keys = ("group", "modules", "total", "prunable_total", "param_frac")
    return Seen(repr(weights).split("\n"), [], _table([*map(_column, keys)], values))


@_seen.register
def _(pruning: Pruning) -> Seen:
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
        title = say("cell.map_share_pruned")
        cells = [(*cell, part) for cell, part in zip(grid.cells, shares, strict=True)]
        maps.append(Shares(title, grid.blocks, grid.projections, cells))
    groups = frame.groupby("group", sort=False)[["weight_total", "pruned"]].sum().reset_index()
    groups["share"] = groups["pruned"] / groups["weight_total"].where(groups["weight_total"] > 0)
    columns = [*map(_column, ("group", "weight_total", "pruned"))]
    columns.append(Column("share", say("column.pruned_share"), SHARE))
    return Seen(repr(pruning).split("\n"), maps, _table(columns, groups))


@_seen.register
def _(variant: Variant) -> Seen:
    inner = _seen(variant.weights if variant.pruning is None else variant.pruning)
    return inner._replace(lines=repr(variant).split("\n"))


@_seen.register
def _(difference: Difference) -> Seen:
    said = difference.sentences()
    lines = [repr(difference).split("\n")[0], *said[:_SENTENCES]]
    if len(said) > _SENTENCES:
        lines.append(say("format.count_more", count=len(said) - _SENTENCES))
    sides = (difference.before, difference.after)
    frames = {
        (side, variant): row
        for side, study in zip(("before", "after"), sides, strict=True)
        for variant, row in study.totals.set_index("variant").to_dict("index").items()
    }
    values = [
        {
            "variant": variant,
            **{
                f"{key}_{side}": frames.get((side, variant), {}).get(key)
                for key in ("sparsity_prunable", "stored_bytes")
                for side in ("before", "after")
            },
        }
        for variant in dict.fromkeys(variant for _, variant in frames)
    ]
    columns = [_column("variant")] + [
        Column(f"{key}_{side}", text, kind_of(key), head(key))
        for key in ("sparsity_prunable", "stored_bytes")
        for side, text in (("before", say("column.before")), ("after", say("column.after")))
    ]
    return Seen(lines, _maps([(study, study.facts.headline) for study in sides]),
                _table(columns, pd.DataFrame(values)))  # fmt: skip


@_seen.register
def _(pair: Pair) -> Seen:
    first, *others = pair.sentences()
    lines = [first, repr(pair).split("\n")[0], *others[:_SENTENCES]]
    maps = []
    if (shown := difference_map(pair)) is not None:
        titles = {
            "zeros_before": say("cell.map_base_zero_before"),
            "zero_or_gone": say("cell.map_base_zero_or_gone_after"),
        }
        cells, grid = shown.cells, shown.grid
        for column, title in titles.items():
            shares = zip(
                cells["block"], cells["projection"], cells[column] / cells["weight_before"],
                strict=True,
            )  # fmt: skip
            maps.append(Shares(title, grid.blocks, grid.projections, [*shares]))
    return Seen(lines, maps, pair_totals(pair))


def _maps(shown: Iterable[tuple[Comparison, str]]) -> list[Shares]:
    maps = []
    for study, variant in shown:
        grid, cells = study.facts.grid(variant), study.facts.cells(variant)
        if cells.empty:
            continue
        title = say("cell.map_zero_share", variant=short_name(variant))
        rows = cells[["block", "projection", "sparsity"]].itertuples(index=False, name=None)
        maps.append(Shares(title, grid.blocks, grid.projections, [*rows]))
    return maps


def _column(key: str) -> Column:
    return Column(key, head(key), kind_of(key))


def _table(columns: Sequence[Column], values: Any) -> Table:
    """Return a table of the first rows; its caption says how many more there are."""
    frame = pd.DataFrame(values)
    more = len(frame) - _ROWS
    caption = say("format.count_more", count=more) if more > 0 else ""
    return table_of("cell", caption, columns, frame.head(_ROWS))


def _html(seen: Seen) -> str:
    first, *others = seen.lines
    lines = [f'<p class="verdict">{escape(first)}</p>']
    lines += [f'<p class="soft">{escape(line)}</p>' for line in others]
    domain = _domain(seen.maps)
    parts = [_figure(shares, domain) for shares in seen.maps]
    if seen.table is not None and seen.table.rows:
        parts.append(f'<div class="wide">{to_html(seen.table)}</div>')
    style = _STYLE.replace("\n", "")
    whole = f'<div class="parts">{"".join(parts)}</div>' if parts else ""
    return f'<style>{style}</style><div class="sparsity-report">{"".join(lines)}{whole}</div>'


def _domain(maps: Sequence[Shares]) -> tuple[float, float]:
    """Return one scale for all maps."""
    shares = [share for each in maps for *_, share in each.cells]
    return shares_domain(min(shares), max(shares)) if shares else (0.0, 1.0)


def _figure(shares: Shares, domain: tuple[float, float]) -> str:
    """Draw a map: cells of one colour are one path of strokes as high as a row."""
    columns, rows = len(shares.blocks), len(shares.projections)
    high = max(3, min(_HIGH, _MAPPED // rows))
    wide = max(2, min(_WIDE, _WIDTH // columns))
    named = [clip(name, 18) for name in shares.projections] if high >= _NAMED else []
    left = 6 + 6 * max(map(len, named), default=0)
    x = {block: place for place, block in enumerate(shares.blocks)}
    y = {projection: place for place, projection in enumerate(shares.projections)}
    strokes: dict[int, list[str]] = {}
    low, top = domain
    for block, projection, share in shares.cells:
        step = round((_COLOURS - 1) * (share - low) / (top - low))
        strokes.setdefault(step, []).append(f"M{x[block]} {y[projection]}h1")
    paths = "".join(
        f'<path stroke="{_colour(step)}" d="{"".join(lines)}"/>'
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
    scale = "".join(f'<path stroke="{_colour(step)}" d="M{step} 0h1"/>' for step in range(_COLOURS))
    ends = [escape(percent(end, 0)) for end in domain]
    key = (
        f'<g stroke-width="8" transform="translate({left + 34} {bottom + 12}) scale(3 1)" '
        f'shape-rendering="crispEdges">{scale}</g>'
        f'<text x="{left}" y="{bottom + 16}">{ends[0]}</text>'
        f'<text x="{left + 38 + 3 * _COLOURS}" y="{bottom + 16}">{ends[1]}</text>'
    )
    width, height = max(width, left + 150), bottom + 20
    title = escape(shares.title)
    return (
        f'<figure><p class="soft">{title}</p>'
        f'<svg role="img" aria-label="{title}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><g transform="{middle}" stroke-width="1" '
        f'shape-rendering="crispEdges">{paths}</g>{"".join(texts)}{key}</svg></figure>'
    )


def _colour(step: int) -> str:
    """Return a colour of viridis between its anchors."""
    place = step / (_COLOURS - 1) * (len(_VIRIDIS) - 1)
    first = min(int(place), len(_VIRIDIS) - 2)
    sides = (bytes.fromhex(_VIRIDIS[at]) for at in (first, first + 1))
    mixed = (round(a + (b - a) * (place - first)) for a, b in zip(*sides, strict=True))
    return "#" + bytes(mixed).hex()


def _latex(seen: Seen) -> str:
    """Write lines and table for LaTeX with the package booktabs."""
    lines = [f"{tex(line, 200)}\\\\" for line in seen.lines]
    if (table := seen.table) is not None and table.rows:
        lines += [f"\\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}", "\\toprule"]
        heads = (f"{column.over} {column.head}".strip() for column in table.columns)
        rows = [list(heads), *([cell.text for cell in row.cells] for row in table.rows)]
        written = [f"{' & '.join(map(tex, row))} \\\\" for row in rows]
        lines += [written[0], "\\midrule", *written[1:], "\\bottomrule", "\\end{tabular}"]
    return "\n".join(lines)
