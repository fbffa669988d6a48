"""The slider of a page over all sparsity levels: its chart, its texts and its histograms.

A script of the page draws the histogram of the chosen layer, pale up to the level's threshold.
"""

from typing import Any

import pandas as pd

from sparsity_report.draw.level_slider import level_chart
from sparsity_report.report.sections import TRANSPARENT, as_json
from sparsity_report.report.tables import study_tables
from sparsity_report.report.tables.table_model import Table, to_columns
from sparsity_report.study.comparison import Comparison
from sparsity_report.words.number_format import percent, scaled
from sparsity_report.words.sentences import say

# Share of the slider's length that the name of a mark takes.
_APART = 0.12
# Costs that the slider compares with dense, and their units.
_COSTS = {"flops_per_token": "FLOPs", "stored_bytes": "B"}

# Most layers with histograms in a page: about 400 kB.
_MOST = 500
_WIDTH, _HEIGHT = 620, 150


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
