"""Theme of all charts: colors, fonts, sizes, and the notation of numbers on axes.

Vega expressions contain text and numbers of this package only, never names of models or modules.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.layers import records
from sparsity_report.study.policy_names import any_level
from sparsity_report.words import number_format

# Helvetica, Arial and Liberation Sans are equally wide. vl-convert measures with its own copy of
# Liberation Sans. A browser without any of the three uses Sparsity Sans, a subset in the page.
FAMILY = "Helvetica, Arial, 'Liberation Sans', 'Sparsity Sans', sans-serif"
_TYPEFACE = Path(__file__).parent / "typeface" / "sparsity-sans-regular.woff2"

TEXT_WIDTH = round(16 * 72 / 2.54)
# Width on a page: on a phone of 390 pixels, the smallest text has 10.
PAGE_WIDTH = 320
# Width of a column of a paper, below which labels are short.
NARROW = 260
INK, MUTED, GRID = "#222222", "#666666", "#e4e4e4"
BLUE, VERMILLION, BLACK, GREEN = "#0072B2", "#D55E00", "#000000", "#009E73"
PURPLE, OCHRE, WINE, INDIGO, BROWN = "#CC79A7", "#8F6A00", "#B0457B", "#7A66C8", "#8C5A3C"
DASHES: tuple[list[float], ...] = ([1, 0], [6, 3], [2, 3], [8, 3, 2, 3], [10, 3])
SOLID, DASHED, DOTTED, DASH_DOT, LONG = DASHES
# Font sizes in points of labels and of titles.
LABEL, TITLE = 9, 12
# Height of a map's row.
ROW = 20

_WRITERS: Mapping[str, Callable[[Any], str]] = {
    "share": partial(number_format.percent, space=" "),
    "points": number_format.points,
    "nats": lambda value: number_format.figures(value, "+.3f").replace("-", "−"),
    "own": lambda value: number_format.figures(value, "#.2g").replace("-", "−"),
    "ratio": partial(number_format.times, space=" "),
}
# Numbers with too many digits.
_TINY, _HUGE = "(datum.value && abs(datum.value) < 0.001)", "abs(datum.value) >= 100000"


def write(value: Any, kind: str) -> str:
    """Write a value in the notation of :attr:`.Format.axis`; an unknown value is a dash.

    Examples
    --------
    >>> write(0.3, "share"), write(1.329, "ratio"), write(786432, "number"), write(None, "share")
    ('30.0 %', '1.33 ×', '786k', '–')
    >>> write(-0.05, "points")
    '−5.0'
    """
    if number_format.known(value) and math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return _WRITERS.get(kind, partial(number_format.scaled, space=""))(value)


def tick(kind: str) -> str:
    """Return the Vega expression for the ticks of an axis or a legend."""
    return {
        "share": "format(100 * datum.value, '~r') + ' %'",
        "points": "datum.value == 0 ? '0' : format(100 * datum.value, '+~r')",
        "nats": "datum.value == 0 ? '0' : format(datum.value, '+~r')",
        "ratio": "format(datum.value, '~r') + ' ×'",
        "plain": "datum.label",
        "own": f"format(datum.value, {_TINY} || {_HUGE} ? '~e' : '~r')",
    }.get(kind, "format(datum.value, '~s')")


def quoted(text: str) -> str:
    """Return text of this package as a literal of a Vega expression."""
    plain = re.sub(r"[\\\x00-\x1f\u2028\u2029]", " ", text)
    return "'" + plain.replace("'", "\\'") + "'"


def log_ticks(low: float, high: float, few: bool = False) -> list[float]:
    """Return ticks of a logarithmic axis at 1, 2 and 5: fewer on a long axis, even ones on a short.

    Examples
    --------
    >>> log_ticks(12.3, 80), log_ticks(12.9, 15.2)
    ([15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0], [13.0, 13.5, 14.0, 14.5, 15.0])
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps: tuple[float, ...] = (1, 2, 5) if high / low < 1000 else (1,)
    if high / low < 8 and not few:
        steps = (1, 1.5, 2, 3, 4, 5, 6, 8)
    marks = [float(f"{step}e{power}") for power in powers for step in steps]
    ticks = [mark for mark in marks if low <= mark <= high]
    if few or len(ticks) > 2:
        return ticks
    unit = 10 ** math.floor(math.log10(high - low))
    step = next(step for step in (0.2 * unit, 0.5 * unit, unit, 2 * unit) if high - low < 6 * step)
    return [round(k * step, 12) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


class Style(NamedTuple):
    """Color and dash of a policy."""

    color: str
    dash: list[float]


#: Styles of unpruned models and of known policies, in every chart of every study.
STYLES = {
    "": Style(BLUE, SOLID),
    "global_magnitude": Style(VERMILLION, DOTTED),
    "layerwise_magnitude": Style(GREEN, DASHED),
    "wanda_one_pass": Style(PURPLE, SOLID),
    "N:M": Style(OCHRE, DASH_DOT),
    "wanda_one_pass, N:M": Style(WINE, DASH_DOT),
}
_FURTHER = (Style(INDIGO, LONG), Style(BROWN, DASHED), Style("#117733", DOTTED), Style(MUTED, LONG))


def styles(study: StudyFigures, further: Iterable[str] = ()) -> dict[str, Style]:
    """Return styles with the names of :func:`policies` as keys, those of a study included.

    Policies without a style, the `further` ones last, share those that remain.
    """
    names = dict.fromkeys([*policies(study).values(), *further])
    unknown = [name for name in names if name not in STYLES]
    return STYLES | dict(zip(unknown, cycle(_FURTHER), strict=False))


def policies(study: StudyFigures) -> dict[str, str]:
    """Return the policy of each variant, at any level and in any layout.

    It is empty for an unpruned model; for one pruned before, it is the name of its first variant.
    """
    before = {v: first for first, names in study.facts.already_pruned.items() for v in names}
    return {
        row["variant"]: before.get(row["variant"], any_level(row["method"] or _rule(row)))
        for row in records(study.variants)
    }


def _rule(row: Mapping[str, Any]) -> str:
    return (row["expert_score"] or "").split(", ")[0]


def config() -> dict[str, Any]:
    """Return the configuration of a chart."""
    signs = {"decimal": ".", "thousands": number_format.THIN}
    text = {
        "labelColor": INK, "labelFontSize": LABEL,
        "titleColor": MUTED, "titleFontSize": LABEL, "titleFontWeight": "normal",
    }  # fmt: skip
    return {
        "font": FAMILY,
        "padding": dict.fromkeys(("left", "top", "right", "bottom"), 4),
        "view": {"stroke": None},
        "title": {
            "anchor": "start", "frame": "bounds", "offset": 12,
            "fontSize": TITLE, "color": INK,
            "subtitleFontSize": LABEL, "subtitleColor": MUTED, "subtitlePadding": 4,
        },
        "axis": {
            **text, "gridColor": GRID, "domainColor": MUTED,
            "tickColor": MUTED, "tickSize": 4, "titlePadding": 8, "labelFlush": False,
        },
        "legend": {
            **text, "gradientThickness": 10, "symbolStrokeWidth": 1.4, "rowPadding": 4,
            "offset": 12,
        },
        "locale": {"number": {**signs, "grouping": [3], "currency": ["", ""]}},
    }  # fmt: skip


@lru_cache(maxsize=1)
def font_face_css() -> str:
    """Return style rules that embed Sparsity Sans in a page or an SVG (25 kB).

    The font is a ``data:`` URL, which a content security policy allows with ``font-src data:``.
    Browsers make its bold letters.
    """
    data = base64.b64encode(_TYPEFACE.read_bytes()).decode("ascii")
    source = f"url(data:font/woff2;base64,{data}) format('woff2')"
    return f"@font-face {{ font-family: 'Sparsity Sans'; src: {source}; }}"
