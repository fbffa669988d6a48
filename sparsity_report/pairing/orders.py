"""What of a base stands in another order, as notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sparsity_report.pairing.alignment import PLURAL, Alignment

# Less sure than this, a unit is not said to be one that stood somewhere else.
_SURE = 0.5


def order_notes(found: Alignment) -> Iterator[str]:
    """Yield of each kind of units how many stand where another one stood, of how many there."""
    moved, among = Counter[str](), Counter[str]()
    matches = [*(("block", match) for match in found.blocks.values())]
    matches += [(axis, match) for (axis, _), match in found.units.items()]
    for axis, match in matches:
        if count := int((match.certainty[match.moved] > _SURE).sum()):
            moved[axis] += count
            among[axis] += match.index.size
    for axis, count in moved.items():
        yield (
            f"{PLURAL[axis]} stand in another order than in the base: {count} of {among[axis]}, "
            "each compared with the one that it was"
        )
