"""The slider of a page over all sparsity levels: its chart, its texts and its histograms.

A script of the page draws the histogram of the chosen layer, pale up to the level's threshold.
"""

from typing import Any

import altair as alt
import pandas as pd

from sparsity_report.draw import marks, theme
from sparsity_report.draw.histogram_rows import about
from sparsity_report.draw.level_slider import level_chart
from sparsity_report.draw.theme import BLUE, PALE, VERMILLION
from sparsity_report.errors import printable
from sparsity_report.report.sections import TRANSPARENT, as_json
from sparsity_report.report.tables import study_tables
from sparsity_report.report.tables.table_model import Table, to_columns
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.histograms import bars, module_magnitudes
from sparsity_report.study.levels.sweep import thresholds
from sparsity_report.words.languages import spoken
from sparsity_report.words.number_format import percent, scaled
from sparsity_report.words.sentences import say

# Share of the slider's length that the name of a mark takes.
_APART = 0.12
# Costs that the slider compares with dense, and their units.
_COSTS = {"flops_per_token": "FLOPs", "stored_bytes": "B"}

# Most layers with histograms in a page: about 400 kB.
_MOST = 500
_WIDTH, _HEIGHT = 620, 150


def slider_values(study: Comparison, sliding: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the slider's template."""
    known = histograms(study)
    return {
        "slider": sliding,
        "packed": packed_note(study),
        "histograms": None if known is None else as_json(known),
        "without_histograms": "" if known is not None else without_histograms(study),
    }


def packed_note(study: Comparison) -> str | None:
    """Return a sentence on the bytes that packed weights are compared with; None without any."""
    facts = study.facts
    if not (dtypes := facts.unpacked_dtypes(facts.baseline)):
        return None
    return say("storage.packed_comparison", packings=facts.packings(facts.baseline), dtypes=dtypes)


def slider(study: Comparison) -> dict[str, Any] | None:
    """Return the chart of all levels and the texts around it; None where levels are unknown."""
    chart, table, levels = level_chart(study), study_tables.levels(study), study.facts.levels
    if chart is None or table is None or levels is None:
        return None
    tenths = [row for row in table.rows if round(100 * row.cells[0].value) % 10 == 0]
    last, even = chart.levels[-1], chart.break_even

    def left(share: float) -> float:
        return round(100 * min(share, last) / last, 2)

    named: list[dict[str, Any]] = []
    for variant, at in chart.marks:
        if all(abs(at - mark["at"]) >= _APART for mark in named):
            nearest = min(range(len(chart.levels)), key=lambda n: abs(chart.levels[n] - at))
            mark = {"name": variant, "at": at, "left": left(at), "level": nearest}
            named.append({**mark, "asked": percent(at, 0)})
    return {
        "spec": as_json(chart.spec | TRANSPARENT),
        "alt": chart.spec["description"],
        "start": chart.start,
        "steps": len(table.rows),
        "marks": named,
        "even": even
        and {"share": even, "left": left(even), "text": say("slider.csr_break_even", share=even)},
        "texts": as_json(_level_texts(study, levels, table)),
        "table": table.with_rows(tenths),
        "slack": int(levels["uncertainty"].max()),
    }


def _level_texts(study: Comparison, levels: pd.DataFrame, table: Table) -> dict[str, list[str]]:
    """Return the slider's large numbers and their notes at each level."""
    texts = to_columns(table)
    total = study.facts.total(study.variants["variant"].iloc[0], "prunable_total")
    notes = dict.fromkeys(_COSTS, "slider.cost_of_whole_model")
    ratio_key = "slider.spoken_bytes_ratio"
    if study.facts.unpacked_dtypes(study.facts.baseline):
        notes["stored_bytes"] = "slider.cost_of_whole_model_unpacked"
        ratio_key = "slider.spoken_bytes_ratio_unpacked"
    costs = {
        column: [
            say(notes[column], part=scaled(part, unit), whole=scaled(dense, unit))
            for part, dense in zip(levels[column], levels[f"dense_{column}"], strict=True)
        ]
        for column, unit in _COSTS.items()
    }
    large = ("sparsity_prunable", "sparsity_model", "flops_ratio", "bytes_ratio")
    return {
        "asked": texts["sparsity"],
        "spoken": [
            say(ratio_key, asked=asked, ratio=ratio)
            for asked, ratio in zip(texts["sparsity"], texts["bytes_ratio"], strict=True)
        ],
        "zeros": [say("slider.zeros_of_prunable", zeros=n, total=total) for n in texts["zeros"]],
        **{key: texts[key] for key in large},
        **costs,
    }


def histograms(study: Comparison) -> dict[str, Any] | None:
    """Return magnitudes of every prunable layer, and thresholds of the slider's levels.

    Returns
    -------
    dict or None
        ``layers``, a list of ``name``, ``edges`` and ``counts``; ``thresholds``, one per level,
        null where nothing is pruned; ``told``, their texts; ``spec``, the chart with the data
        ``bars`` and the parameter ``threshold``; ``said``, the decimal sign. None without weights,
        as in a study that was read, and for more layers than a page holds.
    """
    weights, levels = study.weights, study.facts.levels
    if weights is None or levels is None:
        return None
    known = module_magnitudes(weights)
    if not 0 < len(known) <= _MOST:
        return None
    layers = []
    for name, magnitudes in known.items():
        edges, counts = bars(magnitudes)
        if edges.size > 1:
            shown = {"name": printable(name, 2000), "counts": counts.tolist()}
            layers.append(shown | {"edges": [float(f"{edge:.5g}") for edge in edges]})
    if not layers:
        return None
    spec = _chart().to_dict(validate=False) | TRANSPARENT
    del spec["$schema"]
    word, at = say("explorer.threshold_heading"), thresholds(weights, levels["sparsity"].tolist())
    return {
        "layers": layers,
        "thresholds": at,
        "told": [
            say("histogram.nothing_pruned") if t is None else f"{word} {about(t)}" for t in at
        ],
        "spec": spec,
        "said": {"decimal": spoken().decimal},
    }


def without_histograms(study: Comparison) -> str:
    """Return the reason why a page lacks histograms, or an empty text."""
    if study.weights is None:
        return say("histogram.weights_missing")
    if (number := len(module_magnitudes(study.weights))) > _MOST:
        return say("histogram.too_many_layers", most=_MOST, number=number)
    return ""


def _chart() -> alt.LayerChart:
    """Return bars that are pale up to the threshold, and a rule at the threshold."""
    # The page sets the end of x, since data may be empty.
    scale = alt.Scale(nice=False, zero=True)
    x = alt.X("from:Q", title=say("chart.x_weight_magnitude"), scale=scale)
    tips = marks.histogram_tooltips()
    drawn = {"x2": "to:Q", "y": marks.density_axis(1.05), "y2": alt.datum(0), "tooltip": tips}
    data = alt.Chart(alt.NamedData("bars"))
    below = (
        data.transform_filter("datum.from < threshold")
        .transform_calculate(to="min(datum.to, threshold)")
        .mark_bar(strokeWidth=0, color=VERMILLION, fillOpacity=PALE)
    )
    above = (
        data.transform_filter("datum.to > threshold")
        .transform_calculate(**{"from": "max(datum.from, threshold)"})
        .mark_bar(strokeWidth=0, color=BLUE)
    )
    # Hidden from screen readers: a note has the threshold.
    rule = (
        alt.Chart(alt.InlineData(values=[{}]))
        .transform_calculate(at="threshold")
        .transform_filter("threshold > 0")
        .mark_rule(color=VERMILLION, strokeWidth=1.4, clip=True, aria=False)
    )
    layers = [part.encode(x=x, **drawn) for part in (above, below)]
    layers.append(rule.encode(x=alt.X("at:Q", scale=scale)))
    chart = alt.LayerChart(layer=layers, width=_WIDTH, height=_HEIGHT)
    chart = chart.add_params(alt.param(name="threshold", value=0))
    chart.description = say("histogram.alt_one_layer")
    return theme.fitted(chart)
