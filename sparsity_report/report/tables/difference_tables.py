"""Tables of differences between two studies."""

from typing import Any

import pandas as pd

from sparsity_report.findings.difference import TOTALS, Difference, Match, distinct
from sparsity_report.findings.difference_findings import format_of, measured_sides, name_of
from sparsity_report.report.tables.column_heads import columns_of
from sparsity_report.report.tables.table_model import Body, Table, name, rows_of, table_of
from sparsity_report.study.layers import records
from sparsity_report.untrusted.display_text import clip
from sparsity_report.words.sentences import say

_MEASURED = {"perplexity": "label.perplexity", "speed": "chart.speed_up_over_base"}


def totals(difference: Difference) -> Table | None:
    """Return every total of the variants that two studies have, side by side; None of none."""
    old, new = (s.totals.set_index("variant") for s in (difference.before, difference.after))
    columns = columns_of("what before after")
    bodies = []
    for match in difference.matches:
        values = []
        for figure in TOTALS:
            sides = zip((old, new), match, strict=True)
            before, after = (_text(figure, frame[figure].get(name)) for frame, name in sides)
            row = {"what": str(name_of(figure)), "before": before, "after": after}
            values.append({**row, "row_style": "changed" if before != after else ""})
        bodies.append(Body(rows_of(columns, values), clip(match.name, 80)))
    caption = say("caption.totals_before_after")
    return Table("totals", caption, tuple(columns), tuple(bodies), "groups") if bodies else None


def modules(difference: Difference, limit: int) -> Table:
    """Return changes of modules, at most `limit` rows."""
    changes = difference.changes[difference.changes["module_name"].notna()]
    values = [
        {
            **row,
            "what": str(name_of(row["what"])),
            **{side: _text(row["what"], row[side]) for side in ("before", "after")},
        }
        for row in records(changes.head(limit))
    ]
    columns = columns_of("variant module_name what before after")
    columns[1] = columns[1]._replace(kind=name(200))
    return table_of("modules", say("difference.modules_changed"), columns, values, "sortable")


def moved(difference: Difference, limit: int) -> Table | None:
    """Return layers whose zeros moved, most first, at most `limit` rows; None of none.

    Of variants with the same zeros, such as Masked30 and CSR30, the first has them.
    """
    frame = difference.moved[difference.moved["zeros_before"] != difference.moved["zeros_after"]]
    first = distinct(difference.matches, difference.moved)
    pairs = zip(frame["variant_before"], frame["variant_after"], strict=True)
    frame = frame[[pair in first for pair in pairs]]
    if frame.empty:
        return None
    rows = frame.sort_values("moved", key=abs, ascending=False, kind="stable").head(limit)
    keys = "variant module_name weight_total zeros_before zeros_after"
    columns = columns_of(f"{keys} sparsity_before sparsity_after moved")
    columns[0] = columns[0]._replace(kind=name(80))
    caption = say(
        "caption.layers_zeros_changed"
        if len(rows) == len(frame)
        else "caption.layers_zeros_changed_first",
        shown=len(rows),
        count=len(frame),
    )
    return table_of("moved", caption, columns, _named(rows), "sortable")


def measured(difference: Difference) -> Table | None:
    """Return measurements that both studies have; None without any."""
    frame = difference.measured
    if frame.empty:
        return None
    values = []
    for row in records(_named(frame)):
        before, after = map(str, measured_sides(row))
        speed = row["what"] == "speed"
        note = say("difference.within_noise") if speed and not row["apart"] else ""
        values.append(
            {
                "variant": row["variant"],
                "what": say(_MEASURED[row["what"]], base=difference.speed_base),
                "of": say("format.token_count", tokens=int(row["of"])) if speed else row["of"],
                "before": before,
                "after": after,
                "after_note": note,
            }
        )
    columns = columns_of("variant what of before after")
    columns[0] = columns[0]._replace(kind=name(80))
    columns[2] = columns[2]._replace(kind=name(200))
    return table_of("measured", say("caption.comparable_measurements"), columns, values)


def _text(fact: str, value: Any) -> str:
    return say("format.value", value=value, format=format_of(fact, value))


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the name of their match as ``variant``."""
    pairs = zip(frame["variant_before"], frame["variant_after"], strict=True)
    return frame.assign(variant=[Match(*pair).name for pair in pairs])
