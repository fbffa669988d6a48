"""Sections of a report on two studies, and their tables."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from sparsity_report.draw import theme
from sparsity_report.findings.difference import TOTALS, Difference, Match, distinct
from sparsity_report.findings.difference_findings import (
    difference_topics,
    difference_verdict,
    format_of,
    measured_sides,
    name_of,
)
from sparsity_report.report.sections import Block, Fold, Text, document, titled
from sparsity_report.report.tables.column_heads import caption_of, columns_of
from sparsity_report.report.tables.table_model import Table, grouped, name, table_of
from sparsity_report.study.layers import records
from sparsity_report.untrusted.display_text import clip
from sparsity_report.words.sentences import say

_MEASURED = {"perplexity": "label.perplexity", "speed": "chart.speed_up_over_base"}
# Most rows of a table.
_ROWS = 6_000


def difference_document(
    difference: Difference, names: tuple[str, str] | None = None
) -> dict[str, Any]:
    """Return the values that the templates of a difference show."""
    studies = (difference.before, difference.after)
    before, after = names or [f"{theme.model_names(s)} ({s.fingerprint})" for s in studies]
    verdict = difference_verdict(difference)
    texts = {
        topic: [Text(str(finding)) for finding in findings if finding not in verdict]
        for topic, findings in difference_topics(difference).items()
    }
    layers = moved(difference, _ROWS)
    sections = titled(
        {
            "measured": ("difference.measurements_heading", [measured(difference)]),
            "totals": ("difference.totals_heading", [*texts["totals"], totals(difference)]),
            "moved": ("difference.layers_heading", [*texts["moved"], *_folded(layers)]),
            "modules": ("difference.modules_changed", [*texts["modules"], *_modules(difference)]),
        }
    )
    return document(
        sections,
        names=[before, after],
        verdict=" ".join(map(str, verdict)),
        title=say("difference.page_title", before=clip(before, 80), after=clip(after, 80)),
    )


def _modules(difference: Difference) -> Iterator[Block]:
    number = int(difference.changes["module_name"].notna().sum())
    if number:
        table = modules(difference, _ROWS)
        if number > len(table.rows):
            yield Text(say("difference.changes_shown", shown=len(table.rows), count=number))
        yield from _folded(table)


def _folded(table: Table | None) -> Iterator[Block]:
    if table is not None:
        yield Fold(table.caption, (table,))


def totals(difference: Difference) -> Table | None:
    """Return the changed totals of variants that two studies have; None of none."""
    old, new = (s.totals.set_index("variant") for s in (difference.before, difference.after))
    columns = columns_of("what before after")
    variants = []
    for match in difference.matches:
        values = []
        for figure in TOTALS:
            sides = zip((old, new), match, strict=True)
            before, after = (_text(figure, frame[figure].get(name)) for frame, name in sides)
            if before != after:
                values.append({"what": str(name_of(figure)), "before": before, "after": after})
        if values:
            variants.append((clip(match.name, 80), values))
    caption = say("caption.totals_before_after")
    return grouped("totals", caption, columns, variants, "groups") if variants else None


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
    kinds = {"module_name": name(200)}
    columns = columns_of("variant module_name what before after", (1.6, 1), kinds)
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
    keys = "variant module_name weight_total zeros_before zeros_after sparsity_before"
    kinds = {"variant": name(80)}
    columns = columns_of(f"{keys} sparsity_after moved", (1.6, 1), kinds)
    captions = ("caption.layers_zeros_changed", "caption.layers_zeros_changed_first")
    caption = caption_of(*captions, len(rows), len(frame))
    return table_of("moved", caption, columns, _named(rows), "sortable")


def measured(difference: Difference) -> Table | None:
    """Return measurements that both studies have; None without any."""
    frame = difference.measured
    if frame.empty:
        return None
    values = []
    for row in records(_named(frame)):
        before, after = map(str, measured_sides(difference, row))
        speed = row["what"] == "speed"
        scope = say("format.token_count", tokens=int(row["of"])) if speed else row["of"]
        note = say("difference.within_noise") if speed and not row["apart"] else ""
        if pd.notna(row["change_low"]):
            ends = {"low": row["change_low"], "high": row["change_high"]}
            note = say("difference.change_interval", **ends)
        label = say(_MEASURED[row["what"]], base=difference.speed_base)
        shown = {"variant": row["variant"], "what": label, "of": scope, "after_note": note}
        values.append({**shown, "before": before, "after": after})
    kinds = {"variant": name(80), "of": name(200)}
    columns = columns_of("variant what of before after", (1.6, 1), kinds)
    return table_of("measured", say("caption.comparable_measurements"), columns, values)


def _text(fact: str, value: Any) -> str:
    return say("format.value", value=value, format=format_of(fact, value))


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the name of their match as ``variant``."""
    pairs = zip(frame["variant_before"], frame["variant_after"], strict=True)
    return frame.assign(variant=[Match(*pair).name for pair in pairs])
