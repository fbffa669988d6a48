"""The plan of a comparison: which parameter of the base each parameter comes from."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

import numpy as np

from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing import roles
from sparsity_report.pairing.align_units import align
from sparsity_report.pairing.alignment import Alignment, ParameterMatch, Plan
from sparsity_report.pairing.fingerprints import hash_rows, project
from sparsity_report.pairing.roles import OUTSIDE, Part, Piece, Place, Sides, split_fused
from sparsity_report.pairing.unit_matching import match_equal, match_similar
from sparsity_report.weights.weights import Weights

# Values of parameters that are matched by them alone, and their smallest cosine.
_SMALL, _SIMILAR = 2**20, 0.5
PartPiece = tuple[Part, Piece]
# Stack, block, expert, role and leaf.
Key = tuple[str, int | None, int | None, str, str]


def plan_comparison(before: Weights, after: Weights) -> Plan:
    """Match the parameters of two models by name and place, and by values if numbers differ.

    Raises
    ------
    SparsityReportError
        A model has no values, or the two are not related.
    """
    for weights in (before, after):
        if unknown := next((p.name for p in weights.stored if not p.known), None):
            raise SparsityReportError(
                f"{weights.name}: the values of {unknown!r} are not known, and a comparison needs "
                "them; open it with its values"
            )
    one = roles.assign_roles(before)
    other = roles.assign_roles(after, one.head)
    if one.head is None and other.head is not None:
        one = roles.assign_roles(before, other.head)
    alignment = align(*roles.separate_key_heads(one, other))
    one, other = alignment.before, alignment.after
    remaining = {part.parameter.name: part for part in one.parts}
    names = dict(remaining)
    matches, unmatched = list[ParameterMatch](), list[tuple[Part, Place]]()
    for part in other.parts:
        place = alignment.base_place(part)
        twin = one.at(*place).get(part.key) if place else None
        if twin is None and place in {None, OUTSIDE}:
            twin = names.get(part.parameter.name)
        if twin is None or not _fits(twin, part):
            unmatched.append((part, place or OUTSIDE))
        else:
            matches += _match_parts(alignment, twin, part)
            remaining.pop(twin.parameter.name, None)
    matches += _match_by_values(alignment, unmatched, remaining)
    matches += _match_pieces(alignment, unmatched, remaining)
    matches += [ParameterMatch(part, None, "removed") for part in remaining.values()]
    _check_related(alignment, matches)
    return Plan(alignment, tuple(matches))


def _fits(before: Part, after: Part) -> bool:
    """Return whether two parameters have the same axes and storage, and experts both or neither."""
    same_axes = roles.have_same_axes(before.sides, after.sides)
    is_alike = bool(before.stacked) == bool(after.stacked) and not _is_turned(before, after)
    return is_alike and same_axes


def _match_parts(alignment: Alignment, before: Part, after: Part) -> Iterator[ParameterMatch]:
    """Yield the matches of two parameters with the same axes: one, or one per expert."""
    experts = alignment.match("expert", before.place, after.stacked) if after.stacked else None
    numbers = experts.index.tolist() if experts else [before.expert]
    places = [(before.stack, before.block, number) for number in numbers]
    maps = [alignment.map_axes(before.sides, after.sides, place) for place in places]
    certainty = min(alignment.place_certainty(after), *(sure for _, _, sure in maps))
    if experts:
        certainty = min(certainty, float(experts.certainty.min(initial=1)))
    is_moved = any(rows is not None or columns is not None for rows, columns, _ in maps)
    is_moved |= bool(experts and not experts.is_identity)
    kind = _kind_of(alignment, before, after, is_moved)
    if not is_moved:
        yield ParameterMatch(before, after, kind, certainty)
        return
    sizes = [sum(segment.size for segment in part.rows) for part in (before, after)]
    for place, (number, (rows, columns, _)) in enumerate(zip(numbers, maps, strict=True)):
        chosen = (number, place) if experts else (None, None)
        pieces = Piece(chosen[0], 0, sizes[0]), Piece(chosen[1], 0, sizes[1])
        yield ParameterMatch(before, after, kind, certainty, pieces, rows, columns)
    yield from _removed_experts(alignment, before)


def _removed_experts(alignment: Alignment, part: Part) -> Iterator[ParameterMatch]:
    """Yield the removed experts of a tensor that holds several."""
    rows = sum(segment.size for segment in part.rows)
    removed = alignment.match("expert", part.place, part.stacked).removed if part.stacked else ()
    for expert in removed:
        piece = Piece(expert, 0, rows)
        yield ParameterMatch(part, None, "removed", pieces=(piece, piece))


def _kind_of(alignment: Alignment, before: Part, after: Part, lines_moved: bool) -> str:
    """Return the kind of a match, one of ``alignment.ALIGNMENTS``."""
    enclosing = [*alignment.enclosing_matches(after)]
    if lines_moved or any(m.removed or m.index[number] != number for m, number in enclosing):
        smaller = before.parameter.total != after.parameter.total
        return "content" if smaller or any(m.removed for m, _ in enclosing) else "reordered"
    if _is_turned(before, after):
        return "turned"
    return "renamed" if before.parameter.name != after.parameter.name else "name"


def _is_turned(before: Part, after: Part) -> bool:
    """Return whether one of two matrices is stored transposed."""
    return before.parameter.transposed != after.parameter.transposed and bool(before.columns)


def _match_by_values(
    alignment: Alignment, unmatched: list[tuple[Part, Place]], remaining: dict[str, Part]
) -> Iterator[ParameterMatch]:
    """Match small parameters with different names in one place, such as norms, by their values."""
    groups: dict[tuple[Place, tuple[int, ...]], list[Part]] = defaultdict(list)
    for part, place in unmatched:
        if part.parameter.total <= _SMALL:
            groups[place, part.parameter.shape].append(part)
    for (place, shape), parts in groups.items():
        known = [p for p in remaining.values() if p.place == place and p.parameter.shape == shape]
        if len(known) < len(parts):
            continue
        sides = ((alignment.before.weights, known), (alignment.after.weights, parts))
        tables = [
            np.stack([w.array(p.parameter.name).astype(np.float32).reshape(-1) for p in some])
            for w, some in sides
        ]
        projected = [project([table]) for table in tables]
        match = match_equal(*map(hash_rows, tables)) or match_similar(*projected)
        for number, part in enumerate(parts):
            base = int(match.index[number])
            if float(projected[1][number] @ projected[0][base]) < _SIMILAR:
                continue
            twin = known[base]
            certainty = min(float(match.certainty[number]), alignment.place_certainty(part))
            yield ParameterMatch(twin, part, "renamed", certainty)
            remaining.pop(twin.parameter.name)
            unmatched.remove((part, place))


def _match_pieces(
    alignment: Alignment, unmatched: list[tuple[Part, Place]], remaining: dict[str, Part]
) -> Iterator[ParameterMatch]:
    """Match fused or transposed matrices with others piece by piece; yield the rest as added.

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
            yield from (_match_piece(alignment, base, left, place) for base, left, place in twins)
            for (base, _), *_ in twins:
                if remaining.pop(base.parameter.name, None):
                    yield from _removed_experts(alignment, base)
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
        if twin is None or not roles.have_same_axes(_sides(*twin), _sides(part, piece)):
            return
        twins.append((twin, (part, piece), (*place[:2], expert)))
    yield from twins


def _match_piece(
    alignment: Alignment, base: PartPiece, left: PartPiece, place: Place
) -> ParameterMatch:
    (before, old), (after, new) = base, left
    rows, columns, certainty = alignment.map_axes(_sides(*base), _sides(*left), place)
    certainty = min(certainty, alignment.place_certainty(after))
    kind = "fused"
    if before.key == after.key:
        kind = _kind_of(alignment, before, after, rows is not None or columns is not None)
    return ParameterMatch(before, after, kind, certainty, (old, new), rows, columns)


def _sides(part: Part, piece: Piece) -> Sides:
    """Return the rows and columns of a piece."""
    rows, start = [], 0
    for segment in part.rows:
        if piece.first <= start < piece.last:
            rows.append(segment)
        start += segment.size
    return tuple(rows), part.columns


def _check_related(alignment: Alignment, matches: list[ParameterMatch]) -> None:
    """Raise an error if no prunable parameter of the base has a match."""
    base = [match for match in matches if match.before and match.before.parameter.prunable]
    if base and not any(match.after for match in base):
        first = [
            next((p.parameter for p in side.parts if p.parameter.prunable), None)
            for side in (alignment.before, alignment.after)
        ]
        shapes = [f"{p.name} {p.shape}" if p else "no prunable matrix" for p in first]
        raise SparsityReportError(
            f"{alignment.names} look unrelated: no matrix of one matches a matrix of the other; "
            f"the first are {shapes[0]} and {shapes[1]}; give a model and its base"
        )
