"""Which line of the base each row or column is, as the alignment of what they are made of says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing.alignment import Alignment, Place, named, plural
from sparsity_report.pairing.fingerprints import Index
from sparsity_report.pairing.roles import Part, Segment
from sparsity_report.pairing.unit_matching import Match


def of_one_kind(before: Sequence[Segment], after: Sequence[Segment]) -> bool:
    """Whether rows, or columns, are of the same kinds; as many, where they are of none."""
    kinds = [[s.axis or s.size for s in side] for side in (before, after)]
    return kinds[0] == kinds[1]


def lines_of(
    found: Alignment, before: tuple[Segment, ...], after: tuple[Segment, ...], place: Place
) -> tuple[Index | None, float]:
    """Return the line of the base that each line after comes from; None of the same ones."""
    start, told, sure, moved = 0, [], 1.0, False
    for old, new in zip(before, after, strict=True):
        match: Match = found.match(new.axis, place, new.units)
        if match.index.size != new.units or new.units + len(match.gone) != old.units:
            raise SparsityReportError(
                f"{named(found)} look unrelated: {'.'.join(map(str, place[:2])).strip('.')} has "
                f"{old.units:,} {plural(new.axis)} in one and {new.units:,} in the other, and no "
                "matrix that both have tells which are left"
            )
        lines = match.index[:, None] * old.lines + np.arange(old.lines)
        told.append(start + lines.ravel())
        moved |= not match.is_identity or old.units != new.units
        sure = min(sure, float(match.certainty.min(initial=1)))
        start += old.size
    return (np.concatenate(told) if moved else None), sure


def around(found: Alignment, before: Part, after: Part) -> Iterator[tuple[Match, int]]:
    """Yield the match of blocks, and of experts, that a parameter is in, and which one it is."""
    if before.block is None or after.block is None:
        return
    number = found.after.blocks(after.stack).index(after.block)
    yield found.blocks[before.stack], number
    experts = found.units.get(("expert", (before.stack, before.block, None)))
    if experts is not None and after.expert is not None:
        yield experts, found.after.experts(after.stack, after.block).index(after.expert)


def sure_of_place(found: Alignment, before: Part, after: Part) -> float:
    """Return how sure it is that the block, and the expert, are the right ones."""
    sure = (float(match.certainty[number]) for match, number in around(found, before, after))
    return min(sure, default=1.0)
