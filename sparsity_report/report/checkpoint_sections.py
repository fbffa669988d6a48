"""Sections of a report that two checkpoints have: the fate of zeros, removed parts, and sizes."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import pandas as pd

from sparsity_report.draw import checkpoint_charts
from sparsity_report.findings.checkpoint_findings import is_identical
from sparsity_report.findings.checkpoint_labels import blocks_title
from sparsity_report.report.sections import Block, Drawing, Medium, Section, Text, Viewer, chart_of
from sparsity_report.report.tables import checkpoint_tables, study_tables
from sparsity_report.report.tables.table_model import Table
from sparsity_report.study.derived.removed_strips import ROWS, block_shares
from sparsity_report.study.figures import StudyFigures
from sparsity_report.viewer.study_payload import study_payload
from sparsity_report.words.display_names import display_name
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
# Parts that are removed, in the names of LaTeX commands.
KINDS = {
    "block": "Blocks", "attention": "Attentions", "mlp": "Mlps", "layer": "Layers",
    "expert": "Experts", "head": "Heads", "kv_head": "KeyValueHeads", "channel": "Channels",
    "vocabulary": "Tokens", "width": "Width",
}  # fmt: skip
# Sentences by section.
_Sentences = Mapping[str, Sequence[str]]


def hero(study: StudyFigures) -> Section | None:
    """Return the fate of the base by block; None if it is the same in each."""
    if (shown := block_shares(study.facts.table("matches"))) is None:
        return None
    drawn = checkpoint_charts.blocks_chart(study, heading=False)
    chart = chart_of(drawn, checkpoint_tables.blocks(shown))
    return Section("hero", blocks_title(shown), (chart,)) if chart else None


def survival(study: StudyFigures, medium: Medium, sentences: _Sentences) -> Iterator[Block | None]:
    """Yield the fate of zeros, by group and by block."""
    if study.survival is None:
        return
    if medium.is_kit:
        yield Drawing("blocks", "Blocks", partial(checkpoint_charts.blocks_chart, study))
    if study.survival[["kept", "revived", "new"]].to_numpy().any():
        yield _of_medium(checkpoint_tables.survival(study), medium)
    yield from map(Text, sentences["survival"])


def viewer(study: StudyFigures, medium: Medium) -> Iterator[Block]:
    """Yield the interactive view of two checkpoints that differ."""
    if medium.is_page and not is_identical(study):
        yield Viewer(study_payload(study), None)


def removed(study: StudyFigures, medium: Medium, sentences: _Sentences) -> Iterator[Block | None]:
    """Yield strips and a table of the removed parts."""
    if study.removed is None:
        return
    table = checkpoint_tables.removed(study, _ROWS[medium.name])
    undrawn = []
    if medium.is_kit:
        for kind in ROWS:
            draw = partial(checkpoint_charts.strip_chart, study, kind)
            yield Drawing(f"gone_{kind}", f"Gone{KINDS[kind]}", draw)
    elif table is not None:
        for strip, chart in checkpoint_charts.strip_charts(study):
            if chart is None:
                number = sum(row.among for row in strip.rows)
                kind = display_name("kind", strip.kind)
                undrawn.append(Text(say("pair.strip_too_many", number=number, kind=kind)))
            else:
                yield chart_of(chart, checkpoint_tables.strip(strip))
    yield from undrawn
    yield None if table is None else _of_medium(table, medium)
    yield from map(Text, sentences["removed"])


def _of_medium(table: Table, medium: Medium) -> Table:
    names = _COLUMNS[table.key].get(medium.name)
    return table.only(*names.split()) if names else table


def sizes(study: StudyFigures) -> Iterator[Block]:
    """Yield the sizes of two checkpoints of different sizes, and those of their groups."""
    if study.changes is not None and _is_resized(study.changes):
        yield checkpoint_tables.changes(study)
        yield checkpoint_tables.changed_groups(study)


def equal_sizes(study: StudyFigures) -> Iterator[Block]:
    """Yield the sizes of two checkpoints of one size."""
    if study.changes is not None and not _is_resized(study.changes):
        yield checkpoint_tables.changes(study)


def _is_resized(changes: pd.DataFrame) -> bool:
    return bool(changes.loc[changes["group"].isna(), "removed"].fillna(0).any())


def modules(study: StudyFigures, medium: Medium) -> Iterator[Block]:
    """Yield the table of all modules of both models."""
    if study.matches is not None:
        yield checkpoint_tables.matches(study, _ROWS[medium.name])


def models(study: StudyFigures, medium: Medium, sentences: _Sentences) -> Iterator[Block]:
    """Yield doubts about the match of the models, and the models."""
    if study.matches is not None and not medium.is_kit:
        yield from map(Text, sentences["checkpoints"])
        yield study_tables.models(study)
        yield Text(say("pair.base_reference_note"))
