"""Histograms of all layers for a page, whose script draws the chosen one."""

from typing import Any

import altair as alt

from sparsity_report.draw import marks, theme
from sparsity_report.draw.histogram_rows import about
from sparsity_report.draw.theme import BLUE, PALE, VERMILLION
from sparsity_report.errors import printable
from sparsity_report.report.sections import TRANSPARENT
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.histograms import bars, module_magnitudes
from sparsity_report.study.levels.sweep import thresholds
from sparsity_report.words.languages import spoken
from sparsity_report.words.sentences import say

# Most layers with histograms in a page: about 400 kB.
_MOST = 500
_WIDTH, _HEIGHT = 620, 150


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
