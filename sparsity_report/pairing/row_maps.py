"""Maps from rows and columns of a parameter to those of its match in the base."""

from collections.abc import Iterator

import numpy as np

from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing.alignment import Alignment, plural
from sparsity_report.pairing.fingerprints import Index
from sparsity_report.pairing.roles import Part, Place, Segment, Sides
from sparsity_report.pairing.unit_matching import UnitMatch


def have_same_axes(before: Sides, after: Sides) -> bool:
    """Return whether rows and columns have the same axes, or equal sizes without an axis."""
    kinds = [[[s.axis or s.size for s in side] for side in sides] for sides in (before, after)]
    return kinds[0] == kinds[1]


def _map_lines(
    alignment: Alignment, before: tuple[Segment, ...], after: tuple[Segment, ...], place: Place
) -> tuple[Index | None, float]:
    """Return the line of the base for each line after, None for the identity; and the certainty."""
    start, maps, certainty, moved = 0, [], 1.0, False
    for old, new in zip(before, after, strict=True):
        match = alignment.match(new.axis, place, new.units)
        if match.index.size != new.units or new.units + len(match.removed) != old.units:
            raise SparsityReportError(
                f"{alignment.names} look unrelated: {'.'.join(map(str, place[:2])).strip('.')} has "
                f"{old.units:,} {plural(new.axis)} in one and {new.units:,} in the other, and no "
                "matrix that both have tells which are left; give a model and its base"
            )
        lines = match.index[:, None] * old.lines + np.arange(old.lines)
        maps.append(start + lines.ravel())
        moved |= not match.is_identity or old.units != new.units
        certainty = min(certainty, float(match.certainty.min(initial=1)))
        start += old.size
    return (np.concatenate(maps) if moved else None), certainty


def map_axes(
    alignment: Alignment, before: Sides, after: Sides, place: Place
) -> tuple[Index | None, Index | None, float]:
    """Return the maps of rows and columns, as outputs and inputs, and their certainty."""
    (rows, one), (columns, other) = (
        _map_lines(alignment, *sides, place) for sides in zip(before, after, strict=True)
    )
    return rows, columns, min(one, other)


def enclosing_matches(
    alignment: Alignment, before: Part, after: Part
) -> Iterator[tuple[UnitMatch, int]]:
    """Yield the match and the index after of the block, and of the expert, of a parameter."""
    if before.block is None or after.block is None:
        return
    number = alignment.after.blocks(after.stack).index(after.block)
    yield alignment.blocks[before.stack], number
    experts = alignment.units.get(("expert", (before.stack, before.block, None)))
    if experts is not None and after.expert is not None:
        yield experts, alignment.after.experts(after.stack, after.block).index(after.expert)


def place_certainty(alignment: Alignment, before: Part, after: Part) -> float:
    """Return the certainty that the block and the expert of a parameter are matched correctly."""
    matches = enclosing_matches(alignment, before, after)
    return min((float(match.certainty[number]) for match, number in matches), default=1.0)
