"""Names of a pair, and titles and row names of its blocks and strips."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsity_report.untrusted.display_text import distinct_names, short_name
from sparsity_report.words.display_names import group_name
from sparsity_report.words.number_format import UNKNOWN, known
from sparsity_report.words.sentences import say, some

if TYPE_CHECKING:
    from sparsity_report.study.derived.removed_strips import BlockShares, Strip
    from sparsity_report.study.figures import StudyFigures

_STRIP_TITLES = {
    "block": "pair.removed_blocks",
    "expert": "pair.removed_experts",
    "head": "pair.removed_attention_heads",
    "kv_head": "pair.removed_kv_heads",
}
# Keys of title and axis of the columns by block.
_BLOCKS = {
    "revived": ("chart.blocks_revived_title", "chart.blocks_revived_axis"),
    "removed": ("chart.blocks_removed_title", "chart.blocks_removed_axis"),
    "new": ("chart.blocks_new_title", "chart.blocks_new_axis"),
}


def both(study: StudyFigures) -> str:
    """Return the names of the two models, the base first."""
    before, after = map(short_name, study.variants["model"].iloc[:2])
    return f"{before} → {after}"


def strip_title(strip: Strip) -> str:
    """Return the title of a strip."""
    return say(_STRIP_TITLES[strip.kind])


def strip_names(strip: Strip) -> list[str]:
    """Return a distinct name for each row of a strip: its block, or else its module."""
    blocks = [row.block for row in strip.rows]
    if None not in blocks and len(set(blocks)) == len(blocks):
        return [say("name.numbered_block", block=str(block)) for block in blocks]
    return distinct_names([row.module or "–" for row in strip.rows], 40)


def block_names(shown: BlockShares) -> list[str]:
    """Return the name of each row: the number of its block, its group, or a dash."""
    return [
        str(block) if known(block) else group_name(group) if known(group) else UNKNOWN
        for block, group in shown.rows[["block", "group"]].itertuples(index=False, name=None)
    ]


def blocks_title(shown: BlockShares) -> str:
    """Return the finding about the blocks with the largest share."""
    rows = shown.rows.assign(name=block_names(shown))
    names = [
        say("name.numbered_block", block=row["name"])
        if known(row["block"])
        else say("pair.layers_outside_blocks")
        if row["name"] == UNKNOWN
        else row["name"]
        for row in rows[rows["share"].round(6) == round(rows["share"].max(), 6)].to_dict("records")
    ]
    return say(_BLOCKS[shown.figure][0], where=some(names), share=rows["share"].max())


def blocks_axis(shown: BlockShares) -> str:
    """Return the definition of the shares."""
    return say(_BLOCKS[shown.figure][1])
