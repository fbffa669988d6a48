"""Sections of a report on two checkpoints."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from sparsity_report.draw import pair_charts
from sparsity_report.draw.vega import unchecked
from sparsity_report.findings.pair_findings import is_identical, pair_topics, pair_verdict
from sparsity_report.findings.pair_labels import blocks_title, both
from sparsity_report.findings.strip_text import change
from sparsity_report.report import sections
from sparsity_report.report.sections import Block, Drawing, Medium, Section, Text, card, chart_of
from sparsity_report.report.tables import pair_tables
from sparsity_report.report.tables.table_model import Table
from sparsity_report.study.layers import records
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.study.pairs.pair_cells import ROWS, block_shares
from sparsity_report.untrusted.display_text import clip
from sparsity_report.viewer.pair_payload import pair_payload
from sparsity_report.words.display_names import display_name
from sparsity_report.words.number_format import percent, scaled
from sparsity_report.words.sentences import say

# Most rows of removed parts and of modules, by medium.
_ROWS = {"page": 6_000, "markdown": 600, "paper": 200, "kit": 40}
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
}
# Parts that are removed, in the names of LaTeX commands of every language.
KINDS = {
    "block": "Blocks", "attention": "Attentions", "mlp": "Mlps", "layer": "Layers",
    "expert": "Experts", "head": "Heads", "kv_head": "KeyValueHeads", "channel": "Channels",
    "vocabulary": "Tokens", "width": "Width",
}  # fmt: skip


@unchecked()
def pair_document(pair: Pair, medium: Medium) -> dict[str, Any]:
    """Return the values that the templates of a pair show."""
    names = [str(name) for name in pair.models["model"]]
    return sections.document(
        pair_sections(pair, medium),
        models=both(pair),
        names=names,
        kicker=[both(pair)],
        title=" → ".join(clip(name, 40) for name in names),
        verdict=" ".join(pair_verdict(pair)),
        strip=[*_strip(pair)],
        hero=_hero(pair),
    )


@unchecked()
def pair_sections(pair: Pair, medium: Medium) -> list[Section]:
    """Return the sections of a report on two checkpoints."""
    verdict = pair_verdict(pair)
    texts = {
        topic: [Text(finding) for finding in findings if finding not in verdict]
        for topic, findings in pair_topics(pair).items()
    }
    notes = [Text(say("format.note_sentence", note=note)) for note in pair.notes]
    warnings: list[Block] = [*dict.fromkeys([*texts["checkpoints"], *notes])]
    is_resized = bool(pair.totals["removed"].fillna(0).any())
    is_changed = not is_identical(pair)
    in_sight = {"where", "removed"}
    in_sight |= {"survival"} if is_changed else set()
    in_sight |= {"totals"} if is_resized else set()
    in_sight |= {"checkpoints"} if warnings else set()
    groups = [pair_tables.groups(pair)] if is_resized else []
    layers = [] if medium.is_kit else [pair_tables.layers(pair, _ROWS[medium.name])]
    reference = Text(say("pair.base_reference_note"))
    models: list[Block] = [] if medium.is_kit else [pair_tables.models(pair), reference]
    viewer = sections.Viewer(pair_payload(pair), None) if medium.is_page else None
    shown: dict[str, tuple[str, Iterable[Block | None]]] = {
        "survival": ("pair.survival_heading", [*_survival(pair, medium), *texts["survival"]]),
        "where": ("page.where_heading", [*texts["where"], viewer if is_changed else None]),
        "removed": ("pair.removed_heading", [*_removed(pair, medium), *texts["removed"]]),
        "totals": ("pair.totals_heading", [pair_tables.totals(pair)]),
        "sparsities": ("pair.sparsities_heading", [pair_tables.sparsities(pair)]),
        "groups": ("page.groups_heading", groups),
        "layers": ("pair.modules_heading", layers),
        "checkpoints": ("pair.checkpoints_heading", [*warnings, *models]),
    }
    if medium.is_paper:
        in_sight |= {"sparsities", "checkpoints"}
    titled = sections.titled(shown)
    return [replace(section, is_appendix=section.key not in in_sight) for section in titled]


def _hero(pair: Pair) -> Section | None:
    """Return the fate of the base by block; None if it is the same in each."""
    if (shown := block_shares(pair)) is None:
        return None
    chart = chart_of(pair_charts.blocks_chart(pair, heading=False), pair_tables.blocks(shown))
    return Section("hero", blocks_title(shown), (chart,)) if chart else None


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
    yield None if table is None else _of_medium(table, medium)


def _survival(pair: Pair, medium: Medium) -> Iterator[Block | None]:
    if medium.is_kit:
        yield Drawing("blocks", "Blocks", partial(pair_charts.blocks_chart, pair))
    has_zeros = pair.survival[["kept", "revived", "new"]].to_numpy().any()
    yield _of_medium(pair_tables.survival(pair), medium) if has_zeros else None


def _of_medium(table: Table, medium: Medium) -> Table:
    names = _COLUMNS[table.key].get(medium.name)
    return table.only(*names.split()) if names else table


def _strip(pair: Pair) -> Iterator[dict[str, str]]:
    """Yield zeros, revived zeros, parameters and bytes, before and after."""
    zeros, fate = records(pair.sparsities)[0], records(pair.survival)[0]
    sides = [percent(zeros[key]) for key in ("sparsity_before", "sparsity_itself")]
    yield card(say("strip.zeros"), change(*sides), say("strip.zeros_note"))
    figures = {"parameters": ("strip.parameters", ""), "stored_bytes": ("strip.size", "B")}
    if fate["zeros_before"]:
        share = percent(fate["revived"] / fate["zeros_before"])
        note = say("strip.revived_note", revived=fate["revived"], zeros=fate["zeros_before"])
        yield card(say("strip.revived"), share, note)
    else:
        figures["flops_per_token"] = ("strip.flops", "FLOPs")
    totals = {row["figure"]: row for row in records(pair.totals)}
    for figure, (title, unit) in figures.items():
        known_sides = [totals[figure][side] for side in ("before", "after")]
        number = say("strip.unknown")
        if None not in known_sides:
            number = change(*(scaled(side, unit) for side in known_sides))
        yield card(say(title), number, say("strip.of_model"))
