"""Bars of a frame, bytes against sparsity, and the fate of a base by block."""

import math
import os
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.theme import BLUE, INK, LABEL, TEXT_WIDTH, VERMILLION
from sparsity_report.draw.vega_lite import Rows, VegaLite, layer, layered, nominal, quantity, titled
from sparsity_report.errors import SparsityReportError
from sparsity_report.findings.checkpoint_findings import block_names, blocks_axis, both
from sparsity_report.study.derived.removed_strips import block_shares
from sparsity_report.study.derived.zero_losses import fate_shares
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.layers import records
from sparsity_report.study.schema import COLUMNS
from sparsity_report.study.storage_layouts import layout_curve
from sparsity_report.study.zero_history import first_revival
from sparsity_report.untrusted.display_text import clip, distinct_names
from sparsity_report.words import number_format
from sparsity_report.words.display_names import group_name, head, layout_name
from sparsity_report.words.sentences import join, say

_LINES = {
    "dense": (theme.BLUE, theme.SOLID),
    "csr_int32": (theme.BLACK, theme.DASHED),
    "bitmask": (theme.BLACK, theme.DASH_DOT),
}


def csr_bytes_curve(study: StudyFigures, width: float = TEXT_WIDTH) -> VegaLite | None:
    """Return bytes ÷ dense bytes of each layout against sparsity, with the levels of the study.

    `width` is in points, everything included.

    Returns
    -------
    VegaLite or None
        None if nothing is prunable, or if a file packs the weights: nobody stores them as dense.
    """
    facts = study.facts
    frame = layout_curve(facts.layers(facts.baseline))
    if frame.empty or facts.packings(facts.baseline):
        return None
    names = {layout: layout_name(layout) for layout in _LINES if layout in {*frame["layout"]}}
    names["dense"] = say("chart.dense_and_masked_line")
    frame = frame[frame["layout"].isin(names)]
    levels, evens = _levels(study), _break_evens(study)
    lines = [marks.Line(name, *_LINES[layout]) for layout, name in names.items()]
    top = 1.06 * float(frame["ratio"].max())
    ticks = {"labelExpr": theme.tick("ratio"), "values": [*range(math.floor(top) + 1)]}
    axes = (
        marks.share_axis("sparsity", say("chart.x.sparsity"), (0.0, 1.0)),
        marks.height_axis(say("label.bytes_ratio"), top, ticks),
    )
    rows = frame.assign(line=frame["layout"].map(names), value=frame["ratio"])
    points = records(rows[["sparsity", "line", "value"]])
    chart = marks.curve(points, lines, width, axes, rings=evens, dots=levels)
    dtype = join(facts.dtypes())
    texts = [
        say("chart.csr_bytes_curve_alt", dtype=dtype),
        *(say("chart.layout_break_even_alt", layout=e["line"], share=e["label"]) for e in evens),
        *(say("chart.study_level_alt", share=p["sparsity"], ratio=p["label"]) for p in levels),
    ]
    title, note = say("chart.csr_bytes_curve_title"), say("chart.csr_bytes_curve_note", dtype=dtype)
    return titled(chart, title, note, " ".join(texts))


# Share of the pruned weights from which new zeros have a line.
_DRAWN = 0.0005


def timeline_chart(study: StudyFigures, width: float = TEXT_WIDTH) -> VegaLite | None:
    """Return zeros that were kept, and new ones, against training steps by group.

    `width` is in points, everything included.

    Returns
    -------
    VegaLite or None
        None without a history of pruned weights.
    """
    history = study.facts.table("history")
    if (frame := fate_shares(history, "step", "group")).empty:
        return None
    kept = frame.assign(value=frame["kept_share"], line=frame["group"].map(group_name))
    names = [say("chart.timeline_new", group=name) for name in kept["line"]]
    new = frame.assign(value=frame["new_share"], line=names)
    new = new[new.groupby("group")["value"].transform("max") >= _DRAWN]
    drawn = pd.concat([kept, new]).astype({"value": "float64"})
    rows = records(drawn[["step", "value", "line"]])
    looks = zip(drawn["line"].unique(), cycle(theme.STYLES.values()))
    lines = [marks.Line(name, *look) for name, look in looks]
    steps = [int(end(history["step"])) for end in (min, max)]
    ticks = {"labelExpr": theme.tick("share"), "tickCount": 5}
    axes = (
        marks.share_axis("step", head("step"), steps, "number", tickMinStep=1),
        marks.height_axis(say("chart.timeline_y"), 1.04 * max(1.0, drawn["value"].max()), ticks),
    )
    revival = first_revival(history)
    lost = [row for row in rows if revival and row["step"] == revival.step and row["value"] < 1]
    rings = [{**row, "label": say("chart.first_loss", **row)} for row in lost[:1]]
    chart = marks.curve(rows, lines, width, axes, rings=rings, dots=[])
    ends = records(drawn[drawn["step"] == steps[1]])
    texts = "; ".join(f"{row['line']} {theme.write(row['value'], 'share')}" for row in ends)
    alt_text = say("chart.timeline_alt", first=steps[0], last=steps[1], rows=texts)
    return titled(chart, say("chart.timeline_title"), say("chart.timeline_note"), alt_text)


def bar_plot(
    frame: pd.DataFrame,
    x: str,
    y: str,
    title: str,
    file_name: str | os.PathLike[str] | None = None,
    directory: str | os.PathLike[str] | None = None,
    *,
    y_min: float | None = None,
    y_max: float | None = None,
) -> VegaLite:
    """Draw one bar per row of a frame, and write it if a file name is given.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row per bar.
    x : str
        Column with the names of the bars; each occurs once.
    y : str
        Column with the lengths of the bars.
    title : str
        Title of the chart.
    file_name : path-like, optional
        File to write as PNG, SVG, PDF or JSON, chosen by the end of its name.
    directory : path-like, optional
        Folder of the file; by default the current one.
    y_min : float, optional
        Start of the bars and of their axis; by default 0.
    y_max : float, optional
        Smallest end of the axis, which gives several charts one scale.

    Returns
    -------
    VegaLite
        The chart.

    Raises
    ------
    SparsityReportError
        If a column is missing or not numeric, a name occurs twice, or the file cannot be written.

    Examples
    --------
    >>> groups = pd.DataFrame({"group": ["norm", "mlp_linear"], "sparsity": [0.0, 0.3]})
    >>> chart = bar_plot(groups, "group", "sparsity", "Zeros per group")
    >>> chart.to_dict()["description"]
    'Bar chart, Sparsity: norm 0.0 %; MLP 30.0 %.'
    """
    for name in (x, y):
        if name not in frame.columns:
            known = ", ".join(map(str, frame.columns))
            raise SparsityReportError(f"bar_plot: no column {name!r}; name one of {known}")
    if not pd.api.types.is_numeric_dtype(frame[y]):
        raise SparsityReportError(
            f"bar_plot: column {y!r} does not hold numbers; name a numeric column"
        )
    names = [group_name(str(name)) for name in frame[x]]
    if len(set(names)) < len(names):
        raise SparsityReportError(
            f"bar_plot: a name occurs twice in column {x!r}; give the rows of one variant"
        )
    column = COLUMNS.get(y)
    kind = column.format.axis if column else "number"
    labels = distinct_names(names, 80)
    rows = [
        {
            "group": name,
            "value": float(value) if pd.notna(value) and math.isfinite(value) else None,
            "label": theme.write(value, kind),
        }
        for name, value in zip(labels, frame[y], strict=True)
    ]
    # Vega-Lite makes an expression of the title of a field, where a backslash escapes.
    axis = column.label if column else clip(y).replace("\\", "∖")
    texts = "; ".join(f"{row['group']} {row['label']}" for row in rows)
    alt_text = say("chart.bar_chart_alt", axis=axis, rows=texts)
    least = 0.1 if kind == "share" else 1.0
    shape = marks.Bars(
        width=TEXT_WIDTH,
        axis=axis,
        kind=kind,
        least=least if y_max is None else float(y_max) - (y_min or 0.0),
        start=y_min,
        tips=(*marks.tips(group="label.group"), ("label", axis)),
    )
    chart = titled(marks.bars(rows, shape), title, "", alt_text)
    if file_name is not None:
        chart.save(Path(directory or ".") / file_name)
    return chart


def _break_evens(study: StudyFigures) -> Rows:
    """Return the point where the straight line of CSR meets dense; empty without one."""
    share = study.facts.break_even(study.facts.baseline, "csr_int32")
    texts = {"label": theme.write(share, "share"), "line": layout_name("csr_int32")}
    is_drawn = share is not None and share < 1
    return [{"sparsity": share, "value": 1.0, **texts}] if is_drawn else []


def _levels(study: StudyFigures) -> Rows:
    """Return the points of the study on the line of CSR, those of one whole percent once."""
    points = {}
    for variant, share in study.facts.shares(study.facts.prunings).items():
        ratio = study.facts.storage(variant)["ratio"].get("csr_int32")
        if share > 0 and pd.notna(ratio) and not study.facts.packings(variant):
            label = number_format.multiple(ratio, " ")
            texts = {"tip": theme.write(share, "share"), "label": label}
            points[f"{share:.2f}"] = {"sparsity": share, "value": float(ratio), **texts}
    return sorted(points.values(), key=lambda row: row["sparsity"])


# Height of columns by block.
_COLUMNS = 150


def blocks_chart(study: StudyFigures, width: float = TEXT_WIDTH) -> VegaLite | None:
    """Return columns of the share of zeros revived, weights removed or new zeros, by block.

    `width` is in points, everything included.

    Returns
    -------
    VegaLite or None
        None if none of the shares varies.
    """
    if (shares := block_shares(study.facts.table("matches"))) is None:
        return None
    names = block_names(shares)
    rows = [
        {"row": name, "value": share, "label": theme.write(share, "share")}
        for name, share in zip(names, shares.rows["share"], strict=True)
        if pd.notna(share)
    ]
    has_blocks = shares.rows["block"].notna().any()
    title = blocks_axis(shares)
    x_title = say("chart.x_transformer_block") if has_blocks else head("group")
    scale = {"domain": [0, max(row["value"] for row in rows)], "nice": True}
    axis = {"tickCount": 4, "labelExpr": theme.tick("share")}
    y = quantity("value", title=title, scale=scale, axis=axis)
    places = {"x": _columns_axis(names, x_title, width), "y": y}
    tips = (("row", x_title), ("label", title))
    color = BLUE if shares.figure == "new" else VERMILLION
    layers = [layer(rows, "bar", {**places, **marks.tooltips(tips)}, color=color)]
    if len(names) * 3.4 * LABEL <= width:
        places["text"], some = nominal("label"), {"filter": "datum.value > 0"}
        layers.append(layer(rows, "text", places, some, dy=-6, fontSize=LABEL, color=INK))
    chart = layered(layers, width, _COLUMNS)
    texts = "; ".join(f"{row['row']}: {row['label']}" for row in rows)
    alt_text = say("chart.blocks_alt", title=title, rows=texts)
    return titled(chart, say("chart.blocks_title", title=title), both(study), alt_text)


def _columns_axis(names: Sequence[str], title: str, width: float) -> dict[str, Any]:
    """Return a horizontal axis of columns; names that have no room are left out."""
    room = 0.62 * LABEL * max(map(len, names)) + 6
    values = [*names[:: max(1, math.ceil(len(names) * room / width))]]
    axis = {"values": values, "labelAngle": 0, "labelOverlap": False, **marks.BARE}
    scale = {"domain": [*names], "paddingInner": 0.2, "paddingOuter": 0}
    return nominal("row", title=title, scale=scale, axis=axis)
