"""Chart of the page's slider: global magnitude pruning at every level of the study.

The data hold the counts of every level. The page only changes the parameter ``level``, the index
of a level in :attr:`LevelChart.levels`.
"""

import math
from typing import Any, NamedTuple

import altair as alt
import numpy as np

from sparsity_report.draw import marks, theme
from sparsity_report.draw.marks import Rows
from sparsity_report.draw.theme import BLACK, BLUE, DASHED, GREEN, INK, MUTED, SOLID
from sparsity_report.errors import printable
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.heatmap_grid import Grid
from sparsity_report.study.levels.levels import LevelParts
from sparsity_report.untrusted.display_text import distinct_names, short_name
from sparsity_report.words.display_names import group_name
from sparsity_report.words.sentences import say

# Most cells of a map whose data name their modules.
_NAMED = 2_000
_ZEROS = "datum.zeros[level]"
_SHARE = f"{_ZEROS} / datum.total"
COST_LINES = {
    "bytes_ratio": marks.Line("chart.csr_bytes_line", BLACK, SOLID),
    "flops_ratio": marks.Line("chart.csr_flops_line", GREEN, DASHED),
    "dense": marks.Line("layout.dense", BLUE, SOLID),
}
_SCALES = ("x", "y", "color", "fill", "stroke", "strokeDash")
_APART: Any = {"scale": dict.fromkeys(_SCALES, "independent")}


class LevelChart(NamedTuple):
    """A chart with the parameter ``level``, which an ``<input type="range">`` of the page changes.

    Attributes
    ----------
    spec : dict
        Vega-Lite with named data: ``cells``, ``groups``, ``lines`` and ``even``. The datum of a
        cell has ``said``, a sentence, and ``module``, null for several layers.
    levels : list of float
    start : int
        Index of the first level shown.
    marks : list of (str, float)
        Names and sparsities of the study's prunings.
    break_even : float or None
        Sparsity from which CSR is smaller than dense.
    """

    spec: dict[str, Any]
    levels: list[float]
    start: int
    marks: list[tuple[str, float]]
    break_even: float | None


def level_chart(study: Comparison) -> LevelChart | None:
    """Return the study's levels as one chart.

    Returns
    -------
    LevelChart or None
        None if the study has no levels, or no weights at them.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> chart = level_chart(sr.compare(sr.dense(sr.load())))
    >>> len(chart.levels), chart.start
    (100, 50)
    """
    facts = study.facts
    kept = study.by_level
    if kept is None or not kept.model["sparsity_prunable"].notna().any():
        return None
    table = kept.model
    levels = table["sparsity"].tolist()
    shown = facts.marks()
    first = shown[0][1] if shown else 0.5
    start = int(np.abs(np.array(levels) - first).argmin())
    lines, even = cost_rows(study), break_even_rows(study)
    data: dict[str, Rows] = {"lines": lines, "even": even}
    parts: list[alt.LayerChart | alt.HConcatChart] = []
    beside: list[alt.LayerChart] = []
    pointed = None
    if kept.grid.cells:
        pointed = alt.selection_point(
            name="pointed", on="pointerover", clear="pointerout", fields=["cell"], empty=False
        )
        data["cells"] = _cell_rows(kept.cells, kept.grid)
        parts.append(_map(kept.grid, pointed))
    if kept.groups is not None:
        data["groups"] = _group_rows(kept.groups)
        beside.append(_bars(data["groups"]))
    if lines:
        beside.append(_curve(lines, pointed))
    if beside:
        parts.append(alt.HConcatChart(hconcat=beside, spacing=36, resolve=_APART))
    # One call, because every method of a chart copies all parts.
    chart = alt.VConcatChart(
        vconcat=parts,
        spacing=22,
        description=say("chart.level_slider_alt"),
        background="white",
        resolve=_APART,
        params=[
            alt.VariableParameter(name="level", value=start),
            alt.VariableParameter(name="sparsities", value=table["sparsity_prunable"].tolist()),
        ],
        config=alt.Config(**theme.config()),
    )
    spec: dict[str, Any] = chart.to_dict(validate=False)
    del spec["$schema"]
    marked = [(short_name(name), share) for name, share in shown]
    share = even[0]["sparsity"] if even else None
    return LevelChart({**spec, "datasets": data}, levels, start, marked, share)


def _cell_rows(cells: LevelParts, grid: Grid) -> Rows:
    """Return one row per cell: its weights, and its zeros at every level."""
    members = grid.members
    alone = len(members) <= _NAMED and all(len(names) == 1 for names in members)
    columns = zip(grid.cells, members, cells.totals.tolist(), cells.zeros.tolist(), strict=True)
    return [
        {
            "cell": place,
            **cell._asdict(),
            "total": total,
            "zeros": zeros,
            "module": printable(names[0], 2000) if alone else None,
        }
        for place, (cell, names, total, zeros) in enumerate(columns)
    ]


def _map(grid: Grid, pointed: alt.Parameter) -> alt.LayerChart:
    sentence = theme.sentence(
        "chart.slider_cell_zeros",
        block="datum.block",
        projection="datum.projection",
        share=theme.percent_of("datum.value"),
        zeros=f"format({_ZEROS}, ',')",
        total="format(datum.total, ',')",
    )
    shape = marks.HeatMap(
        blocks=tuple(grid.blocks),
        projections=tuple(grid.projections),
        width=theme.SLIDER_MAP,
        row=min(18.0, 400 / len(grid.projections)),
        title=say("chart.zeros_label"),
        computed=(("value", _SHARE), ("said", sentence)),
    )
    when = {"param": pointed.name, "empty": False}
    outline = {
        "stroke": alt.StrokeValue("#ffffff", condition={**when, "value": INK}),
        "strokeWidth": alt.StrokeWidthValue(0.5, condition={**when, "value": 2}),
        "order": alt.OrderValue(0, condition={**when, "value": 1}),
    }
    return marks.heat_map(alt.NamedData("cells"), shape, params=[pointed], outline=outline)


def _group_rows(groups: LevelParts) -> Rows:
    names = distinct_names([group_name(str(name)) for name in groups.names])
    columns = zip(names, groups.totals.tolist(), groups.zeros.tolist(), strict=True)
    return [
        {"group": name, "variant": "", "total": total, "zeros": zeros}
        for name, total, zeros in columns
    ]


def _bars(rows: Rows) -> alt.LayerChart:
    shape = marks.Bars(
        groups=tuple(row["group"] for row in rows),
        width=theme.SLIDER_BARS,
        domain=(0.0, 1.2),
        axis=say("chart.x_group_zeros_share"),
        computed=(("value", _SHARE), ("label", theme.percent_of("datum.value"))),
        tips=marks.tips(group="label.group", label="chart.zeros_label"),
    )
    return marks.bars(alt.NamedData("groups"), shape)


def cost_rows(study: Comparison) -> Rows:
    """Return bytes and FLOPs of the model in CSR at every level, as ratios to dense.

    Returns
    -------
    list of dict
        ``place`` of the level, ``sparsity`` of the prunable weights, ``value``, ``line``; for the
        rule of a level ``label``, empty for FLOPs, and ``top``. Empty if nothing is known.
    """
    table = study.facts.levels
    if table is None:
        return []
    columns = {key: table[key].astype(float) for key in COST_LINES if key in table}
    top = 1.16 * max(1.0, *(column.max() for column in columns.values()))
    rows: Rows = []
    for key, column in columns.items():
        line, shares = say(COST_LINES[key].name), table["sparsity_prunable"]
        for place, (share, ratio) in enumerate(zip(shares, column, strict=True)):
            row = {"place": place, "sparsity": share, "value": ratio, "line": line, "top": top}
            label = say("format.level_ratio", share=share, ratio=ratio)
            row["label"] = label if key == "bytes_ratio" else ""
            rows += [] if math.isnan(ratio) else [row]
    dense = say(COST_LINES["dense"].name)
    return rows and rows + [{"sparsity": end, "value": 1.0, "line": dense} for end in (0.0, 1.0)]


def break_even_rows(study: Comparison) -> Rows:
    """Return the point where the curve of bytes meets dense, as a row or none."""
    share = study.facts.break_even(study.facts.baseline)
    known = study.facts.levels is not None and study.facts.levels["bytes_ratio"].notna().any()
    if share is None or not known:
        return []
    return [{"sparsity": share, "value": 1.0, "label": theme.write(share, "share")}]


def _curve(rows: Rows, pointed: alt.Parameter | None) -> alt.LayerChart:
    names = {row["line"] for row in rows}
    known = (line._replace(name=say(line.name)) for line in COST_LINES.values())
    shape = marks.Curve(
        lines=tuple(line for line in known if line.name in names),
        width=theme.SLIDER_CURVE,
        height=theme.SLIDER_HEIGHT,
        top=1.05 * max(row.get("top", 0.0) for row in rows),
        x_title=say("chart.x_prunable_sparsity"),
        y_title=say("chart.y_cost_over_dense"),
        flip=True,
        level_filter="datum.place == level",
        columns=3,
    )
    lines = alt.NamedData("lines")
    chart = marks.curve(lines, shape, evens=alt.NamedData("even"), levels=lines)
    if pointed is not None:
        cell = (
            alt.Chart(alt.NamedData("cells"))
            .transform_filter(pointed)
            .transform_flatten(["zeros"])
            .transform_window(place="row_number()")
            .transform_calculate(
                sparsity="sparsities[datum.place - 1]", value="datum.zeros / datum.total"
            )
            .mark_line(color=MUTED, strokeDash=[2, 2], strokeWidth=1.4)
        )
        chart.layer.append(cell.encode(x="sparsity:Q", y="value:Q"))
    return chart
