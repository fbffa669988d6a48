"""Everything a report shows, as plain values: made once, for HTML and PDF alike."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup

import sparsity_report
from sparsity_report.draw import charts, export, look
from sparsity_report.draw import measured as measured_charts
from sparsity_report.draw.look import FILED
from sparsity_report.draw.slider import level_chart
from sparsity_report.findings.difference import Difference
from sparsity_report.findings.summary import conventions, summarize
from sparsity_report.report import tables
from sparsity_report.report.cells import Table, to_columns
from sparsity_report.study.facts import Card
from sparsity_report.study.layers import records
from sparsity_report.study.study import Comparison
from sparsity_report.words.language import spoken
from sparsity_report.words.names import clip
from sparsity_report.words.numbers import count, percent, scaled, times
from sparsity_report.words.sentences import message, say, say_note

# Rows of all variants' layers up to which the page holds them as a table; beyond, as data.
_ROWS = 6_000
# The page gives the paper, so that one drawing serves by day and by night.
_SEE_THROUGH = {"background": "transparent"}
# Share of the slider's length that the name of a mark takes.
_APART = 0.12
_CARDS = {
    "total": (message("Parameters"), message("of {variant}")),
    "prunable_total": (message("Prunable weights"), message("of {variant}")),
    "sparsity_prunable": (message("Zeros"), message("of the prunable weights, {variant}")),
    "sparsity_model": (message("Zeros"), message("of all parameters, {variant}")),
    "stored_bytes": (
        message("Stored bytes"),
        message("of the whole model, {variant} ÷ {against}"),
    ),
    "flops_per_token": (message("FLOPs per token"), message("{variant} ÷ {against}")),
}


class Layers(NamedTuple):
    """All modules of a variant: a table with rows, or where they are too many their data."""

    variant: str
    modules: int
    table: Table
    data: Markup | None


class Figure(NamedTuple):
    """A chart in the page: live where scripts run, a picture where they do not, and its data."""

    key: str
    caption: str
    alt: str
    picture: Markup
    spec: Markup
    table: Table


class Measured(NamedTuple):
    """Something measured: a chart where there is one to draw, and its numbers."""

    caption: str
    figure: Figure | None
    table: Table


def context(study: Comparison, paper: bool = False) -> dict[str, Any]:
    """Everything the templates may show, as plain values, in the language that is spoken.

    A section whose own key is None here is left out of the report. Colours of shares go from 0 to
    100 % where a slider moves them, on `paper` from the least to the most that maps show.
    """
    shares = study.variants["asked_sparsity"].dropna().unique()
    asked = [say("{share:level}", share=share) for share in shares]
    prunings = study.facts.prunings
    return {
        "language": spoken(),
        "models": look.model_names(study),
        "levels": asked,
        "variants": _records(study.variants),
        "palette": list(look.palette(study).values()),
        "findings": summarize(study),
        "cards": [_card(card) for card in study.facts.cards],
        "totals": _records(study.totals),
        "groups": [
            (str(name), _records(rows))
            for name, rows in study.groups.groupby("variant", sort=False)
        ],
        "tables": {
            "models": tables.models(study),
            "variants": tables.variants(study),
            "totals": tables.totals(study),
            "groups": tables.groups(study),
            "storage": [tables.storage(study, variant) for variant in prunings],
            "extremes": [pair for v in prunings if (pair := tables.extremes(study, v))],
            "unusual": [table for v in prunings if (table := tables.unusual(study, v))],
        },
        "comparisons": [_comparison(study, metric) for metric in FILED],
        "maps": [f for v in prunings if (f := _map(study, v, None if paper else (0.0, 1.0)))],
        "map_note": _map_note(study),
        "curve": _curve(study),
        "slider": _slider(study),
        "layers": _layers(study),
        "audit": study.audit,
        "notes": [say_note(note) for note in study.notes],
        "measured": _measured(study) or None,
        "unclassified": list(study.unclassified),
        "conventions": conventions(study),
        "convention": study.convention,
        "program": f"sparsity-report {sparsity_report.__version__}",
        "version": sparsity_report.__version__,
        "fingerprint": study.fingerprint,
    }


def difference_context(
    difference: Difference, names: tuple[str, str] | None = None
) -> dict[str, Any]:
    """Everything the template of what changed may show."""
    studies = (difference.before, difference.after)
    before, after = names or (f"{look.model_names(s)} ({s.fingerprint})" for s in studies)
    return {
        "language": spoken(),
        "before": before,
        "after": after,
        "sentences": difference.sentences(),
        "totals": tables.difference_totals(difference) if difference else None,
        "modules": tables.difference_modules(difference, _ROWS),
        "number": int(difference.changes["module_name"].notna().sum()),
        "program": f"sparsity-report {sparsity_report.__version__}",
    }


def _card(card: Card) -> dict[str, str]:
    """Return a number people look for first: large, what it is of, and of which variant."""
    title, note = _CARDS[card.key]
    write = times if card.against else percent if card.key.startswith("sparsity") else scaled
    named = {"variant": clip(card.variant, 40), "against": clip(card.against, 40)}
    return {"title": say(title), "number": write(card.value), "note": say(note, **named)}


def _figure(key: str, chart: Any, table: Table) -> Figure:
    spec = chart.to_dict()
    spec |= _SEE_THROUGH
    spec["config"]["padding"] |= {"left": 0, "top": 0, "bottom": 0}
    picture = export.svg(spec, key)
    del spec["$schema"]
    return Figure(key, table.caption, spec["description"], Markup(picture), _json(spec), table)


def _json(value: Any) -> Markup:
    """Write JSON that no HTML parser can take for the end of its script."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for risky in "<>&\u2028\u2029":
        text = text.replace(risky, f"\\u{ord(risky):04x}")
    return Markup(text)


def _comparison(study: Comparison, metric: str) -> Figure:
    table = tables.comparison(study, metric)
    return _figure(table.key, charts.group_bars(study, metric), table)


def _map(study: Comparison, variant: str, domain: tuple[float, float] | None) -> Figure | None:
    chart = charts.sparsity_map(study, variant, domain=domain)
    if chart is None:
        return None
    place = list(study.variants["variant"]).index(variant)
    return _figure(f"map{place}", chart, tables.zeros_map(study, variant))


def _map_note(study: Comparison) -> str:
    """Say what the maps show, and what a cell holds."""
    facts = study.facts
    layers = max((facts.cells(variant)["layers"].max() for variant in facts.prunings), default=1)
    methods = study.variants.set_index("variant")["method"].loc[list(facts.prunings)]
    said = [
        say("Each cell is one weight matrix.")
        if not layers > 1
        else say(
            "A cell holds up to {layers:,} weight matrices and shows the zeros of all of them.",
            layers=int(layers),
        )
    ]
    if methods.str.startswith("global_magnitude").any():
        said.insert(
            0, say("One threshold for the whole network takes most where weights are small.")
        )
    return " ".join(said)


def _curve(study: Comparison) -> Figure | None:
    chart = charts.csr_bytes_curve(study)
    return None if chart is None else _figure("curve", chart, tables.curve(study))


def _measured(study: Comparison) -> list[Measured]:
    """Return charts and tables of speed, crossover, quality and sensitivity, as far as known."""
    parts = []
    for table in (
        tables.latency(study),
        tables.crossover(study),
        tables.quality(study),
        tables.sensitivity(study),
    ):
        if table is not None:
            chart = measured_charts.CHARTS[table.key](study)
            figure = None if chart is None else _figure(table.key, chart, table)
            parts.append(Measured(table.caption, figure, table))
    return parts


def _slider(study: Comparison) -> dict[str, Any] | None:
    """Return the chart of all levels, and what stands around it, one text a level."""
    chart, table, levels = level_chart(study), tables.levels(study), study.facts.levels
    if chart is None or table is None or levels is None:
        return None
    tenths = [row for row in table.rows if round(100 * row.cells[0].value) % 10 == 0]
    last = chart.levels[-1]
    marks: list[dict[str, Any]] = []
    for variant, at in chart.marks:
        if all(abs(at - mark["at"]) >= _APART for mark in marks):
            nearest = min(range(len(chart.levels)), key=lambda n: abs(chart.levels[n] - at))
            left = 100 * min(at, last) / last
            marks.append({"name": variant, "at": at, "left": round(left, 2), "level": nearest})
    even = chart.break_even
    return {
        "spec": _json(chart.spec | _SEE_THROUGH),
        "alt": chart.description,
        "start": chart.start,
        "steps": len(table.rows),
        "marks": marks,
        "even": None
        if even is None
        else {
            "share": even,
            "left": round(100 * min(even, last) / last, 2),
            "text": say("CSR is smaller than dense from {share:percent}", share=even),
        },
        "texts": _json(_level_texts(study)),
        "table": table.with_rows(tenths),
        "slack": int(levels["uncertainty"].max()),
    }


def _level_texts(study: Comparison) -> dict[str, list[str]]:
    """Return what the slider's large numbers and their notes say at each level."""
    levels = study.facts.levels
    assert levels is not None
    prunable = count(study.facts.total(study.variants["variant"].iloc[0], "prunable_total"))
    return {
        "asked": [percent(share, 0) for share in levels["sparsity"]],
        "spoken": [
            say(
                "{asked}, stored bytes {ratio} of dense",
                asked=percent(asked, 0),
                ratio=times(ratio),
            )
            for asked, ratio in zip(levels["sparsity"], levels["bytes_ratio"], strict=True)
        ],
        "zeros": [
            say("{zeros} of {total} prunable weights", zeros=count(zeros), total=prunable)
            for zeros in levels["zeros"]
        ],
        "sparsity_prunable": [percent(share) for share in levels["sparsity_prunable"]],
        "sparsity_model": [percent(share) for share in levels["sparsity_model"]],
        **{
            f"{key}_ratio": [times(ratio) for ratio in levels[f"{key}_ratio"]]
            for key in ("flops", "bytes")
        },
        **{
            column: [
                say(
                    "{part} against {whole}, whole model",
                    part=scaled(part, unit),
                    whole=scaled(whole, unit),
                )
                for part, whole in zip(levels[column], levels[f"dense_{column}"], strict=True)
            ]
            for column, unit in (("flops_per_token", "FLOPs"), ("stored_bytes", "B"))
        },
    }


def _layers(study: Comparison) -> list[Layers]:
    """Rows where they are few; else columns of data, those a variant shares with the first once."""
    parts: list[Layers] = []
    first: dict[str, list[str]] = {}
    for variant in study.variants["variant"]:
        table = tables.layers(study, variant)
        modules = len(table.rows)
        if len(study.layers) <= _ROWS:
            parts.append(Layers(variant, modules, table, None))
            continue
        columns = to_columns(table)
        data = {key: texts for key, texts in columns.items() if texts != first.get(key)}
        first = first or columns
        parts.append(Layers(variant, modules, table.with_rows([]), _json(data)))
    return parts


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values; what is unknown is None."""
    return records(frame.astype(object).where(frame.notna(), None))
