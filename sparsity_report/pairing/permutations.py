"""Notes about units in another order than in the base."""

from collections import Counter
from collections.abc import Iterator

from sparsity_report.pairing.alignment import Alignment
from sparsity_report.phrases import Phrase, phrase

# Certainty above which a unit counts as moved.
_CERTAIN = 0.5
ORDER_NOTES = {
    "block": "note.moved_blocks",
    "expert": "note.moved_experts",
    "head": "note.moved_heads",
    "kv_head": "note.moved_kv_heads",
    "channel": "note.moved_channels",
    "vocabulary": "note.moved_tokens",
    "width": "note.moved_width_channels",
}
"""Key of the note for each kind of unit."""


def order_notes(alignment: Alignment) -> Iterator[Phrase]:
    """Yield a note for each kind of units that are in another order than in the base."""
    moved, total = Counter[str](), Counter[str]()
    matches = [*(("block", match) for match in alignment.blocks.values())]
    matches += [(axis.partition(",")[0], m) for (axis, _), m in alignment.units.items()]
    for kind, match in matches:
        if count := int((match.certainty[match.moved] > _CERTAIN).sum()):
            moved[kind] += count
            total[kind] += match.index.size
    for kind, count in moved.items():
        yield phrase(ORDER_NOTES[kind], moved=count, total=total[kind])
