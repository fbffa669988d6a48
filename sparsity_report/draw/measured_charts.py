"""The chart of measured sensitivity, and the names of all charts of measurements."""

from collections.abc import Callable

import altair as alt

from sparsity_report.draw import marks, theme
from sparsity_report.draw.policy_charts import distance_chart, quality_chart
from sparsity_report.draw.speed_charts import crossover_chart, speed_chart
from sparsity_report.draw.theme import TEXT_WIDTH
from sparsity_report.study.comparison import Study
from sparsity_report.untrusted.display_text import clip, distinct_names
from sparsity_report.words.display_names import part_name
from sparsity_report.words.number_format import figures
from sparsity_report.words.sentences import say

# Most parts of a model in a chart.
_PARTS = 40


def sensitivity_chart(study: Study, width: float = TEXT_WIDTH) -> alt.LayerChart | None:
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
    low, high = min(0.0, *costs[shown.index]), max(1e-3, *costs[shown.index])
    room = (high - low) * 0.14
    shape = marks.Bars(
        groups=tuple(names),
        width=width,
        domain=(low - (room if low < 0 else 0), high + room),
        band=9,
        gap=6,
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
    chart = marks.bars(marks.inline(rows), shape)
    return theme.titled(chart, say("chart.sensitivity_title"), note, alt_text)


CHARTS: dict[str, Callable[..., alt.LayerChart | None]] = {
    "speed": speed_chart,
    "crossover": crossover_chart,
    "quality": quality_chart,
    "distance": distance_chart,
    "sensitivity": sensitivity_chart,
}
