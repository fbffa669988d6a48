"""Sections of a report on two studies."""

from collections.abc import Iterator
from typing import Any

from sparsity_report.draw import theme
from sparsity_report.findings.difference import Difference
from sparsity_report.report.sections import Block, Text, document, titled
from sparsity_report.report.tables import difference_tables as tables
from sparsity_report.untrusted.display_text import clip
from sparsity_report.words.sentences import say

# Most rows of a table.
_ROWS = 6_000


def difference_document(
    difference: Difference, names: tuple[str, str] | None = None
) -> dict[str, Any]:
    """Return the values that the templates of a difference show, in the language in use."""
    studies = (difference.before, difference.after)
    before, after = names or [f"{theme.model_names(s)} ({s.fingerprint})" for s in studies]
    totals = tables.totals(difference) if difference else None
    moved, measured = tables.moved(difference, _ROWS), tables.measured(difference)
    sections = titled(
        {
            "totals": ("caption.totals", [totals]),
            "moved": ("difference.layers_heading", [moved]),
            "measured": ("difference.measurements_heading", [measured]),
            "modules": ("difference.modules_changed", _modules(difference)),
        }
    )
    return document(
        sections,
        names=[before, after],
        heading=say("difference.heading"),
        title=say("difference.page_title", before=clip(before, 80), after=clip(after, 80)),
        findings=difference.sentences(),
    )


def _modules(difference: Difference) -> Iterator[Block]:
    number = int(difference.changes["module_name"].notna().sum())
    if number:
        table = tables.modules(difference, _ROWS)
        if number > len(table.rows):
            yield Text(say("difference.changes_shown", shown=len(table.rows), count=number))
        yield table
