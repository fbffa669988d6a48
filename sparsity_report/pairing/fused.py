"""What is fused in one model and split in the other: matrices inside of parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing.alignment import Alignment, Place, named
from sparsity_report.pairing.matches import Link, Piece
from sparsity_report.pairing.roles import Part, Segment
from sparsity_report.pairing.row_maps import lines_of, of_one_kind, sure_of_place

InPart = tuple[Part, Piece]
Key = tuple[str, int | None, int | None, str, str]
# Matrices of which several may be one, in the order of its rows.
_FUSED = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}


def in_pieces(
    found: Alignment, alone: list[tuple[Part, Place]], waiting: dict[str, Part]
) -> Iterator[Link]:
    """Pair what is fused in one model and split in the other; the rest is new."""
    pieces, claims = dict[Key, InPart](), Counter[str]()
    for part in waiting.values():
        stack = part.stack if part.block is not None else ""
        for key, piece in pieces_of(part):
            expert = part.expert if piece.expert is None else piece.expert
            pieces[(stack, part.block, expert, *key)] = part, piece
            claims[part.parameter.name] += not _is_gone(found, part, piece)
    pairs = [(part, [*_twins(found, part, place, pieces)]) for part, place in alone]
    for _, twins in pairs:
        claims.subtract(base[0].parameter.name for base, *_ in twins)
    for part, twins in pairs:
        # A matrix of which only some is left has no place of its own.
        if twins and not any(claims[base[0].parameter.name] for base, *_ in twins):
            yield from (_link(found, base, left, place) for base, left, place in twins)
            for base, *_ in twins:
                waiting.pop(base[0].parameter.name, None)
        else:
            yield Link(None, part, "added")


def _is_gone(found: Alignment, part: Part, piece: Piece) -> bool:
    """Whether a piece is of an expert that is not there any more."""
    place: Place = (part.stack, part.block, None)
    return piece.expert in found.match("expert", place, part.stacked).gone


def _twins(
    found: Alignment, part: Part, place: Place, pieces: Mapping[Key, InPart]
) -> Iterator[tuple[InPart, InPart, Place]]:
    """Yield the pieces of a parameter with those of the base, if all of them were there."""
    told = []
    experts = found.match("expert", place, part.stacked).index if part.stacked else None
    for key, piece in pieces_of(part):
        expert = place[2]
        if piece.expert is not None and experts is not None:
            expert = int(experts[piece.expert])
        twin = pieces.get((*place[:2], expert, *key))
        if twin is None or not _fits(twin, (part, piece)):
            return
        told.append((twin, (part, piece), (*place[:2], expert)))
    yield from told


def _fits(base: InPart, left: InPart) -> bool:
    rows = [tuple(_segments(*each)) for each in (base, left)]
    return of_one_kind(*rows) and of_one_kind(base[0].columns, left[0].columns)


def _link(found: Alignment, base: InPart, left: InPart, place: Place) -> Link:
    (before, old), (after, new) = base, left
    if found.rotated:
        raise SparsityReportError(
            f"{named(found)}: the width looks rotated, and {after.parameter.name} has other rows "
            "than the base's, fused or split: nothing tells which"
        )
    segments = [tuple(_segments(part, piece)) for part, piece in (base, left)]
    rows, sure = lines_of(found, segments[0], segments[1], place)
    columns, certain = lines_of(found, before.columns, after.columns, place)
    certainty = min(sure, certain, sure_of_place(found, before, after))
    return Link(before, after, "fused", certainty, rows, (columns,), (old, new))


def pieces_of(part: Part) -> Iterator[tuple[tuple[str, str], Piece]]:
    """Cut a parameter into the matrices that it would be if nothing were fused."""
    role, _, more = part.role.partition(",")
    tail = f",{more}" if more else ""
    fused = _FUSED.get(role, ()) if len(part.rows) > 1 else ()
    for expert in range(part.stacked) if part.stacked else (None,):
        start = 0
        for name, segment in zip(fused or (role,), part.rows, strict=False):
            size = segment.size if fused else sum(s.size for s in part.rows)
            yield (f"{name}{tail}", part.leaf), Piece(expert, start, start + size)
            start += size


def _segments(part: Part, piece: Piece) -> Iterator[Segment]:
    start = 0
    for segment in part.rows:
        if piece.first <= start < piece.last:
            yield segment
        start += segment.size
