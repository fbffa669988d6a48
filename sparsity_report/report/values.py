"""Everything a report shows, as plain values: made once, for HTML and PDF alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup

import sparsity_report
from sparsity_report.draw import charts
from sparsity_report.draw import measured as measured_charts
from sparsity_report.draw.slider import slider
from sparsity_report.errors import printable
from sparsity_report.findings.difference import TOTALS, Difference, name_of, written
from sparsity_report.findings.measured import LAYOUT_NAMES
from sparsity_report.findings.summary import baseline, conventions, summarize
from sparsity_report.study.layers import records
from sparsity_report.study.study import Comparison
from sparsity_report.words.language import spoken
from sparsity_report.words.numbers import (
    count,
    duration,
    figures,
    percent_text,
    scaled_text,
    shape,
    span,
    times,
)
from sparsity_report.words.sentences import level, message, say, say_note

_EXTREMES = 10
_SCOPES = ("prunable", "model")
_LOSSLESS = {True: message("yes"), False: message("no"), None: message("unknown")}
# Rows of all variants' layers up to which the page holds them as a table; beyond, as data.
_ROWS = 6_000


class Table(NamedTuple):
    """What a chart shows, for those who cannot see it: column heads and rows of text."""

    head: list[str]
    rows: list[list[str]]


class Layers(NamedTuple):
    """All modules of a variant: rows of a table, or where they are too many their data as JSON."""

    variant: str
    modules: int
    rows: list[dict[str, Any]]
    data: Markup | None


class Figure(NamedTuple):
    """A chart in the page: live where scripts run, a picture where they do not."""

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


def context(study: Comparison) -> dict[str, Any]:
    """Everything the templates may show, as plain values, in the language that is spoken.

    A section whose own key is None here is left out of the report.
    """
    asked = [level(share) for share in study.variants["asked_sparsity"].dropna().unique()]
    return {
        "language": spoken(),
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
        "slider": _slider(study),
        "layers": _layers(study),
        "audit": study.audit,
        "unusual": _unusual(study),
        "notes": [say_note(note) for note in study.notes],
        "layouts": _layouts(study),
        "measured": _measured(study) or None,
        "unclassified": list(study.unclassified),
        "conventions": conventions(study),
        "convention": study.convention,
        "context": study.context,
        "active": bool((study.totals["active_total"] != study.totals["total"]).any()),
        "program": f"sparsity-report {sparsity_report.__version__}",
        "version": sparsity_report.__version__,
        "fingerprint": study.fingerprint,
    }


def difference_context(
    difference: Difference, names: tuple[str, str] | None = None
) -> dict[str, Any]:
    """Everything the template of what changed may show."""
    studies = (difference.before, difference.after)
    before, after = names or (f"{charts.model_names(s)} ({s.fingerprint})" for s in studies)
    changes = difference.changes[difference.changes["module_name"].notna()]
    return {
        "language": spoken(),
        "before": before,
        "after": after,
        "sentences": difference.sentences(),
        "totals": _totals_side_by_side(*studies) if difference else [],
        "modules": [
            {
                "variant": row["variant"],
                "module": row["module_name"],
                "what": name_of(row["what"]),
                "before": _cell(row["what"], row["before"]),
                "after": _cell(row["what"], row["after"]),
            }
            for row in records(changes.head(_ROWS))
        ],
        "number": len(changes),
        "program": f"sparsity-report {sparsity_report.__version__}",
    }


def _cell(what: str, value: Any) -> str:
    """Write a fact as tables do, with thin spaces between thousands."""
    text = written(what, value)
    return text.replace(spoken().thousands, "\u202f") if isinstance(value, Real) else text


def _totals_side_by_side(*studies: Comparison) -> list[dict[str, str]]:
    old, new = (study.totals.set_index("variant") for study in studies)
    return [
        {
            "variant": str(variant),
            "what": name_of(what),
            "before": _cell(what, old[what].get(variant)),
            "after": _cell(what, new[what].get(variant)),
        }
        for variant in dict.fromkeys([*old.index, *new.index])
        for what in TOTALS
    ]


def _cards(study: Comparison) -> list[dict[str, str]]:
    """Return the numbers people look for first: large, what it is of, and of which variant."""
    totals = study.totals.set_index("variant")
    base = baseline(study)
    first, reference = (charts.distinct_prunings(study) or [base])[0], totals.loc[base]
    row = totals.loc[first]
    of_base = say("of {variant}", variant=_clip(base))
    cards = [
        (say("Parameters"), scaled_text(reference["total"], ""), of_base),
        (say("Prunable weights"), scaled_text(reference["prunable_total"], ""), of_base),
        (
            say("Zeros"),
            percent_text(row["sparsity_prunable"]),
            say("of the prunable weights, {variant}", variant=_clip(first)),
        ),
        (
            say("Zeros"),
            percent_text(row["sparsity_model"]),
            say("of all parameters, {variant}", variant=_clip(first)),
        ),
    ]
    sparse = [str(v) for v in totals.index[totals["layout"] == "csr"] if v != base]
    if sparse:
        own = totals.loc[sparse[0]]
        against = f"{_clip(sparse[0])} ÷ {_clip(base)}"
        for title, column in (
            (say("Stored bytes"), "stored_bytes"),
            (say("FLOPs per token"), "flops_per_token"),
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
    picture = charts.svg(spec, key)
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
    table = Table([say("Group"), *pivot.columns], rows)
    caption = say("{title}: {note}.", title=say(look.title), note=say(look.note))
    return _figure(look.file, charts.group_bars(study, metric), caption, table)


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
        say(
            "{variant}: share of zeros per weight matrix, block by projection.",
            variant=_clip(variant),
        ),
        Table([say("Block"), *wide.index], rows),
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
    caption = say(
        "Bytes of the prunable weights in each layout, from integers, row pointers included."
    )
    head = [say("Sparsity"), *(say(layout) for layout in wide.columns)]
    return _figure("curve", chart, caption, Table(head, rows))


def _layouts(study: Comparison) -> list[tuple[str, Table]]:
    """Return per pruning the bytes of the prunable weights and of the model in every layout."""
    frame = study.storage
    tables = []
    for variant in charts.distinct_prunings(study):
        own = frame[(frame["variant"] == variant) & frame["bytes"].notna()]
        parts = {scope: own[own["scope"] == scope].set_index("layout") for scope in _SCOPES}
        weights, model = parts.values()
        rows = [
            [
                say(LAYOUT_NAMES[row["layout"]]),
                count(row["bytes"]),
                times(row["ratio"]),
                count(model["bytes"].get(row["layout"])),
                times(model["ratio"].get(row["layout"])),
                percent_text(row["break_even"]),
                say(_LOSSLESS[row["lossless"] if pd.notna(row["lossless"]) else None]),
            ]
            for row in records(weights.reset_index())
        ]
        head = [
            say("Layout"),
            say("Prunable weights"),
            say("÷ dense"),
            say("Whole model"),
            say("÷ dense"),
            say("Break-even"),
            say("Lossless"),
        ]
        tables.append((variant, Table(head, rows)))
    return tables


def _measured(study: Comparison) -> list[Measured]:
    """Return charts and tables of speed, crossover, quality and sensitivity, as far as known."""
    found = []
    if (frame := study.latency) is not None and not frame.empty:
        table = _table(
            frame,
            {
                say("Variant"): lambda row: row["variant"],
                say("What"): lambda row: row["name"],
                say("Tokens"): lambda row: count(row["tokens"]),
                say("Median"): lambda row: duration(row["seconds"]),
                say("Quartiles"): lambda row: span(row["seconds_low"], row["seconds_high"]),
                say("Promised"): lambda row: times(row["promised_speedup"]),
                say("Realised"): lambda row: times(row["realised_speedup"]),
                say("Kernel"): lambda row: row["kernel"],
            },
        )
        caption = say("Measured time per call on {machine}.", machine=frame["machine"].iloc[0])
        found.append(_with_chart(study, "speed", caption, table))
        if frame["crossover_sparsity"].notna().any():
            layers = frame[frame["scope"] == "layer"].drop_duplicates(["name", "tokens"])
            table = _table(
                layers,
                {
                    say("Shape"): lambda row: row["name"],
                    say("Tokens"): lambda row: count(row["tokens"]),
                    say("Sparsity"): lambda row: percent_text(row["crossover_sparsity"], 0),
                },
            )
            caption = say("Sparsity from which a CSR layer is faster than the dense one.")
            found.append(_with_chart(study, "crossover", caption, table))
    if (frame := study.quality) is not None and not frame.empty:
        table = _table(
            frame,
            {
                say("Variant"): lambda row: row["variant"],
                say("Sparsity"): lambda row: percent_text(row["sparsity"]),
                say("Perplexity"): lambda row: figures(row["perplexity"], ",.2f"),
                say("First guesses right"): lambda row: percent_text(row["top1"]),
                say("Text"): lambda row: row["text"],
                say("Tokens scored"): lambda row: count(row["scored"]),
                say("Window / stride"): lambda row: (
                    f"{count(row['window'])} / {count(row['stride'])}"
                ),
                say("Dtype"): lambda row: row["dtype"],
            },
        )
        prints = ", ".join(dict.fromkeys(f"{f}" for f in frame["text_fingerprint"]))
        caption = say("Perplexity and next-token accuracy; text {prints}.", prints=prints)
        found.append(_with_chart(study, "quality", caption, table))
    if (frame := study.sensitivity) is not None and not frame.empty:
        table = _table(
            frame,
            {
                say("Part"): lambda row: row["part"],
                say("Weights"): lambda row: count(row["weight_total"]),
                say("Sparsity"): lambda row: percent_text(row["sparsity"]),
                say("Perplexity"): lambda row: figures(row["perplexity"], ",.2f"),
                say("Nats per token more"): lambda row: figures(row["nll_increase"], "+.4f"),
                say("First guesses lost"): lambda row: percent_text(row["top1_drop"], 2),
                say("Globally pruned"): lambda row: percent_text(row["global_sparsity"]),
            },
        )
        caption = say("One part pruned at a time, all others as they are.")
        found.append(_with_chart(study, "sensitivity", caption, table))
    return found


def _table(frame: pd.DataFrame, columns: Mapping[str, Callable[[dict[str, Any]], str]]) -> Table:
    """Write a frame as text, each column by its head."""
    rows = [[show(row) for show in columns.values()] for row in records(frame)]
    return Table([*columns], rows)


def _with_chart(study: Comparison, key: str, caption: str, table: Table) -> Measured:
    chart = measured_charts.CHARTS[key](study)
    figure = None if chart is None else _figure(key, chart, caption, table)
    return Measured(caption, figure, table)


def _slider(study: Comparison) -> dict[str, Any] | None:
    made = slider(study)
    if made is None:
        return None
    numbers = made._asdict() | {"marks": [(_clip(name), at) for name, at in made.marks]}
    tenths = [place for place, at in enumerate(made.levels) if round(100 * at) % 10 == 0]
    return {
        "data": _json(numbers),
        "start": made.start,
        "steps": len(made.levels),
        "rows": [made.row(place) for place in tenths],
        "slack": made.slack,
        "break_even": made.break_even,
    }


def _layers(study: Comparison) -> list[Layers]:
    """Rows where they are few; else columns of data, those a variant shares with the first once."""
    found: list[Layers] = []
    first: dict[str, Any] = {}
    for name, own in study.layers.groupby("variant", sort=False):
        if len(study.layers) <= _ROWS:
            found.append(Layers(str(name), len(own), _records(own), None))
            continue
        columns = {
            "name": [printable(module, 2000) for module in own["module_name"]],
            "tied": [None if pd.isna(t) else printable(t, 2000) for t in own["tied_to"]],
            "group": [charts.group_name(group) for group in own["group"]],
            "shape": [shape(sizes) for sizes in own["shape"]],
            "stored": [f"{a} {b}" for a, b in zip(own["layout"], own["dtype"], strict=True)],
            **{
                key: [None if pd.isna(n) else int(n) for n in own[key]]
                for key in (
                    "total",
                    "nonzero",
                    "flops_per_token",
                    "useful_flops_per_token",
                    "stored_bytes",
                )
            },
        }
        known = {key: cells for key, cells in columns.items() if cells != first.get(key)}
        first = first or columns
        found.append(Layers(str(name), len(own), [], _json(known)))
    return found


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
