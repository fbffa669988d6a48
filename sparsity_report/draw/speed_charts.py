"""The chart of measured speed: promised and realised speed-up."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.marks import Rows
from sparsity_report.draw.theme import INK, MUTED, TEXT_WIDTH
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.layers import records
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.words.sentences import say

# Labels in place of a speed-up that noise may explain, by verdict.
_WITHHELD = {"same": "chart.speed_same_kernels", "noise": "chart.speed_no_difference"}

# Numbers of a row, and their columns.
_SPEEDS = {
    "low": "realised_low",
    "high": "realised_high",
    "control_low": "control_low",
    "control_high": "control_high",
    "promised": "promised_speedup",
}


def speed_chart(study: StudyFigures, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
    """Return promised and realised speed-up of the forward pass, per variant and tokens.

    A band shows the control, the same kernel timed twice. A speed-up within it has an interval
    but no point and no number.

    Returns
    -------
    altair.LayerChart or None
        None if the latency of fewer than two variants was measured.
    """
    frame = study.facts.speeds
    if frame is None:
        return None
    base = study.facts.speed_base
    rows = _speeds(frame[(frame["scope"] == "model") & (frame["variant"] != base)])
    if not rows:
        return None
    machine, threads = frame["machine"].iloc[0], int(frame["threads"].iloc[0])
    notes = (
        say("chart.speed_up_over_base", base=short_name(base)),
        say("chart.speed_intervals_note"),
        say("chart.speed_conditions_note", machine=machine, threads=threads),
    )
    texts = [f"{row['name']}: {row['label']}" for row in rows]
    alt_text = say("chart.speed_alt", rows="; ".join(texts))
    shown = theme.looks(study)
    inks = {variant: shown[policy].color for variant, policy in theme.policies(study).items()}
    layers = _speed_layers(rows, width, inks)
    chart = alt.LayerChart(layer=layers, width=width, height=24 * len(rows))
    return theme.titled(chart, say("chart.speed_title"), " · ".join(notes), alt_text)


def _speeds(frame: pd.DataFrame) -> Rows:
    """Return the speed-ups of each variant, with the intervals of the variant and the control."""
    known = frame.astype(object).where(frame.notna(), None)
    rows = []
    for row in records(known):
        label, realised = say(_WITHHELD.get(row["verdict"], "chart.speed_not_reported")), None
        if row["verdict"] == "stated":
            realised = row["realised_speedup"]
            label = theme.write(realised, "ratio")
        tokens = say("format.token_count", tokens=row["tokens"])
        name = f"{clip(row['variant'], 30)} · {tokens}"
        shown = {column: row[key] for column, key in _SPEEDS.items()}
        variant = row["variant"]
        rows.append(
            {"name": name, "variant": variant, "realised": realised, "label": label, **shown}
        )
    return rows


def _speed_layers(rows: Rows, width: float, inks: Mapping[str, str]) -> list[alt.Chart]:
    """Return the layers; realised speed-ups have the color of their policy."""
    drawn = {short_name(row["variant"]): inks.get(row["variant"], MUTED) for row in rows}
    rows = [{**row, "variant": short_name(row["variant"])} for row in rows]
    numbers = [row[key] for row in rows for key in _SPEEDS if row[key]] or [1.0]
    domain = [min(0.8, min(numbers) / 1.15), max(1.25, max(numbers) * 1.15)]
    ticks = theme.log_ticks(domain[0], domain[1], few=width < theme.NARROW)
    axis = alt.Axis(labelExpr=theme.tick("ratio"), values=ticks, grid=False)
    scale = alt.Scale(type="log", domain=domain)
    x = alt.X("realised:Q", title=say("label.speed_up"), scale=scale, axis=axis)
    names = [say("chart.speed_promised_by_flops"), say("label.realised_speed_up")]
    y = marks.names_axis("name", [row["name"] for row in rows], grid=True)

    def known(*keys: str, mark: str = "") -> Any:
        """Return a chart of the rows in which all of some values are known."""
        chosen = [{**row, "mark": mark} for row in rows if all(row[key] for key in keys)]
        return alt.Chart(marks.inline(chosen)).encode(y=y)

    columns = 1 if width < theme.NARROW else 2
    legend = alt.Legend(title=None, orient="top", columns=columns, symbolFillColor=MUTED)
    kinds = marks.channels("mark", names, legend, shape=["diamond", "circle"])
    color = marks.channels("variant", [*drawn], None, color=[*drawn.values()])
    tips = marks.tips(name="label.variant", mark="label.speed_up", label="label.realised_speed_up")
    kinds |= marks.tooltips(tips)
    point: dict[str, Any] = {"filled": True, "size": 50, "opacity": 1}
    text = known().mark_text(align="right", dx=-2, dy=-7, fontSize=8, color=INK)
    one = alt.Chart(marks.inline([{"one": 1}])).mark_rule(color=MUTED)
    span = known("control_low", "control_high").mark_rule(color=MUTED, strokeWidth=11, opacity=0.25)
    difference = known("promised", "realised").mark_rule(color=MUTED, strokeDash=[2, 2])
    interval = known("low", "high").mark_rule(strokeWidth=3)
    return [
        span.encode(x="control_low:Q", x2="control_high:Q"),
        one.encode(x=alt.X("one:Q")),
        difference.encode(x=x, x2="promised:Q"),
        interval.encode(x="low:Q", x2="high:Q", **color),
        known("promised", mark=names[0])
        .mark_point(color=MUTED, **point)
        .encode(x="promised:Q", **kinds),
        known("realised", mark=names[1]).mark_point(**point).encode(x=x, **kinds, **color),
        text.encode(x=alt.XValue("width"), text="label:N"),
    ]
