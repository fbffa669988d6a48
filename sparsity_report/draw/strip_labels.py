"""Titles and row names of strips, for charts and for tables, which load no chart library."""

from sparsity_report.study.pairs.pair_cells import Strip
from sparsity_report.untrusted.display_text import distinct_names
from sparsity_report.words.sentences import say

_STRIP_TITLES = {
    "block": "pair.removed_blocks",
    "expert": "pair.removed_experts",
    "head": "pair.removed_attention_heads",
    "kv_head": "pair.removed_kv_heads",
}


def strip_title(strip: Strip) -> str:
    """Return the title of a strip."""
    return say(_STRIP_TITLES[strip.kind])


def strip_names(strip: Strip) -> list[str]:
    """Return a distinct name for each row of a strip: its block, or else its module."""
    blocks = [row.block for row in strip.rows]
    if None not in blocks and len(set(blocks)) == len(blocks):
        return [say("name.numbered_block", block=str(block)) for block in blocks]
    return distinct_names([row.module or "–" for row in strip.rows], 40)
