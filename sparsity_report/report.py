"""A study as one self-contained HTML file that opens anywhere, offline, and never loads anything.

Jinja2 writes the structure; Python hands it plain values, which reach the page escaped.
"""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, select_autoescape
from markupsafe import Markup, escape

import sparsity_report
from sparsity_report import charts
from sparsity_report.comparison import Comparison
from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.files import write_file
from sparsity_report.findings import baseline, conventions, summarize
from sparsity_report.structure import records
from sparsity_report.wording import percent, scaled

_MISSING = "–"
_THIN_SPACE = "\u202f"
_EXTREMES = 10
_DIRECTIONS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")


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


def write_report(
    study: Comparison,
    path: str | os.PathLike[str],
    *,
    template_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Write a study as one HTML file with everything in it: numbers, charts, tables, conventions.

    Parameters
    ----------
    study : Comparison
    path : path-like
        Ends in ``.html``.
    template_dir : path-like, optional
        Files here stand in for the package's own of the same name, such as ``report.css``.

    Returns
    -------
    pathlib.Path
        The path written.

    Raises
    ------
    SparsityReportError
        Another file type is asked for, a template is at fault, or the file cannot be written.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> import tempfile
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sr.write_report(study, f"{folder}/report.html").name
    'report.html'
    """
    target = Path(path)
    if target.suffix.lower() != ".html":
        raise SparsityReportError(f"cannot write {target}: reports are .html files")
    try:
        page = environment(template_dir).get_template("report.html.j2").render(_context(study))
    except TemplateError as error:
        raise SparsityReportError(
            f"cannot render the report: {error!r}; check template_dir"
        ) from error
    return write_file(target, page)


def environment(template_dir: str | os.PathLike[str] | None = None) -> Environment:
    """Return the one Jinja2 environment: the user's templates first, then the package's.

    HTML templates escape every value; an undefined one is an error.

    Examples
    --------
    >>> environment().from_string("{{ 1234567 | count }} {{ none | percent }}").render()
    '1\u202f234\u202f567 –'
    """
    if template_dir is not None and not Path(template_dir).is_dir():
        raise SparsityReportError(f"template_dir {template_dir} is not a folder")
    here = Path(__file__).parent
    # Installed, the templates are inside the package; in an editable checkout they are beside it.
    folders = [here / "templates", here.parent / "templates"]
    if template_dir is not None:
        folders.insert(0, Path(template_dir))
    made = Environment(
        loader=FileSystemLoader(folders),
        autoescape=select_autoescape(["html", "html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "count": _count,
        "percent": _percent,
        "scaled": _scaled,
        "times": _times,
        "shape": _shape,
        "group": charts.group_name,
        "clip": lambda text, limit=80: printable(str(text), limit),
        "unbroken": _unbroken,
    }
    return made


def _count(number: Any) -> str:
    return _MISSING if pd.isna(number) else f"{int(number):,}".replace(",", _THIN_SPACE)


def _percent(share: Any, digits: int = 1) -> str:
    return _MISSING if pd.isna(share) else percent(share, digits).replace(" ", _THIN_SPACE)


def _scaled(number: Any, unit: str) -> str:
    return _MISSING if pd.isna(number) else scaled(number, unit).replace(" ", _THIN_SPACE)


def _times(ratio: Any) -> str:
    return _MISSING if pd.isna(ratio) else f"{ratio:.2f}{_THIN_SPACE}×"


def _shape(shape: Any) -> str:
    return " × ".join(str(n) for n in shape).replace(" ", _THIN_SPACE)


def _unbroken(sentence: str) -> Markup:
    """Keep numbers with their percent signs, and names from turning the text around them."""
    steady = _DIRECTIONS.sub(lambda mark: f"\\u{ord(mark[0]):04x}", sentence)
    text = re.sub(r"([\d.]+ %)", r'<span class="unbroken">\1</span>', str(escape(steady)))
    return Markup(text)


def _context(study: Comparison) -> dict[str, Any]:
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
        "script": _bundle(),
    }


def _cards(study: Comparison) -> list[dict[str, str]]:
    """Return the numbers people look for first: large, what it is of, and of which variant."""
    totals = study.totals.set_index("variant")
    base = baseline(study)
    first, reference = (charts.distinct_prunings(study) or [base])[0], totals.loc[base]
    row = totals.loc[first]
    cards = [
        ("Parameters", _scaled(reference["total"], ""), f"of {_clip(base)}"),
        ("Prunable weights", _scaled(reference["prunable_total"], ""), f"of {_clip(base)}"),
        ("Zeros", _percent(row["sparsity_prunable"]), f"of the prunable weights, {_clip(first)}"),
        ("Zeros", _percent(row["sparsity_model"]), f"of all parameters, {_clip(first)}"),
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
            cards.append((title, _times(ratio), against))
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


@lru_cache(maxsize=1)
def _bundle() -> Markup:
    # The types of vl_convert ask for a snippet, its documentation does not.
    bundle: str = vl_convert.javascript_bundle(vl_version=charts.VEGALITE)  # type: ignore[call-arg]
    return Markup(re.sub(r"<(?=/script|!--)", r"\\x3c", bundle, flags=re.IGNORECASE))


def _comparison(study: Comparison, metric: str) -> Figure:
    look = charts.METRICS[metric]
    show = _percent if look.share else _count
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
    rows = [[str(block), *(_percent(cell) for cell in wide[block])] for block in wide.columns]
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
        [_percent(share, 0), *(_count(cell) for cell in row)]
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
