"""The plan of a comparison: which parameter of the base each parameter comes from."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch

from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing.align_blocks import align
from sparsity_report.pairing.alignment import Alignment
from sparsity_report.pairing.fingerprints import hash_rows, project
from sparsity_report.pairing.fused import match_fused
from sparsity_report.pairing.matches import ParameterMatch, Piece, Plan
from sparsity_report.pairing.roles import OUTSIDE, Part, Place, assign_roles, separate_key_heads
from sparsity_report.pairing.row_maps import (
    enclosing_matches,
    have_same_axes,
    map_axes,
    place_certainty,
)
from sparsity_report.pairing.unit_matching import match_equal, match_similar
from sparsity_report.weights.weights import Weights

# Values of parameters that are matched by them alone, and their smallest cosine.
_SMALL, _SIMILAR = 2**20, 0.5


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
    one = assign_roles(before)
    other = assign_roles(after, one.head, None if after.architecture else one)
    if one.head is None and other.head is not None:
        one = assign_roles(before, other.head)
    alignment = align(*separate_key_heads(one, other))
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
            matches.append(_match_parts(alignment, twin, part))
            remaining.pop(twin.parameter.name, None)
    matches += _match_by_values(alignment, unmatched, remaining)
    matches += match_fused(alignment, unmatched, remaining)
    matches += [ParameterMatch(part, None, "removed") for part in remaining.values()]
    _check_related(alignment, matches)
    return Plan(alignment, tuple(matches))


def _fits(before: Part, after: Part) -> bool:
    """Return whether two parameters have the same axes, and experts both or neither."""
    same_axes = have_same_axes(before.sides, after.sides)
    return bool(before.stacked) == bool(after.stacked) and same_axes


def _match_parts(alignment: Alignment, before: Part, after: Part) -> ParameterMatch:
    """Return the match of two parameters with the same axes."""
    if alignment.rotated and any(s.axis == "width" for s in (*before.rows, *before.columns)):
        return ParameterMatch(before, after, "rotated")
    place = before.place
    experts = alignment.match("expert", place, after.stacked) if after.stacked else None
    numbers = experts.index.tolist() if experts else [before.expert]
    maps = [
        map_axes(alignment, before.sides, after.sides, (*place[:2], number)) for number in numbers
    ]
    certainty = min(sure for _, _, sure in maps)
    if experts:
        certainty = min(certainty, float(experts.certainty.min(initial=1)))
    certainty = min(certainty, place_certainty(alignment, before, after))
    lines_moved = any(row is not None or column is not None for row, column, _ in maps)
    lines_moved |= bool(experts and not experts.is_identity)
    kind = _kind_of(alignment, before, after, lines_moved)
    if _is_turned(before, after):
        pieces = [Piece(None, 0, sum(s.size for s in p.rows)) for p in (before, after)]
        rows, columns, _ = maps[0]
        return ParameterMatch(
            before, after, kind, certainty, rows, (columns,), (pieces[0], pieces[1])
        )
    if after.parameter.transposed and after.columns:
        maps = [(columns, rows, sure) for rows, columns, sure in maps]
    lines, lines_after = map(_stored_rows, (before, after))
    rows = np.concatenate(
        [
            (number * lines if experts else 0) + (np.arange(lines_after) if row is None else row)
            for number, (row, _, _) in zip(numbers, maps, strict=True)
        ]
    )
    complete = rows.size == lines * (before.stacked or 1)
    is_identity = complete and bool((rows == np.arange(rows.size)).all())
    columns_by_expert = tuple(columns for _, columns, _ in maps)
    return ParameterMatch(
        before, after, kind, certainty, None if is_identity else rows, columns_by_expert
    )


def _kind_of(alignment: Alignment, before: Part, after: Part, lines_moved: bool) -> str:
    """Return the kind of a match, one of ``matches.ALIGNMENTS``."""
    enclosing = [*enclosing_matches(alignment, before, after)]
    if lines_moved or any(m.removed or m.index[number] != number for m, number in enclosing):
        smaller = before.parameter.total != after.parameter.total
        return "content" if smaller or any(m.removed for m, _ in enclosing) else "reordered"
    if _is_turned(before, after):
        return "turned"
    return "renamed" if before.parameter.name != after.parameter.name else "name"


def _is_turned(before: Part, after: Part) -> bool:
    """Return whether one of two matrices is stored transposed."""
    return before.parameter.transposed != after.parameter.transposed and bool(before.columns)


def _stored_rows(part: Part) -> int:
    """Return the number of rows of a matrix as it is stored."""
    transposed = part.parameter.transposed and part.columns
    return sum(segment.size for segment in (part.columns if transposed else part.rows))


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
            torch.stack([w.tensor(p.parameter.name).detach().float().reshape(-1) for p in some])
            for w, some in sides
        ]
        projected = [project([table]) for table in tables]
        match = match_equal(*(hash_rows([table]) for table in tables)) or match_similar(*projected)
        for number, part in enumerate(parts):
            base = int(match.index[number])
            if float(projected[1][number] @ projected[0][base]) < _SIMILAR:
                continue
            twin = known[base]
            certainty = place_certainty(alignment, twin, part)
            certainty = min(float(match.certainty[number]), certainty)
            yield ParameterMatch(twin, part, "renamed", certainty)
            remaining.pop(twin.parameter.name)
            unmatched.remove((part, place))


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
