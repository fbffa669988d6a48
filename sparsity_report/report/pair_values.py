"""Everything that a report of two checkpoints shows, as plain values, for HTML and PDF alike."""

from __future__ import annotations

from typing import Any

import sparsity_report
from sparsity_report.draw.pair_charts import (
    both,
    difference_chart,
    overlap_charts,
    overlap_colours,
    strip_charts,
)
from sparsity_report.draw.small_multiples import WIDTH
from sparsity_report.draw.vega import unchecked
from sparsity_report.errors import printable
from sparsity_report.report.page_figures import Figure, figure_of
from sparsity_report.report.sparsity_figures import Multiples
from sparsity_report.report.tables import pair_tables
from sparsity_report.study.layers import records
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.untrusted.display_text import short_name
from sparsity_report.words.column_titles import head
from sparsity_report.words.display_names import display_name
from sparsity_report.words.languages import spoken
from sparsity_report.words.number_format import known, percent, scaled
from sparsity_report.words.sentences import say, say_note, say_noted

# Rows of what is gone, and of modules, that a page and a paper hold.
_ROWS, _ON_PAPER = 6_000, 200
# Width of a small matrix where three share a line of paper.
_SMALLER = 170
_MANY = "pair.strip_too_many"


@unchecked()
def pair_context(pair: Pair, paper: bool = False) -> dict[str, Any]:
    """Return what the templates of two checkpoints may show, in the language that is spoken.

    A section whose own key is None here is left out of the report.
    """
    limit = _ON_PAPER if paper else _ROWS
    first, *others = pair.sentences()
    strips, untold = _strips(pair)
    removed = pair_tables.removed(pair, limit)
    return {
        "language": spoken(),
        "models": both(pair),
        "before": str(pair.models["model"].iloc[0]),
        "after": str(pair.models["model"].iloc[1]),
        "verdict": first,
        "findings": others,
        "cards": _cards(pair),
        "difference": _difference(pair),
        "removed": removed,
        "strips": strips,
        "untold": untold,
        "overlap": _overlap(pair, _SMALLER if paper else WIDTH),
        "least": pair_tables.extremes(pair),
        "survival": pair_tables.survival(pair),
        "tables": {
            "totals": pair_tables.totals(pair),
            "groups": pair_tables.groups(pair),
            "sparsities": pair_tables.sparsities(pair),
            "models": pair_tables.models(pair),
        },
        "layers": pair_tables.layers(pair, limit),
        "notes": [
            printable(say_note(note)) for note in pair.notes if say_noted(note) not in others
        ],
        "program": f"sparsity-report {sparsity_report.__version__}",
        "version": sparsity_report.__version__,
    }


def _difference(pair: Pair) -> Figure | None:
    chart, table = difference_chart(pair), pair_tables.difference(pair)
    return None if chart is None or table is None else figure_of(chart, table)


def _strips(pair: Pair) -> tuple[list[Figure], list[str]]:
    """Return the strips that can be drawn, and what is said of the others."""
    figures, untold = [], []
    for strip, chart in strip_charts(pair):
        if chart is None:
            number = sum(row.among for row in strip.rows)
            untold.append(say(_MANY, number=number, kind=display_name("kind", strip.kind)))
        else:
            figures.append(figure_of(chart, pair_tables.strip(strip)))
    return figures, untold


def _overlap(pair: Pair, width: float) -> Multiples | None:
    """Return the small matrices of zeros before and after, and their colours."""
    table = pair_tables.survival(pair)
    figures = [
        figure_of(chart, table, f"overlap{place}")
        for place, (_, chart) in enumerate(overlap_charts(pair, width))
    ]
    if not figures:
        return None
    return Multiples(figures, figure_of(overlap_colours(), table, "overlap-colours"))


def _cards(pair: Pair) -> list[dict[str, str]]:
    """Return the numbers people look for first, as far as they are known."""
    totals = {row["figure"]: row for row in records(pair.totals)}
    weights, stored = totals["prunable_weights"], totals["stored_bytes"]
    zeros, kept = records(pair.sparsities)[0], records(pair.survival)[0]
    after = short_name(pair.models["model"].iloc[1])
    cards = []
    if weights["before"]:
        note = say("card.of_prunable_base", before=scaled(weights["before"]))
        cards.append((head("removed"), percent(pair.taken / weights["before"]), note))
    if known(zeros["sparsity_itself"]):
        note = say("card.of_prunable_after", after=after)
        cards.append((head("sparsity_itself"), percent(zeros["sparsity_itself"]), note))
    if known(kept["kept_share"]):
        note = say("card.of_zeros_base", zeros=scaled(kept["zeros_before"]))
        cards.append((head("kept"), percent(kept["kept_share"]), note))
    if known(stored["after"]) and known(stored["before"]):
        note = say("card.stored_before", before=scaled(stored["before"], "B"))
        cards.append((say("card.remaining_bytes"), scaled(stored["after"], "B"), note))
    return [{"title": title, "number": number, "note": note} for title, number, note in cards]
