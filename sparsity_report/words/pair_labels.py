"""Names of a pair, and titles and row names of its strips."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsity_report.untrusted.display_text import distinct_names, short_name
from sparsity_report.words.sentences import say

if TYPE_CHECKING:
    from sparsity_report.study.pairs.pair import Pair
    from sparsity_report.study.pairs.pair_cells import Strip

_STRIP_TITLES = {
    "block": "pair.removed_blocks",
    "expert": "pair.removed_experts",
    "head": "pair.removed_attention_heads",
    "kv_head": "pair.removed_kv_heads",
}


def both(pair: Pair) -> str:
    """Return the names of the two models, the base first."""
    before, after = map(short_name, pair.models["model"])
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
