"""Sections of a report on two checkpoints."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from sparsity_report.draw import pair_charts
from sparsity_report.draw.heat_maps import WIDTH
from sparsity_report.draw.vega import unchecked
from sparsity_report.report import sections
from sparsity_report.report.sections import Block, Drawing, Medium, Text, card, chart_of
from sparsity_report.report.tables import pair_tables
from sparsity_report.study.layers import records
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.study.pairs.pair_cells import ROWS
from sparsity_report.untrusted.display_text import clip
from sparsity_report.viewer.pair_payload import pair_payload
from sparsity_report.words.display_names import display_name, head
from sparsity_report.words.number_format import known, percent, scaled
from sparsity_report.words.pair_labels import both
from sparsity_report.words.sentences import say

# Most rows of removed parts and of modules, by medium.
_ROWS = {"page": 6_000, "paper": 200, "kit": 40}
# Width of a small matrix of which three share a line of paper.
_SMALLER = 170
# Columns that a medium has room for; a page shows all.
_COLUMNS = {
    "removed": {
        "paper": "module gone among numbers weights bytes",
        "kit": "module gone among numbers",
    },
    "survival": {
        "paper": "compared kept revived new kept_share iou changed relative_change",
        "kit": "compared kept revived new kept_share iou changed",
    },
    "least_agreeing": {"kit": "kept revived new iou"},
    "layers": {"paper": "weight_before weight_after kept revived new changed relative_change"},
}
# Parts that are removed, in the names of LaTeX commands of every language.
KINDS = {
    "block": "Blocks", "attention": "Attentions", "mlp": "Mlps", "layer": "Layers",
    "expert": "Experts", "head": "Heads", "kv_head": "KeyValueHeads", "channel": "Channels",
    "vocabulary": "Tokens", "width": "Width",
}  # fmt: skip


@unchecked()
def pair_document(pair: Pair, medium: Medium) -> dict[str, Any]:
    """Return the values that the templates of a pair show, in the language in use."""
    verdict, *findings = pair.sentences()
    notes = [str(n) for n in pair.notes if say("format.note_sentence", note=n) not in findings]
    names = [str(name) for name in pair.models["model"]]
    shown = pair_sections(pair, medium)
    texts = tuple(map(Text, [*findings, *notes]))
    viewer = () if medium.is_paper else (sections.Viewer(pair_payload(pair), None),)
    shown[:1] = [replace(part, blocks=(*texts, *viewer, *part.blocks)) for part in shown[:1]]
    return sections.document(
        shown,
        models=both(pair),
        names=names,
        title=" → ".join(clip(name, 40) for name in names),
        verdict=verdict,
        strip=[*_cards(pair)],
    )


@unchecked()
def pair_sections(pair: Pair, medium: Medium) -> list[sections.Section]:
    """Return the sections of a report on two checkpoints."""
    return sections.titled(
        {
            "difference": ("pair.differences_heading", _difference(pair, medium)),
            "removed": ("pair.removed_heading", _removed(pair, medium)),
            "survival": ("pair.survival_heading", _survival(pair, medium)),
            "totals": ("pair.totals_heading", [pair_tables.totals(pair)]),
            "sparsities": ("page.sparsities_heading", [pair_tables.sparsities(pair)]),
            "groups": ("page.groups_heading", _groups(pair, medium)),
            "layers": ("pair.modules_heading", _layers(pair, medium)),
            "checkpoints": ("pair.checkpoints_heading", _checkpoints(pair, medium)),
        }
    )


def _difference(pair: Pair, medium: Medium) -> Iterator[Block | None]:
    if medium.is_kit:
        yield Drawing("difference", "Difference", partial(pair_charts.difference_chart, pair))
    elif chart := chart_of(pair_charts.difference_chart(pair), pair_tables.difference(pair)):
        yield None if medium.is_paper else Text(say("pair.difference_map_note"))
        yield chart


def _removed(pair: Pair, medium: Medium) -> Iterator[Block | None]:
    table = pair_tables.removed(pair, _ROWS[medium.name])
    if medium.is_kit:
        for kind in ROWS:
            draw = partial(pair_charts.strip_chart, pair, kind)
            yield Drawing(f"gone_{kind}", f"Gone{KINDS[kind]}", draw)
    elif table is not None:
        undrawn = []
        for strip, chart in pair_charts.strip_charts(pair):
            if chart is None:
                number = sum(row.among for row in strip.rows)
                kind = display_name("kind", strip.kind)
                undrawn.append(Text(say("pair.strip_too_many", number=number, kind=kind)))
            else:
                yield chart_of(chart, pair_tables.strip(strip))
        yield from undrawn
    yield None if table is None else table.for_medium(_COLUMNS, medium.name)


def _survival(pair: Pair, medium: Medium) -> Iterator[Block | None]:
    table = pair_tables.survival(pair)
    if medium.is_kit:
        yield Drawing("overlap", "Overlap", partial(pair_charts.overlap_chart, pair))
    else:
        yield _overlap(pair, _SMALLER if medium.is_paper else WIDTH)
    yield table.for_medium(_COLUMNS, medium.name)
    if least := pair_tables.extremes(pair, medium.top):
        least = least.for_medium(_COLUMNS, medium.name)
        yield sections.folded_or_all(least.caption, least, medium.name != "page", "roomy")


def _overlap(pair: Pair, width: float) -> Block | None:
    """Return small matrices of zeros before and after; None without any zero."""
    table = pair_tables.survival(pair)
    drawn = enumerate(pair_charts.overlap_charts(pair, width))
    charts = [chart_of(chart, table, f"overlap{place}") for place, chart in drawn]
    return sections.multiples(
        charts, pair_charts.overlap_colors(), "overlap-colors", table.caption, has_tables=False
    )


def _groups(pair: Pair, medium: Medium) -> Iterator[Block]:
    table = pair_tables.groups(pair)
    in_sight = medium.name != "page" or not pair.removed.empty
    yield sections.folded_or_all(table.caption, table, in_sight)


def _layers(pair: Pair, medium: Medium) -> Iterator[Block]:
    if not medium.is_kit:
        table = pair_tables.layers(pair, _ROWS[medium.name]).for_medium(_COLUMNS, medium.name)
        yield sections.folded_or_all(table.caption, table, medium.is_paper, "all")


def _checkpoints(pair: Pair, medium: Medium) -> Iterator[Block]:
    if not medium.is_kit:
        yield pair_tables.models(pair)
        yield Text(say("pair.base_reference_note"))


def _cards(pair: Pair) -> Iterator[dict[str, str]]:
    """Yield the large numbers that are known."""
    totals = {row["figure"]: row for row in records(pair.totals)}
    weights, stored = totals["prunable_weights"], totals["stored_bytes"]
    zeros, kept = records(pair.sparsities)[0], records(pair.survival)[0]
    if weights["before"]:
        note = say("card.of_prunable_base", before=scaled(weights["before"]))
        yield card(head("removed"), percent(pair.taken / weights["before"]), note)
    if known(zeros["sparsity_itself"]):
        note = say("card.of_prunable_after", after=pair.models["model"].iloc[1])
        yield card(head("sparsity_itself"), percent(zeros["sparsity_itself"]), note)
    if known(kept["kept_share"]):
        note = say("card.of_zeros_base", zeros=scaled(kept["zeros_before"]))
        yield card(head("kept"), percent(kept["kept_share"]), note)
    if known(stored["after"]) and known(stored["before"]):
        note = say("card.stored_before", before=scaled(stored["before"], "B"))
        yield card(say("card.remaining_bytes"), scaled(stored["after"], "B"), note)
