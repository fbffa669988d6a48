"""Matches of matrices that are fused in one model and separate in the other."""

from collections import Counter
from collections.abc import Iterator, Mapping

from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing.alignment import Alignment
from sparsity_report.pairing.matches import ParameterMatch, Piece
from sparsity_report.pairing.roles import Part, Place, Sides
from sparsity_report.pairing.row_maps import have_same_axes, map_axes, place_certainty

PartPiece = tuple[Part, Piece]
Key = tuple[str, int | None, int | None, str, str]
# Matrices in a fused one, in the order of its rows.
_FUSED = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}


def match_fused(
    alignment: Alignment, unmatched: list[tuple[Part, Place]], remaining: dict[str, Part]
) -> Iterator[ParameterMatch]:
    """Match parameters after with pieces of the base's, and yield the others as added.

    Parameters
    ----------
    alignment : Alignment
    unmatched : list of (Part, Place)
        Parameters after without a match, and their places in the base.
    remaining : dict of str to Part
        Parameters of the base without a match, by name; matched ones are removed.
    """
    pieces, claims = dict[Key, PartPiece](), Counter[str]()
    for part in remaining.values():
        experts = alignment.match("expert", part.place, part.stacked)
        for key, piece in split_fused(part):
            expert = part.expert if piece.expert is None else piece.expert
            pieces[(part.stack, part.block, expert, *key)] = part, piece
            claims[part.parameter.name] += piece.expert not in experts.removed
    pairs = [(part, [*_find_pieces(alignment, part, place, pieces)]) for part, place in unmatched]
    for _, twins in pairs:
        claims.subtract(base[0].parameter.name for base, *_ in twins)
    for part, twins in pairs:
        # A fused matrix must be matched by all pieces of it that are left.
        if twins and not any(claims[base[0].parameter.name] for base, *_ in twins):
            yield from (_match_pieces(alignment, base, left, place) for base, left, place in twins)
            for base, *_ in twins:
                remaining.pop(base[0].parameter.name, None)
        else:
            yield ParameterMatch(None, part, "added")


def _find_pieces(
    alignment: Alignment, part: Part, place: Place, pieces: Mapping[Key, PartPiece]
) -> Iterator[tuple[PartPiece, PartPiece, Place]]:
    """Yield the matching pieces of the base and of a parameter, if there is one for each."""
    twins = []
    experts = alignment.match("expert", place, part.stacked).index if part.stacked else None
    for key, piece in split_fused(part):
        expert = place[2]
        if piece.expert is not None and experts is not None:
            expert = int(experts[piece.expert])
        twin = pieces.get((*place[:2], expert, *key))
        if twin is None or not have_same_axes(_sides(*twin), _sides(part, piece)):
            return
        twins.append((twin, (part, piece), (*place[:2], expert)))
    yield from twins


def _match_pieces(
    alignment: Alignment, base: PartPiece, left: PartPiece, place: Place
) -> ParameterMatch:
    (before, old), (after, new) = base, left
    if alignment.rotated:
        raise SparsityReportError(
            f"{alignment.names}: the width looks rotated, and the rows of {after.parameter.name} "
            "are fused or split, so that they cannot be matched; compare models with the same "
            "fused matrices"
        )
    rows, columns, certainty = map_axes(alignment, _sides(*base), _sides(*left), place)
    certainty = min(certainty, place_certainty(alignment, before, after))
    return ParameterMatch(before, after, "fused", certainty, rows, (columns,), (old, new))


def split_fused(part: Part) -> Iterator[tuple[tuple[str, str], Piece]]:
    """Yield the separate matrices in a parameter, with their roles."""
    role, _, suffix = part.role.partition(",")
    tail = f",{suffix}" if suffix else ""
    fused = _FUSED.get(role, ()) if len(part.rows) > 1 else ()
    for expert in range(part.stacked) if part.stacked else (None,):
        start = 0
        for name, segment in zip(fused or (role,), part.rows, strict=False):
            size = segment.size if fused else sum(s.size for s in part.rows)
            yield (f"{name}{tail}", part.leaf), Piece(expert, start, start + size)
            start += size


def _sides(part: Part, piece: Piece) -> Sides:
    """Return the rows and columns of a piece."""
    rows, start = [], 0
    for segment in part.rows:
        if piece.first <= start < piece.last:
            rows.append(segment)
        start += segment.size
    return tuple(rows), part.columns
