"""Bars of a frame, bytes against sparsity, sensitivity, and the names of measured charts."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.export import png
from sparsity_report.draw.marks import Rows
from sparsity_report.draw.policy_charts import quality_chart
from sparsity_report.draw.speed_charts import speed_chart
from sparsity_report.draw.theme import TEXT_WIDTH
from sparsity_report.errors import SparsityReportError
from sparsity_report.files.atomic import write_file
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.schema import COLUMNS
from sparsity_report.untrusted.display_text import clip, distinct_names
from sparsity_report.words.display_names import group_name, layout_name, part_name
from sparsity_report.words.number_format import figures
from sparsity_report.words.sentences import join, say

# Most parts of a model in a chart.
_PARTS = 40
_LINES = {
    "dense": (theme.BLUE, theme.SOLID),
    "csr_int32": (theme.BLACK, theme.DASHED),
    "csr_int64": (theme.BLACK, theme.DOTTED),
    "bitmask": (theme.BLACK, theme.DASH_DOT),
}


def csr_bytes_curve(study: StudyFigures, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return bytes ÷ dense bytes of each layout against sparsity, with the levels of the study.

    `width` is in points, everything included.

    Returns
    -------
    altair.LayerChart or None
        None if nothing is prunable.
    """
    facts, frame = study.facts, study.facts.curve()
    if frame.empty:
        return None
    names = {layout: _line_name(layout) for layout in dict.fromkeys(frame["layout"])}
    levels, evens = _levels(study), _break_evens(study)
    lines = [marks.Line(name, *_LINES[layout]) for layout, name in names.items()]
    size = width, 1.06 * float(frame["ratio"].max())
    rows = frame.assign(line=frame["layout"].map(names), value=frame["ratio"])
    data = marks.inline(rows[["sparsity", "line", "value"]])
    chart = marks.curve(data, lines, size, evens=marks.inline(evens), levels=marks.inline(levels))
    packed = facts.unpacked_dtypes(facts.baseline)
    dtype = join(
        [say("name.unpacked_dtype", dtype=d) if d in packed else d for d in facts.dtypes()]
    )
    texts = [
        say("chart.csr_bytes_curve_alt", dtype=dtype),
        *(say("chart.layout_break_even_alt", layout=e["line"], share=e["label"]) for e in evens),
        *(say("chart.study_level_alt", share=p["sparsity"], ratio=p["value"]) for p in levels),
    ]
    title, note = say("chart.csr_bytes_curve_title"), say("chart.csr_bytes_curve_note", dtype=dtype)
    return theme.titled(chart, title, note, " ".join(texts))


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
    shown = distinct_names(names, 80)
    rows = [_bar(name, value, kind) for name, value in zip(shown, frame[y], strict=True)]
    # Vega-Lite makes an expression of the title of a field, where a backslash escapes.
    axis = column.label if column else clip(y).replace("\\", "∖")
    texts = "; ".join(f"{row['group']} {row['label']}" for row in rows)
    alt_text = say("chart.bar_chart_alt", axis=axis, rows=texts)
    shape = marks.Bars(
        width=TEXT_WIDTH,
        axis=axis,
        kind=kind,
        least=0.1 if kind == "share" else 1.0,
        start=y_min,
        tips=(*marks.tips(group="label.group"), ("label", axis)),
    )
    chart = marks.bars(rows, shape)
    chart = theme.titled(chart, title, "", alt_text)
    if file_name is not None:
        target = Path(directory or ".") / file_name
        if target.suffix.lower() != ".png":
            raise SparsityReportError(
                f"bar_plot: {target} is not a .png file; name one, or use .save() of the chart"
            )
        write_file(target, png(chart))
    return chart


def _bar(group: str, value: Any, kind: str) -> dict[str, Any]:
    known = pd.notna(value) and math.isfinite(value)
    return {
        "group": group,
        "value": float(value) if known else None,
        "label": theme.write(value, kind),
    }


def _line_name(layout: str) -> str:
    return say("chart.dense_and_masked_line") if layout == "dense" else layout_name(layout)


def _break_evens(study: StudyFigures) -> Rows:
    """Return the points where the straight lines of CSR meet dense."""
    facts = study.facts
    return [
        {
            "sparsity": share,
            "value": 1.0,
            "label": theme.write(share, "share"),
            "line": _line_name(layout),
        }
        for layout in ("csr_int32", "csr_int64")
        if (share := facts.break_even(facts.baseline, layout)) is not None and share < 1
    ]


def _levels(study: StudyFigures) -> Rows:
    """Return the points of the study on the line of CSR, those with one label once."""
    points = {}
    for variant, share in study.facts.marks():
        ratio = study.facts.storage(variant)["ratio"].get("csr_int32")
        if share > 0 and pd.notna(ratio):
            label = theme.write(ratio, "ratio")
            points[label] = {"sparsity": share, "value": float(ratio), "label": label}
    return sorted(points.values(), key=lambda row: row["sparsity"])


def sensitivity_chart(study: StudyFigures, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return the cost of pruning each part alone, in nats per token.

    Returns
    -------
    altair.LayerChart or None
        The parts with the highest cost; None if no sensitivity was measured or all are equal.
    """
    frame = study.sensitivity
    if frame is None or frame.empty:
        return None
    costs = frame["nll_increase"].astype(float)
    shown = frame.loc[costs.nlargest(_PARTS).index].sort_index()
    parts = zip(shown["by"], shown["part"], strict=True)
    names = distinct_names([part_name(by, str(part)) for by, part in parts], 60)
    rows = [
        {"group": name, "value": cost, "label": figures(cost, "+.3f")}
        for name, cost in zip(names, costs[shown.index].tolist(), strict=True)
    ]
    if len({row["label"] for row in rows}) < 2:
        return None
    shape = marks.Bars(
        width=width,
        row=15,
        least=1e-3,
        axis=say("chart.x_nll_increase"),
        kind="plain",
        tips=marks.tips(group="label.part", label="chart.x_nll_increase"),
    )
    level, text = float(frame["sparsity"].median()), clip(frame["text"].iloc[0])
    note = say("chart.sensitivity_note", level=level, text=text)
    if len(rows) < len(frame):
        note += say("chart.parts_shown_note", shown=len(rows), parts=len(frame))
    texts = [f"{row['group']}: {row['label']}" for row in rows]
    alt_text = say("chart.sensitivity_alt", rows="; ".join(texts))
    chart = marks.bars(rows, shape)
    return theme.titled(chart, say("chart.sensitivity_title"), note, alt_text)


CHARTS: dict[str, Callable[..., alt.LayerChart | None]] = {
    "speed": speed_chart,
    "quality": quality_chart,
    "sensitivity": sensitivity_chart,
}
