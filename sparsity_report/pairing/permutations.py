"""What of a base stands in another order, as notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sparsity_report.pairing.alignment import Alignment, plural

OTHER_ORDER = "stand in another order than in the base"
"""Words that each such note has."""
# Less sure than this, a unit is not said to be one that stood somewhere else.
_SURE = 0.5


def order_notes(found: Alignment) -> Iterator[str]:
    """Yield of each kind of units how many stand where another one stood, of how many there."""
    moved, among = Counter[str](), Counter[str]()
    matches = [*(("block", match) for match in found.blocks.values())]
    matches += [(axis, match) for (axis, _), match in found.units.items()]
    for axis, match in matches:
        if count := int((match.certainty[match.moved] > _SURE).sum()):
            moved[plural(axis)] += count
            among[plural(axis)] += match.index.size
    for units, count in moved.items():
        yield (
            f"{units} {OTHER_ORDER}: {count} of {among[units]}, "
            "each compared with the one that it was"
        )
