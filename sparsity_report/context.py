"""Everything a report shows, as plain values: made once, for HTML and PDF alike."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import pandas as pd
import vl_convert
from markupsafe import Markup

import sparsity_report
from sparsity_report import charts
from sparsity_report.comparison import Comparison
from sparsity_report.display import count, percent_text, scaled_text, times
from sparsity_report.errors import printable
from sparsity_report.findings import baseline, conventions, summarize
from sparsity_report.structure import records

_EXTREMES = 10


class Table(NamedTuple):
    """What a chart shows, for those who cannot see it: column heads and rows of text."""

    head: list[str]
    rows: list[list[str]]


class Figure(NamedTuple):
    """A chart in the page: live where scripts run, a picture where they do not."""

    key: str
    caption: str
    alt: str
    picture: Markup
    spec: Markup
    table: Table


def context(study: Comparison) -> dict[str, Any]:
    """Everything the templates may show, as plain values."""
    asked = [f"{100 * a:g} %" for a in study.variants["asked_sparsity"].dropna().unique()]
    by_variant = [
        (str(name), _records(own)) for name, own in study.layers.groupby("variant", sort=False)
    ]
    return {
        "models": charts.model_names(study),
        "levels": asked,
        "variants": _records(study.variants),
        "palette": list(charts.palette(study).values()),
        "findings": summarize(study),
        "cards": _cards(study),
        "totals": _records(study.totals),
        "groups": [
            (str(name), _records(own)) for name, own in study.groups.groupby("variant", sort=False)
        ],
        "comparisons": [_comparison(study, metric) for metric in charts.METRICS],
        "maps": [f for v in charts.distinct_prunings(study) if (f := _map(study, v))],
        "curve": _curve(study),
        "extremes": [(v, *_extremes(study, v)) for v in charts.distinct_prunings(study)],
        "layers": by_variant,
        "audit": study.audit,
        "unusual": _unusual(study),
        "notes": list(study.notes),
        "unclassified": list(study.unclassified),
        "conventions": conventions(study),
        "convention": study.convention,
        "context": study.context,
        "active": bool((study.totals["active_total"] != study.totals["total"]).any()),
        "program": f"sparsity-report {sparsity_report.__version__}",
    }


def _cards(study: Comparison) -> list[dict[str, str]]:
    """Return the numbers people look for first: large, what it is of, and of which variant."""
    totals = study.totals.set_index("variant")
    base = baseline(study)
    first, reference = (charts.distinct_prunings(study) or [base])[0], totals.loc[base]
    row = totals.loc[first]
    cards = [
        ("Parameters", scaled_text(reference["total"], ""), f"of {_clip(base)}"),
        ("Prunable weights", scaled_text(reference["prunable_total"], ""), f"of {_clip(base)}"),
        (
            "Zeros",
            percent_text(row["sparsity_prunable"]),
            f"of the prunable weights, {_clip(first)}",
        ),
        ("Zeros", percent_text(row["sparsity_model"]), f"of all parameters, {_clip(first)}"),
    ]
    sparse = [str(v) for v in totals.index[totals["layout"] == "csr"] if v != base]
    if sparse:
        own = totals.loc[sparse[0]]
        against = f"{_clip(sparse[0])} ÷ {_clip(base)}"
        for title, column in (
            ("Stored bytes", "stored_bytes"),
            ("FLOPs per token", "flops_per_token"),
        ):
            ratio = own[column] / reference[column] if reference[column] else None
            cards.append((title, times(ratio), against))
    return [dict(zip(("title", "number", "note"), card, strict=True)) for card in cards]


def _clip(text: object) -> str:
    return printable(str(text), 40)


def _figure(key: str, chart: Any, caption: str, table: Table) -> Figure:
    spec = chart.to_dict()
    # The page gives the paper, so that one drawing serves by day and by night.
    spec |= {"background": "transparent"}
    spec["config"]["padding"] |= {"left": 0, "top": 0, "bottom": 0}
    picture = vl_convert.vegalite_to_svg(spec, vl_version=charts.VEGALITE, allowed_base_urls=[])
    # Several drawings share a page: without names of their own, one's gradient would fill another.
    names: dict[str, str] = {}
    picture = re.sub(
        r'(id="|url\(#)((?:clip|gradient)_?\d+)',
        lambda found: found[1] + names.setdefault(found[2], f"{key}-{len(names)}"),
        picture,
    )
    del spec["$schema"]
    return Figure(key, caption, spec["description"], Markup(picture), _json(spec), table)


def _json(value: Any) -> Markup:
    """Write JSON that no HTML parser can take for the end of its script."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for risky in "<>&\u2028\u2029":
        text = text.replace(risky, f"\\u{ord(risky):04x}")
    return Markup(text)


def _comparison(study: Comparison, metric: str) -> Figure:
    look = charts.METRICS[metric]
    show = percent_text if look.share else count
    pivot = study.pivot(metric)
    rows = [
        [charts.group_name(str(group)), *(show(cell) for cell in row)]
        for group, row in zip(pivot.index, pivot.to_numpy(), strict=True)
    ]
    table = Table(["Group", *pivot.columns], rows)
    return _figure(
        look.file, charts.group_bars(study, metric), f"{look.title}: {look.note}.", table
    )


def _map(study: Comparison, variant: str) -> Figure | None:
    chart = charts.sparsity_map(study, variant)
    if chart is None:
        return None
    frame = charts.map_rows(study, variant)
    wide = frame.pivot_table(index="projection", columns="block", values="sparsity", sort=False)
    wide = wide[sorted(wide.columns)]
    rows = [[str(block), *(percent_text(cell) for cell in wide[block])] for block in wide.columns]
    place = list(study.variants["variant"]).index(variant)
    return _figure(
        f"map{place}",
        chart,
        f"{_clip(variant)}: share of zeros per weight matrix, block by projection.",
        Table(["Block", *wide.index], rows),
    )


def _curve(study: Comparison) -> Figure | None:
    chart = charts.csr_bytes_curve(study)
    if chart is None:
        return None
    frame = charts.curve_rows(study, [step / 10 for step in range(11)])
    wide = frame.pivot_table(index="sparsity", columns="layout", values="bytes", sort=False)
    rows = [
        [percent_text(share, 0), *(count(cell) for cell in row)]
        for share, row in zip(wide.index, wide.to_numpy(), strict=True)
    ]
    caption = "Bytes of the prunable weights in each layout, from integers, row pointers included."
    return _figure("curve", chart, caption, Table(["Sparsity", *wide.columns], rows))


def _extremes(study: Comparison, variant: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the prunable modules with the largest and the smallest share of zeros."""
    ranked = charts.prunable_rows(study, variant).sort_values(
        "share", ascending=False, kind="stable"
    )
    return _records(ranked.head(_EXTREMES)), _records(ranked.iloc[::-1].head(_EXTREMES))


def _unusual(study: Comparison) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return per pruning the matrices furthest from what a Gaussian of their spread would have."""
    frame, tables = study.patterns, []
    if frame is None:
        return []
    for variant in charts.distinct_prunings(study):
        own = frame[frame["variant"] == variant]
        away = (own["sparsity"] - own["expected_sparsity"]).abs().dropna()
        if not away.empty:
            tables.append((variant, _records(own.loc[away.nlargest(_EXTREMES).index])))
    return tables


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values; what is unknown is None."""
    return records(frame.astype(object).where(frame.notna(), None))
