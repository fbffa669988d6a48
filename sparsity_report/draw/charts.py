"""Charts of a study: bars per group, bytes against sparsity, and the picture of a README."""

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.export import png
from sparsity_report.draw.heat_maps import unfitted_map
from sparsity_report.draw.marks import Rows
from sparsity_report.draw.theme import (
    BLACK,
    BLUE,
    DASHED,
    DOTTED,
    FILED,
    GREEN,
    NARROW,
    SOLID,
    TEXT_WIDTH,
    VERMILLION,
)
from sparsity_report.errors import SparsityReportError
from sparsity_report.files.atomic import write_file
from sparsity_report.study.comparison import Comparison
from sparsity_report.untrusted.display_text import clip, distinct_names
from sparsity_report.words.display_names import group_name, layout_name
from sparsity_report.words.sentences import join, say

# Most dots of a strip.
_DOTS = 4_000
_LINES: dict[str, tuple[str, list[float]]] = {
    "dense": (BLUE, SOLID),
    "csr_int32": (BLACK, SOLID),
    "csr_int64": (BLACK, DASHED),
    "bitmask": (GREEN, DOTTED),
}
_MOST_LEVELS = 8


def group_bars(
    study: Comparison,
    metric: str,
    width: float = TEXT_WIDTH,
    variant: str | None = None,
    *,
    once: bool = False,
) -> alt.LayerChart:
    """Return bars per group with the variants side by side; unknown values show as "–".

    Parameters
    ----------
    study : Comparison
    metric : {"sparsity", "param_frac", "flops_per_token"}
    width : float
        In points, everything included.
    variant : str, optional
        The only variant to show.
    once : bool
        Variants with the same bars in every group share them.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> group_bars(study, "sparsity").to_dict()["width"]
    454
    """
    meant, table, inks = FILED[metric], study.pivot(metric), theme.palette(study)
    shown = dict(zip(inks, distinct_names(list(inks)), strict=True))
    variants = list(inks) if variant is None else [variant]
    if once:
        alike = _alike(table[variants])
        variants = list(alike)
        shown |= {name: clip(", ".join(shown[n] for n in alike[name])) for name in variants}
    rows = [
        _bar(group_name(str(group)), shown[name], table.loc[group, name], meant.kind)
        for group in table.index
        for name in variants
    ]
    alone = len(variants) == 1 and not once
    prefix = say("chart.variant_of_prefix", variant=shown[variants[0]]) if alone else ""
    note = f"{prefix}{theme.model_names(study)} · {say(meant.note)}"
    shape = replace(
        _bars_shape(rows, say(meant.axis), meant.kind, width=width),
        inks=tuple((shown[name], *inks[name]) for name in variants),
        named=max(140, int(width / 2)),
    )
    return _bars(rows, shape, say(meant.title), note)


def csr_bytes_curve(study: Comparison, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return bytes ÷ dense bytes of each layout against sparsity, with the levels of the study.

    `width` is in points, everything included.

    Returns
    -------
    altair.LayerChart or None
        None if nothing is prunable.
    """
    chart = _curve(study, width, height=220)
    if chart is None:
        return None
    # The label of a level near the right end is outside the plot.
    shares = [mark["sparsity"] for mark in _levels(study, 1, width)]
    outside = len(shares) > 1 and max(shares) > 0.8
    return theme.fitted(chart, right=(50 if width >= NARROW else 20) if outside else 0)


def hero(study: Comparison) -> alt.LayerChart | alt.VConcatChart:
    """Return a map of the zeros, the spread of layers and the bytes of CSR as one picture."""
    prunings = study.facts.prunings
    if not prunings:
        return group_bars(study, "param_frac")
    top = unfitted_map(study, prunings[0], theme.HERO_MAP)
    if top is None:
        return group_bars(study, "sparsity")
    height = max(theme.HERO_HEIGHT, 12 * len(study.facts.grid(prunings[0]).projections))
    strip = _strip(study, prunings[0], theme.HERO_STRIP, height)
    curve = _curve(study, theme.HERO_CURVE, height)
    assert curve is not None
    apart: Any = {"color": "independent", "strokeDash": "independent"}
    below = alt.hconcat(strip, curve, spacing=44).resolve_scale(**apart)
    chart = alt.vconcat(top, below, spacing=26).resolve_scale(**apart)
    alt_text = " ".join(part.description for part in (top, strip, curve))
    chart = chart.properties(description=alt_text, background="white")
    hero: alt.VConcatChart = chart.configure(**theme.config())
    return hero


def bar_plot(
    frame: pd.DataFrame,
    x: str,
    y: str,
    title: str,
    file_name: str | os.PathLike[str] | None = None,
    directory: str | os.PathLike[str] | None = None,
    *,
    y_min: float | None = None,
) -> alt.LayerChart:
    """Draw one bar per row of a frame, and write it as PNG if a file name is given.

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
        File to write, ending in ``.png``.
    directory : path-like, optional
        Folder of the file; by default the current one.
    y_min : float, optional
        Start of the bars and of their axis; by default 0.

    Returns
    -------
    altair.LayerChart
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
    'Bar chart, share of zeros in the group: norm 0.0 %; MLP 30.0 %.'
    """
    for column in (x, y):
        if column not in frame.columns:
            known = ", ".join(str(name) for name in frame.columns)
            raise SparsityReportError(f"bar_plot: no column {column!r}; name one of {known}")
    if not pd.api.types.is_numeric_dtype(frame[y]):
        raise SparsityReportError(
            f"bar_plot: column {y!r} does not hold numbers; name a numeric column"
        )
    names = [group_name(str(name)) for name in frame[x]]
    if len(set(names)) < len(names):
        raise SparsityReportError(
            f"bar_plot: a name occurs twice in column {x!r}; give the rows of one variant"
        )
    metric = FILED.get(y)
    kind = metric.kind if metric else "number"
    shown = distinct_names(names, 80)
    rows = [_bar(name, "", value, kind) for name, value in zip(shown, frame[y], strict=True)]
    # Vega-Lite makes an expression of the title of a field, where a backslash escapes.
    axis = say(metric.axis) if metric else clip(y).replace("\\", "∖")
    chart = _bars(rows, _bars_shape(rows, axis, kind, start=y_min), title)
    if file_name is not None:
        target = Path(directory or ".") / file_name
        if target.suffix.lower() != ".png":
            raise SparsityReportError(
                f"bar_plot: {target} is not a .png file; name one, or use .save() of the chart"
            )
        write_file(target, png(chart))
    return chart


def _alike(table: pd.DataFrame) -> dict[str, list[str]]:
    """Return the names of equal columns, by the first of them."""
    alike: dict[tuple[Any, ...], list[str]] = {}
    for name in table.columns:
        values = tuple(None if pd.isna(value) else value for value in table[name])
        alike.setdefault(values, []).append(str(name))
    return {names[0]: names for names in alike.values()}


def _bar(group: str, variant: str, value: Any, kind: str) -> dict[str, Any]:
    known = pd.notna(value) and math.isfinite(value)
    return {
        "group": group,
        "variant": variant,
        "value": float(value) if known else None,
        "label": theme.write(value, kind),
    }


def _bars_shape(
    rows: Rows, axis: str, kind: str, *, start: float | None = None, width: float = TEXT_WIDTH
) -> marks.Bars:
    values, base = [row["value"] or 0.0 for row in rows], start or 0.0
    # A shorter axis would make noise look like a finding.
    top = max([*values, base + (0.1 if kind == "share" else 1.0)])
    low = base if start is not None else min([*values, 0.0])
    # The labels beyond the bars need the same room at any width.
    room = 0.15 * TEXT_WIDTH / width
    return marks.Bars(
        groups=tuple(dict.fromkeys(row["group"] for row in rows)),
        width=width,
        domain=(low - (top - low) * room * (low < base), low + (top - low) * (1 + room)),
        axis=axis,
        kind=kind,
        base=base,
        tips=(*marks.tips(group="label.group", variant="label.variant"), ("label", axis)),
    )


def _bars(rows: Rows, shape: marks.Bars, heading: str, note: str = "") -> alt.LayerChart:
    texts = [" ".join(filter(None, (r["group"], r["variant"], r["label"]))) for r in rows]
    alt_text = say("chart.bar_chart_alt", axis=shape.axis, rows="; ".join(texts))
    chart = marks.bars(marks.inline(rows), shape)
    return theme.fitted(theme.titled(chart, heading, note, alt_text))


def _strip(study: Comparison, variant: str, width: int, height: int) -> alt.LayerChart:
    """Return a dot per layer at its share of zeros, a line per projection."""
    facts, grid = study.facts, study.facts.grid(variant)
    layers = facts.prunable(variant)
    layers = layers[layers["block"].notna()].assign(
        projection=[grid.cells[code].projection for code in grid.codes],
        label=[say("name.numbered_block", block=grid.cells[code].block) for code in grid.codes],
    )
    mean = facts.total(variant, "sparsity_prunable") or 0.0
    top = min(1.0, max(0.2, math.ceil(layers["share"].max() * 10) / 10))
    far = layers.loc[layers.groupby("projection")["share"].idxmax()].nlargest(2, "share")
    far = far[far["share"] > max(1.5 * mean, mean + 0.1)]
    x = marks.share_axis("share", say("label.sparsity"), [0, top], grid=True)
    y = marks.names_axis("projection", grid.projections, grid=True)
    shown = ["projection", "share", "label"]
    dots = alt.Chart(marks.inline(layers[shown].head(_DOTS))).mark_circle(
        size=26, color=BLUE, opacity=0.5
    )
    rule = alt.Chart(marks.inline([{"share": mean}])).mark_rule(color=VERMILLION, strokeDash=[4, 3])
    text = alt.Chart(marks.inline(far[shown])).mark_text(align="right", dx=4, dy=-8, fontSize=8.5)
    layered = [rule.encode(x=x), dots.encode(x=x, y=y), text.encode(x=x, y=y, text="label:N")]
    return theme.titled(
        alt.LayerChart(layer=layered, width=width, height=height),
        say("chart.layer_spread_title"),
        say("chart.layer_strip_note", mean=mean),
        say("chart.layer_strip_alt", mean=mean),
    )


def _curve(study: Comparison, width: float, height: float) -> alt.LayerChart | None:
    facts, frame = study.facts, study.facts.curve()
    if frame.empty:
        return None
    names = {layout: _line_name(layout) for layout in dict.fromkeys(frame["layout"])}
    top, wide = float(frame["ratio"].max()), width > 300
    levels, evens = _levels(study, top, width), _break_evens(study, width)
    shape = marks.Curve(
        lines=tuple(marks.Line(name, *_LINES[layout]) for layout, name in names.items()),
        width=width,
        height=height,
        top=top * (1.06 + 0.075 * len(levels)),
        x_title=say("chart.x_prunable_sparsity"),
        y_title=say("label.bytes_ratio"),
        ticks=tuple(range(math.ceil(top) + 1)),
        flip=len(levels) == 1,
        below=not wide,
        columns=4 if width > 430 else 2 if width >= NARROW else 1,
    )
    rows = frame.assign(line=frame["layout"].map(names), value=frame["ratio"])
    chart = marks.curve(
        marks.inline(rows[["sparsity", "line", "value"]]),
        shape,
        evens=marks.inline(evens),
        levels=marks.inline(levels),
    )
    unpacked = facts.unpacked_dtypes(facts.baseline)
    dtype = join(
        [say("name.unpacked_dtype", dtype=d) if d in unpacked else d for d in facts.dtypes]
    )
    texts = [
        say("chart.csr_bytes_curve_alt", dtype=dtype),
        *(say("chart.layout_break_even_alt", layout=e["line"], share=e["label"]) for e in evens),
        *(say("chart.study_level_alt", level=mark["label"]) for mark in levels),
    ]
    note = say("chart.csr_bytes_curve_note", dtype=dtype)
    return theme.titled(chart, say("chart.csr_bytes_curve_title"), note, " ".join(texts))


def _line_name(layout: str) -> str:
    return say("chart.dense_and_masked_line") if layout == "dense" else layout_name(layout)


def _break_evens(study: Comparison, width: float) -> Rows:
    """Return the points where the straight lines of CSR meet dense."""
    facts = study.facts
    return [
        {
            "sparsity": share,
            "value": 1.0,
            "label": theme.write(share, "share"),
            "under": layout == "csr_int32" and width < 300,
            "line": _line_name(layout),
        }
        for layout in ("csr_int32", "csr_int64")
        if (share := facts.break_even(facts.baseline, layout)) is not None and share < 1
    ]


def _levels(study: Comparison, top: float, width: float) -> Rows:
    """Return the rule and the label of each level; labels step down, so that no rule cuts one."""
    ratios: dict[float, tuple[float, float]] = {}
    for variant, share in sorted(study.facts.marks(), key=lambda mark: mark[1]):
        ratio = study.facts.storage(variant)["ratio"].get("csr_int32")
        if share > 0 and pd.notna(ratio):
            # Levels with the same label share a rule.
            ratios.setdefault(round(share, 3), (share, float(ratio)))
    shown = list(ratios.values())[:_MOST_LEVELS]
    key = "format.level_ratio"
    if len(shown) == 1 and width >= NARROW:
        key = "chart.level_csr_ratio"
    elif len(shown) > 1 and width < NARROW:
        key = "format.share"
    return [
        {
            "sparsity": share,
            "value": ratio,
            "label": say(key, share=share, ratio=ratio),
            "top": top * (1.05 + 0.075 * (len(shown) - 1 - place)),
        }
        for place, (share, ratio) in enumerate(shown)
    ]
