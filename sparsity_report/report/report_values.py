"""Everything a report shows, as plain values: made once, for HTML and PDF alike."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

import sparsity_report
from sparsity_report.draw import charts, theme
from sparsity_report.draw.level_slider import level_chart
from sparsity_report.draw.measured_charts import CHARTS
from sparsity_report.draw.theme import FILED
from sparsity_report.draw.vega import unchecked
from sparsity_report.errors import printable
from sparsity_report.findings.difference import Difference
from sparsity_report.findings.summary import conventions
from sparsity_report.findings.verdict import verdict
from sparsity_report.hooks import hooks
from sparsity_report.report.histograms import histograms, without_histograms
from sparsity_report.report.page_figures import SEE_THROUGH, Figure, as_json, figure_of
from sparsity_report.report.sparsity_figures import first_map, multiples, pictures
from sparsity_report.report.tables import difference_tables, speed_tables, study_tables
from sparsity_report.report.tables import method_tables as grids
from sparsity_report.report.tables.policy_table import compared
from sparsity_report.report.tables.table_model import Table, plain_rows, to_columns
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.cards import Card
from sparsity_report.study.derived.perplexity import ALIKE
from sparsity_report.study.files.csv_files import csv_text
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.words.display_names import layout_name
from sparsity_report.words.languages import spoken
from sparsity_report.words.number_format import count, figures, percent, scaled, times
from sparsity_report.words.sentences import say, say_note

# Rows of all variants' layers up to which the page holds them as a table; beyond, as data.
_ROWS = 6_000
# Letters that all rows may add to the page, compressed; beyond, they are in files only.
_ENCLOSED = 2_000_000
# Share of the slider's length that the name of a mark takes.
_APART = 0.12
# What the slider compares with dense, and its units.
_COSTS = {"flops_per_token": "FLOPs", "stored_bytes": "B"}
_CARDS = {
    "total": ("metric.parameters", "card.of_variant"),
    "prunable_total": ("card.prunable_weights", "card.of_variant"),
    "sparsity_prunable": ("metric.zeros", "card.of_prunable_variant"),
    "stored_bytes": ("metric.stored_bytes", "card.of_model_variant"),
    "perplexity": ("card.perplexity", "card.perplexity_variant_text"),
    "smallest": ("card.smallest_lossless_layout", "card.layout_prunable_to_dense"),
    "speed": ("column.speedup", "card.speedup_interval"),
    "flops_per_token": ("metric.flops_per_token", "card.flops_ratio_counted"),
}
_RATIO = "card.model_bytes_ratio"
_BEFORE = "card.perplexity_before"
# What they are of where the baseline is packed.
_PACKED = {
    "total": "card.parameters_bits_per_weight",
    "stored_bytes": "card.model_bytes_ratio_unpacked",
    "smallest": "card.layout_prunable_to_unpacked",
}

_QUALITY = (
    study_tables.quality,
    study_tables.distance,
    study_tables.sensitivity,
    study_tables.continuations,
    study_tables.zero_shot,
    grids.task_grid,
    study_tables.tasks,
    study_tables.task_sources,
)
_SPEED = (speed_tables.latency, speed_tables.crossover, speed_tables.speedups)


class Layers(NamedTuple):
    """All modules of a variant: a table with rows, or where they are too many their data."""

    variant: str
    modules: int
    table: Table
    data: Markup | None


class Measured(NamedTuple):
    """Something measured: a chart where there is one to draw, and its numbers."""

    caption: str
    figure: Figure | None
    table: Table


@unchecked()
def context(study: Comparison, paper: bool = False) -> dict[str, Any]:
    """Everything the templates may show, as plain values, in the language that is spoken.

    A section whose own key is None here is left out of the report. Colours of shares go from 0 to
    100 % where a slider moves them, on `paper` from the least to the most that maps show.
    """
    shares = study.variants["asked_sparsity"].dropna().unique()
    asked = [say("format.level_share", share=share) for share in shares]
    curve, domain = charts.csr_bytes_curve(study), None if paper else (0.0, 1.0)
    # That of the headline first.
    prunings = sorted(study.facts.prunings, key=lambda name: name != study.facts.pruning)
    return {
        "language": spoken(),
        "models": theme.model_names(study),
        "levels": asked,
        "variants": plain_rows(study.variants),
        "chips": _chips(study),
        "palette": list(theme.palette(study).values()),
        "verdict": verdict(study),
        "findings": hooks.sentences(study),
        "cards": [_card(study, card) for card in study.facts.cards],
        "totals": plain_rows(study.totals),
        "groups": [
            (str(name), plain_rows(rows))
            for name, rows in study.groups.groupby("variant", sort=False)
        ],
        "tables": {
            "models": study_tables.models(study),
            "variants": study_tables.variants(study),
            "totals": study_tables.totals(study),
            "groups": study_tables.groups(study),
            "storage": [study_tables.storage(study, variant) for variant in prunings],
            "useful": study_tables.useful(study, prunings[0]) if prunings else None,
            "published": study_tables.published(),
            "extremes": [pair for v in prunings if (pair := study_tables.extremes(study, v))],
            "unusual": [table for v in prunings if (table := study_tables.unusual(study, v))],
        },
        "comparisons": [
            figure_of(
                charts.group_bars(study, metric, once=True), study_tables.comparison(study, metric)
            )
            for metric in FILED
        ],
        "compared": compared(study),
        "maps": [figure] if (figure := first_map(study, domain)) else [],
        "map_note": _map_note(study),
        "multiples": multiples(study, domain),
        "pictures": pictures(study),
        "curve": None if curve is None else figure_of(curve, study_tables.curve(study)),
        "packed": _packed(study),
        "pruned": [short_name(name) for name in prunings],
        "slider": slider(study),
        "histograms": None if (known := histograms(study)) is None else as_json(known),
        "without_histograms": "" if known is not None else without_histograms(study),
        "layers": _layers(study),
        "modules_compared": study_tables.modules_compared(study) if paper else None,
        "rows": None if paper else _rows(study),
        "audit": study.audit,
        "notes": [printable(say_note(note)) for note in study.notes],
        "quality": _measured(study, _QUALITY) or None,
        "speeds": _measured(study, _SPEED),
        "unclassified": list(study.unclassified),
        "conventions": conventions(study),
        "convention": study.convention,
        "program": f"sparsity-report {sparsity_report.__version__}",
        "version": sparsity_report.__version__,
        "fingerprint": study.fingerprint,
    }


def _chips(study: Comparison) -> list[tuple[str, str, str]]:
    """Return each variant with its outline and filling, those compared as their table has them."""
    inks, compared = theme.palette(study), study.facts.compared
    ordered = [] if compared is None else list(compared.variants)
    places = iter(ordered)
    names = (next(places) if name in ordered else name for name in inks)
    return [(name, *inks[name]) for name in names]


def difference_context(
    difference: Difference, names: tuple[str, str] | None = None
) -> dict[str, Any]:
    """Everything the template of what changed may show."""
    studies = (difference.before, difference.after)
    before, after = names or (f"{theme.model_names(s)} ({s.fingerprint})" for s in studies)
    return {
        "language": spoken(),
        "before": before,
        "after": after,
        "sentences": difference.sentences(),
        "totals": difference_tables.totals(difference) if difference else None,
        "moved": difference_tables.moved(difference, _ROWS),
        "measured": difference_tables.measured(difference),
        "modules": difference_tables.modules(difference, _ROWS),
        "number": int(difference.changes["module_name"].notna().sum()),
        "program": f"sparsity-report {sparsity_report.__version__}",
    }


def _packed(study: Comparison) -> str | None:
    """Say what bytes of packed weights are compared with; None where none is packed."""
    facts = study.facts
    if not (dtypes := facts.unpacked_dtypes(facts.baseline)):
        return None
    return say("storage.packed_comparison", packings=facts.packings(facts.baseline), dtypes=dtypes)


def _card(study: Comparison, card: Card) -> dict[str, str]:
    """Return a number people look for first: large, what it is of, and of which variant."""
    facts = study.facts
    title, note = _CARDS[card.key]
    if card.key == "stored_bytes" and card.against:
        note = _RATIO
    before = card.more.get("before")
    if before is not None:
        note = _BEFORE
    if packed := card.key in _PACKED and facts.unpacked_dtypes(facts.baseline):
        note = _PACKED[card.key] if card.key != "stored_bytes" or card.against else note
    said = dict(card.more)
    if card.key == "smallest":
        said["layout"] = layout_name(said["layout"])
    if card.key == "speed":
        said["tokens"] = say("format.token_count", tokens=int(said["tokens"]))
    if card.key == "perplexity":
        said |= {"text": short_name(said["text"]), "before": figures(before, ",.2f")}
    named = {
        "variant": short_name(card.variant),
        "against": short_name(card.against or facts.baseline),
        "dtypes": packed,
        "bits": facts.bits_per_weight(card.variant) if packed else None,
    }
    return {"title": say(title), "number": _large(card), "note": say(note, **named, **said)}


def _large(card: Card) -> str:
    """Write the number of a card."""
    if card.key == "speed" and card.value is None:
        return say("card.speed_no_difference")
    if card.key == "perplexity":
        return figures(card.value, ",.2f")
    if card.against or card.key == "smallest":
        return times(card.value)
    if card.key.startswith("sparsity"):
        return percent(card.value)
    return scaled(card.value, "B" if card.key == "stored_bytes" else "")


def _map_note(study: Comparison) -> str:
    """Say what the maps show, and what a cell holds."""
    facts = study.facts
    layers = max((facts.cells(variant)["layers"].max() for variant in facts.prunings), default=1)
    methods = study.variants.set_index("variant")["method"].loc[list(facts.prunings)]
    said = say("map.cell_one_matrix")
    if layers > 1:
        said = say("map.cell_many_matrices", layers=int(layers))
    if not methods.str.startswith("global_magnitude").any():
        return said
    why = say("map.global_threshold_note")
    return f"{why} {said}"


def _measured(
    study: Comparison, those: Sequence[Callable[[Comparison], Table | None]]
) -> list[Measured]:
    """Return charts and tables of what was measured, here or elsewhere, as far as known."""
    parts = []
    for tabled in those:
        if (table := tabled(study)) is not None:
            draw = CHARTS.get(table.key)
            chart = draw(study) if draw else None
            figure = None if chart is None else figure_of(chart, table)
            parts.append(Measured(table.caption, figure, table))
            if table.key == "quality" and not _all_compared(study):
                parts += [Measured(grid.caption, None, grid) for grid in grids.method_grids(study)]
    return parts


def _all_compared(study: Comparison) -> bool:
    """Whether the perplexities of all that was scored stand side by side already."""
    if study.quality is None or (found := study.facts.compared) is None:
        return False
    known = [name for f in found.figures if f.key == "perplexity" for name in f.values]
    passages = study.quality[ALIKE].drop_duplicates()
    variants = study.quality["variant"].isin(study.variants["variant"])
    return len(passages) == 1 and set(study.quality["variant"][variants]) <= set(known)


def slider(study: Comparison) -> dict[str, Any] | None:
    """Return the chart of all levels, and what stands around it, one text a level."""
    chart, table, levels = level_chart(study), study_tables.levels(study), study.facts.levels
    if chart is None or table is None or levels is None:
        return None
    tenths = [row for row in table.rows if round(100 * row.cells[0].value) % 10 == 0]
    last = chart.levels[-1]
    marks: list[dict[str, Any]] = []
    for variant, at in chart.marks:
        if all(abs(at - mark["at"]) >= _APART for mark in marks):
            nearest = min(range(len(chart.levels)), key=lambda n: abs(chart.levels[n] - at))
            left = 100 * min(at, last) / last
            mark = {"name": variant, "at": at, "left": round(left, 2), "level": nearest}
            marks.append({**mark, "asked": percent(at, 0)})
    even = chart.break_even
    return {
        "spec": as_json(chart.spec | SEE_THROUGH),
        "alt": chart.spec["description"],
        "start": chart.start,
        "steps": len(table.rows),
        "marks": marks,
        "even": None
        if even is None
        else {
            "share": even,
            "left": round(100 * min(even, last) / last, 2),
            "text": say("slider.csr_break_even", share=even),
        },
        "texts": as_json(_level_texts(study, table)),
        "table": table.with_rows(tenths),
        "slack": int(levels["uncertainty"].max()),
    }


def _level_texts(study: Comparison, table: Table) -> dict[str, list[str]]:
    """Return what the slider's large numbers and their notes say at each level."""
    levels, texts = study.facts.levels, to_columns(table)
    assert levels is not None
    total = count(study.facts.total(study.variants["variant"].iloc[0], "prunable_total"))
    said = dict.fromkeys(_COSTS, "slider.cost_of_whole_model")
    aloud = "slider.spoken_bytes_ratio"
    if study.facts.unpacked_dtypes(study.facts.baseline):
        said["stored_bytes"] = "slider.cost_of_whole_model_unpacked"
        aloud = "slider.spoken_bytes_ratio_unpacked"
    costs = {
        column: [
            say(said[column], part=scaled(part, unit), whole=scaled(whole, unit))
            for part, whole in zip(levels[column], levels[f"dense_{column}"], strict=True)
        ]
        for column, unit in _COSTS.items()
    }
    large = ("sparsity_prunable", "sparsity_model", "flops_ratio", "bytes_ratio")
    return {
        "asked": texts["sparsity"],
        "spoken": [
            say(aloud, asked=asked, ratio=ratio)
            for asked, ratio in zip(texts["sparsity"], texts["bytes_ratio"], strict=True)
        ],
        "zeros": [
            say("slider.zeros_of_prunable", zeros=zeros, total=total) for zeros in texts["zeros"]
        ],
        **{key: texts[key] for key in large},
        **costs,
    }


def _rows(study: Comparison) -> str | None:
    """Return the rows of all layers as CSV, compressed, in letters; None if they are too many."""
    packed = gzip.compress(csv_text(study.layers).encode(), mtime=0)
    letters = base64.b64encode(packed).decode()
    return letters if len(letters) <= _ENCLOSED else None


def _layers(study: Comparison) -> list[Layers]:
    """Rows where they are few; else columns of data, those a variant shares with the first once."""
    parts: list[Layers] = []
    first: dict[str, list[str]] = {}
    for variant in study.variants["variant"]:
        table = study_tables.layers(study, variant)
        modules = len(table.rows)
        if len(study.layers) <= _ROWS:
            parts.append(Layers(variant, modules, table, None))
            continue
        columns = to_columns(table)
        data = {key: texts for key, texts in columns.items() if texts != first.get(key)}
        first = first or columns
        parts.append(Layers(variant, modules, table.with_rows([]), as_json(data)))
    return parts
