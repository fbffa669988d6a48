"""The slider of a page over all sparsity levels: its chart and its texts at each level."""

from typing import Any

from sparsity_report.draw.level_slider import level_chart
from sparsity_report.report.histogram_data import histograms, without_histograms
from sparsity_report.report.sections import TRANSPARENT, as_json
from sparsity_report.report.tables import study_tables
from sparsity_report.report.tables.table_model import Table, to_columns
from sparsity_report.study.comparison import Comparison
from sparsity_report.words.number_format import count, percent, scaled
from sparsity_report.words.sentences import say

# Share of the slider's length that the name of a mark takes.
_APART = 0.12
# Costs that the slider compares with dense, and their units.
_COSTS = {"flops_per_token": "FLOPs", "stored_bytes": "B"}


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

    marks: list[dict[str, Any]] = []
    for variant, at in chart.marks:
        if all(abs(at - mark["at"]) >= _APART for mark in marks):
            nearest = min(range(len(chart.levels)), key=lambda n: abs(chart.levels[n] - at))
            mark = {"name": variant, "at": at, "left": left(at), "level": nearest}
            marks.append({**mark, "asked": percent(at, 0)})
    return {
        "spec": as_json(chart.spec | TRANSPARENT),
        "alt": chart.spec["description"],
        "start": chart.start,
        "steps": len(table.rows),
        "marks": marks,
        "even": even
        and {"share": even, "left": left(even), "text": say("slider.csr_break_even", share=even)},
        "texts": as_json(_level_texts(study, table)),
        "table": table.with_rows(tenths),
        "slack": int(levels["uncertainty"].max()),
    }


def _level_texts(study: Comparison, table: Table) -> dict[str, list[str]]:
    """Return the slider's large numbers and their notes at each level."""
    levels, texts = study.facts.levels, to_columns(table)
    assert levels is not None
    total = count(study.facts.total(study.variants["variant"].iloc[0], "prunable_total"))
    notes = dict.fromkeys(_COSTS, "slider.cost_of_whole_model")
    spoken = "slider.spoken_bytes_ratio"
    if study.facts.unpacked_dtypes(study.facts.baseline):
        notes["stored_bytes"] = "slider.cost_of_whole_model_unpacked"
        spoken = "slider.spoken_bytes_ratio_unpacked"
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
            say(spoken, asked=asked, ratio=ratio)
            for asked, ratio in zip(texts["sparsity"], texts["bytes_ratio"], strict=True)
        ],
        "zeros": [
            say("slider.zeros_of_prunable", zeros=zeros, total=total) for zeros in texts["zeros"]
        ],
        **{key: texts[key] for key in large},
        **costs,
    }
