"""Sections of a report that two checkpoints have: the fate of zeros, removed parts, and sizes."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from sparsity_report.draw import theme
from sparsity_report.draw.charts import blocks_chart, timeline_chart
from sparsity_report.draw.heat_maps import history_map
from sparsity_report.findings.checkpoint_findings import blocks_title
from sparsity_report.report.sections import Block, Drawing, Medium, Section, Text, chart_of
from sparsity_report.report.tables import checkpoint_tables, study_tables
from sparsity_report.report.tables.table_model import Table
from sparsity_report.study.derived.removed_strips import block_shares
from sparsity_report.study.figures import StudyFigures
from sparsity_report.words.sentences import say

# Most rows of removed parts by medium.
_ROWS = {"page": 6_000, "markdown": 600, "paper": 200, "kit": 40}
_LOSSES = {"page": 20, "markdown": 20, "paper": 12, "kit": 12}
# Columns that a medium has room for; a page shows all.
_COLUMNS = {
    "removed": {
        "paper": "module gone among numbers weights bytes",
        "kit": "module gone among numbers",
    },
    "survival": {
        "paper": "compared kept revived new kept_share surviving changed relative_change",
        "kit": "compared kept revived new kept_share surviving changed",
    },
}
# Parts that are removed, in the names of LaTeX commands.
KINDS = {
    "block": "Blocks", "attention": "Attentions", "mlp": "Mlps", "layer": "Layers",
    "expert": "Experts", "head": "Heads", "kv_head": "KeyValueHeads", "channel": "Channels",
    "vocabulary": "Tokens", "width": "Width",
}  # fmt: skip
# Sentences by section.
_Sentences = Mapping[str, Sequence[str]]


def width_of(medium: Medium) -> float:
    """Return the width of a chart."""
    return theme.PAGE_WIDTH if medium == "page" else theme.TEXT_WIDTH


def hero(study: StudyFigures, width: float) -> Section | None:
    """Return the fate of the base by block, drawn at a width; None if it is the same in each.

    Of a history it is the timeline of the zeros.
    """
    if study.history is not None:
        timeline = chart_of(timeline_chart(study, width), checkpoint_tables.timeline(study))
        return Section("hero", "", (timeline,)) if timeline else None
    if (shares := block_shares(study.facts.table("matches"))) is None:
        return None
    chart = chart_of(blocks_chart(study, width), checkpoint_tables.blocks(shares))
    return Section("hero", blocks_title(shares), (chart,)) if chart else None


def survival(study: StudyFigures, medium: Medium, sentences: _Sentences) -> Iterator[Block | None]:
    """Yield the fate of zeros, by group and by block."""
    if study.survival is None:
        return
    if study.history is not None:
        yield from _training(study, medium)
    elif medium == "kit":
        yield Drawing("blocks", "Blocks", partial(blocks_chart, study))
    if study.survival[["kept", "revived", "new"]].to_numpy().any():
        yield _of_medium(checkpoint_tables.survival(study), medium)
    yield from map(Text, sentences["survival"])


def _training(study: StudyFigures, medium: Medium) -> Iterator[Block | None]:
    """Yield the zeros over training by place, and the modules that lost most."""
    if medium == "kit":
        yield Drawing("timeline", "Timeline", partial(timeline_chart, study))
        yield Drawing("history_map", "HistoryMap", partial(history_map, study))
    elif medium != "markdown" and (chart := history_map(study, width_of(medium))):
        yield chart_of(chart, checkpoint_tables.history_map(study))
    yield checkpoint_tables.losses(study, _LOSSES[medium])


def removed(study: StudyFigures, medium: Medium, sentences: _Sentences) -> Iterator[Block | None]:
    """Yield a table of the removed parts."""
    if study.removed is None:
        return
    table = checkpoint_tables.removed(study, _ROWS[medium])
    yield None if table is None else _of_medium(table, medium)
    yield from map(Text, sentences["removed"])


def _of_medium(table: Table, medium: Medium) -> Table:
    names = _COLUMNS[table.key].get(medium)
    return table.only(*names.split()) if names else table


def sizes(study: StudyFigures) -> Iterator[Block]:
    """Yield the sizes of two checkpoints of different sizes, and those of their groups."""
    if study.changes is not None and study.changes["removed"].fillna(0).any():
        yield checkpoint_tables.changes(study)
        yield checkpoint_tables.changed_groups(study)


def models(study: StudyFigures, medium: Medium, sentences: _Sentences) -> Iterator[Block]:
    """Yield doubts about the match of two models, and the models."""
    if study.matches is not None and study.history is None and medium != "kit":
        yield from map(Text, sentences["checkpoints"])
        yield study_tables.models(study)
        if not study.facts.table("removed").empty:
            yield Text(say("pair.removed_names_note"))
        yield Text(say("pair.base_reference_note"))
