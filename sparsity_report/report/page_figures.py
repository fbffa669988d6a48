"""A chart in a page: live where scripts run, a picture where they do not, and its data."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import altair as alt
from markupsafe import Markup

from sparsity_report.draw import export
from sparsity_report.report.tables.table_model import Table

#: The page gives the paper, so that one drawing serves by day and by night.
SEE_THROUGH = {"background": "transparent"}


class Figure(NamedTuple):
    """A chart in the page, and its data."""

    key: str
    caption: str
    alt: str
    picture: Markup
    spec: Markup
    table: Table


def figure_of(chart: alt.TopLevelMixin, table: Table, key: str = "") -> Figure:
    """Return a chart for the page, its data beside it; `key` is that of the table if not given."""
    key = key or table.key
    spec = chart.to_dict(validate=False)
    spec |= SEE_THROUGH
    spec["config"]["padding"] |= {"left": 0, "top": 0, "bottom": 0}
    picture = export.svg(spec, key)
    del spec["$schema"]
    return Figure(key, table.caption, spec["description"], Markup(picture), as_json(spec), table)


def as_json(value: Any) -> Markup:
    """Write JSON that no HTML parser can take for the end of its script."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for risky in "<>&\u2028\u2029":
        text = text.replace(risky, f"\\u{ord(risky):04x}")
    return Markup(text)
