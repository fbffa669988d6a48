"""Alignment of the width, tokens, blocks, experts, heads and channels.

As many units as in the base are the same ones in their places, unless a sample of their rows
differs. Otherwise values decide: equal rows first, then the most similar ones. The width is
aligned by the embedding, before the matrices that use it, and a block before its experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing import unit_matching
from sparsity_report.pairing.alignment import Alignment, Tables, differing_share, match_rows
from sparsity_report.pairing.fingerprints import (
    Fingerprints,
    Floats,
    hash_rows,
    iterate_rows,
    normalize_rows,
    pick_columns,
    read_matrix,
    take_fingerprints,
)
from sparsity_report.pairing.roles import (
    OUTSIDE,
    ModelRoles,
    Part,
    Parts,
    Piece,
    Place,
    experts_module,
    split_fused,
)
from sparsity_report.pairing.unit_matching import UnitMatch, match_identical

# Rows compared per block or expert, or of the embedding, and tokens by which channels are matched.
_SAMPLE, _TOKENS = 64, 2048
# Share of moved rows at which all blocks are compared; certainty of channels of a cut width.
_HALF = 0.5
# Share of moved channels that suggests a rotation, tokens whose angles are compared, and the
# correlation of the angles in a rotated width.
_NEARLY_ALL, _ANGLES, _CORRELATED = 0.9, 256, 0.9
# Matrices that identify blocks, small ones first, and those that can be pruned last.
_IDENTIFYING = ("k", "qkv", "q", "v", "gate", "up", "gate_up", "router", "o", "down")
# Axes within a block. Shared experts and cross-attention have separate axes.
_AXES = ("head", "kv_head", "channel", "channel, shared", "head, cross", "kv_head, cross")
# Matrices with rows of each axis.
_MATRICES = {"head": ("q", "qkv"), "kv_head": ("k", "qkv"), "channel": ("gate", "up", "gate_up")}
# Matrices whose rows belong to the same units.
_TWIN_MATRICES = {"gate": "up"}
# Share of moved rows up to which channels and tokens keep their places.
_FEW_MOVED = 0.1
# Rows sampled per axis, and per expert of many.
_AXIS_SAMPLE, _EXPERT_SAMPLE = 16, 4

# Indices before and after in tensors of several experts.
_Experts = tuple[int | None, int | None]
# First row, units and rows per unit of an axis.
_Range = tuple[int, int, int]


def align(before: ModelRoles, after: ModelRoles) -> Alignment:
    """Return the alignment of a model with its base.

    Raises
    ------
    SparsityReportError
        The model has more units than the base, or they are not recognized.
    """
    alignment = Alignment(before, after)
    _align_embeddings(alignment)
    _align_stacks(alignment)
    for stack_after, stack in alignment.stacks.items():
        match, known = _match_blocks(alignment, stack_after, stack), before.blocks(stack)
        alignment.add("block", (stack, None, None), match, stack)
        for number, place in zip(after.blocks(stack_after), match.index.tolist(), strict=True):
            block = known[place]
            _align_experts(alignment, (stack_after, number), (stack, block))
            _align_block(alignment, (stack_after, number), (stack, block))
    return alignment


def _align_embeddings(alignment: Alignment) -> None:
    """Match the channels of the width, then the tokens."""
    key = ("embed", "weight")
    one, other = alignment.before.at("", None).get(key), alignment.after.at("", None).get(key)
    if one is None or other is None:
        return
    _align_width(alignment, one, other)
    _align_vocabulary(alignment, one, other)


def _align_width(alignment: Alignment, one: Part, other: Part) -> None:
    """Match channels; refuse a rotated width, where hardly any channel matches."""
    (tokens_before, width), (tokens_after, narrower) = one.parameter.shape, other.parameter.shape
    alignment.check_not_more("width", one.module.name, width, narrower)
    # Tokens are in the same order even if some were cut off at the end.
    tokens = min(tokens_before, tokens_after)
    moved = 0.0
    if width == narrower:
        sample = alignment.sample((one, other), lines=(0, 0, tokens), number=_SAMPLE)
        moved = differing_share(sample and (sample[0].T, sample[1].T))
        if moved < _FEW_MOVED:
            return
    sides = ((alignment.before, one), (alignment.after, other))
    tables = [
        pick_columns(read_matrix(side.weights, part, rows=min(tokens, _TOKENS)).T, None)
        for side, part in sides
    ]
    match = match_rows(lambda: (tables[0],), lambda: (tables[1],))
    if width == narrower:
        is_lost = moved >= _NEARLY_ALL and match.is_identity
    else:
        is_lost = bool(match.certainty.mean() < _HALF)
    if is_lost and _have_same_angles(*(table[:, -_ANGLES:] for table in tables)):
        raise SparsityReportError(
            f"{alignment.names}: the width looks rotated, so that no weight matches one of the "
            "base; compare the rotated model before and after pruning"
        )
    if is_lost and tokens_before != tokens_after and width != narrower:
        raise SparsityReportError(
            f"{alignment.names}: both the width and the vocabulary were cut, and the first tokens "
            "do not identify the channels that are left; cut one after the other, and compare each "
            "result with the model before, or the two are unrelated"
        )
    alignment.add("width", OUTSIDE, match, one.module.name)


def _have_same_angles(one: Floats, other: Floats) -> bool:
    """Return whether the angles between tokens, the columns, are nearly the same.

    A rotation keeps them, and cutting unimportant channels changes them little.
    """
    directions = normalize_rows(one.T), normalize_rows(other.T)
    pairs = np.triu_indices(len(directions[0]), 1)
    one, other = ((each @ each.T)[pairs] for each in directions)
    return bool(np.corrcoef(one, other)[0, 1] >= _CORRELATED)


def _align_vocabulary(alignment: Alignment, one: Part, other: Part) -> None:
    base, left = one.parameter.shape[0], other.parameter.shape[0]
    alignment.check_not_more("vocabulary", one.module.name, base, left)
    if base == left and differing_share(alignment.sample((one, other))) < _FEW_MOVED:
        return
    before, after, columns = alignment.before.weights, alignment.after.weights, alignment.columns
    match = match_rows(
        lambda: (pick_columns(rows, columns) for rows in iterate_rows(before, one)),
        lambda: (pick_columns(rows, None) for rows in iterate_rows(after, other)),
    )
    alignment.add("vocabulary", OUTSIDE, match, one.module.name)


def _align_stacks(alignment: Alignment) -> None:
    """Pair stacks of blocks by name, or in order if there are as many."""
    one, other = alignment.before.stacks, alignment.after.stacks
    if set(other) <= set(one):
        alignment.stacks = {name: name for name in other}
    elif len(one) == len(other):
        alignment.stacks = dict(zip(other, one, strict=True))
    else:
        raise SparsityReportError(
            f"{alignment.names} look unrelated: blocks are in {', '.join(one) or 'nothing'} of one "
            f"and in {', '.join(other) or 'nothing'} of the other; give a model and its base"
        )


def _match_row_sets(
    base: Sequence[Mapping[str, Fingerprints]], remaining: Sequence[tuple[str, Fingerprints]]
) -> UnitMatch:
    """Match blocks or experts by common rows, or else by the similarity of their rows.

    Parameters
    ----------
    base : sequence of (mapping of str to Fingerprints)
        For each unit the rows of matrices by role.
    remaining : sequence of (str, Fingerprints)
        For each unit the role of one matrix, and its rows.
    """
    known = [{role: set(rows.digests) for role, rows in each.items()} for each in base]
    candidates = [
        {n for n, each in enumerate(known) if each.get(role, set()).issuperset(rows.digests)}
        for role, rows in remaining
    ]
    if (match := unit_matching.match_candidates(candidates, len(base))) is not None:
        return match
    table = np.zeros((len(remaining), len(base)), dtype=np.float32)
    for number, (role, rows) in enumerate(remaining):
        some = rows.projections[:: max(len(rows.projections) // _SAMPLE, 1)][:_SAMPLE]
        for place, each in enumerate(base):
            if role in each:
                table[number, place] = (some @ each[role].projections.T).max(axis=1).mean()
    # Times the identity, the similarities are themselves.
    units = np.eye(len(base), dtype=np.float32)
    if len(remaining) == len(base):
        return unit_matching.match_in_place(units, table)
    return unit_matching.match_similar(units, table)


def _match_blocks(alignment: Alignment, stack_after: str, stack: str) -> UnitMatch:
    one, other = alignment.before.blocks(stack), alignment.after.blocks(stack_after)
    alignment.check_not_more("block", stack, len(one), len(other))
    base = [_identifying_matrices(alignment.before.at(stack, number)) for number in one]
    remaining = [_identifying_matrices(alignment.after.at(stack_after, n)) for n in other]
    if len(one) == len(other):
        both = [
            next(((b[role], a[role]) for role in b if role in a), None)
            for b, a in zip(base, remaining, strict=True)
        ]
        if not any(pair and _is_moved(alignment, *pair) for pair in both):
            return match_identical(len(one))
    shared = set[str]().union(*base)
    roles = [next((role for role in each if role in shared), "") for each in remaining]
    if not all(roles):
        if len(one) == len(other):
            return match_identical(len(one))
        raise SparsityReportError(
            f"{alignment.names}: {len(other):,} of {len(one):,} blocks are left, and no common "
            "matrix identifies them; compare models whose blocks have matrices"
        )
    known = [
        {role: _piece_rows(alignment, True, *each[role]) for role in set(roles) if role in each}
        for each in base
    ]
    left = [
        (role, _piece_rows(alignment, False, *each[role]))
        for role, each in zip(roles, remaining, strict=True)
    ]
    return _match_row_sets(known, left)


def _identifying_matrices(parts: Parts) -> dict[str, tuple[Part, Piece]]:
    """Return the matrices by role that identify a block, the best one first."""
    matrices = {
        role: (part, piece)
        for part in parts.values()
        for (role, leaf), piece in split_fused(part)
        if leaf == "weight" and part.columns and not piece.expert
    }
    return {role: matrices[role] for role in _IDENTIFYING if role in matrices}


def _is_moved(alignment: Alignment, one: tuple[Part, Piece], other: tuple[Part, Piece]) -> bool:
    """Return whether two matrices in one place are those of different blocks."""
    (before, old), (after, new) = one, other
    rows = old.last - old.first
    if rows != new.last - new.first:
        return True
    lines = (old.first, new.first, rows)
    sample = alignment.sample((before, after), (old.expert, new.expert), lines)
    return differing_share(sample) > _HALF


def _piece_rows(alignment: Alignment, base: bool, part: Part, piece: Piece) -> Fingerprints:
    rows = alignment.read_rows(base, part, piece.expert)
    return take_fingerprints(rows[piece.first : piece.last])


def _align_experts(alignment: Alignment, after: tuple[str, int], base: tuple[str, int]) -> None:
    sides = ((alignment.before, *base), (alignment.after, *after))
    matrices = [list(_expert_matrices(side, stack, block)) for side, stack, block in sides]
    one, other = map(len, matrices)
    if not (one and other):
        return
    module = experts_module(matrices[0][0][0])
    alignment.check_not_more("expert", module, one, other)
    routers = [side.at(stack, block).get(("router", "weight")) for side, stack, block in sides]
    match = None
    if (old := routers[0]) and (new := routers[1]):
        tables = alignment.read_rows(True, old), alignment.read_rows(False, new)
        if one == other and not differing_share(tables):
            return
        match = unit_matching.match_equal(*map(hash_rows, tables))
    if match is None or match.certainty.min(initial=1) < 1:
        known, left = (
            [take_fingerprints(alignment.read_rows(is_base, *each)) for each in side]
            for is_base, side in zip((True, False), matrices, strict=True)
        )
        match = _match_row_sets([{"": rows} for rows in known], [("", rows) for rows in left])
    alignment.add("expert", (*base, None), match, module)


def _expert_matrices(side: ModelRoles, stack: str, block: int) -> Iterator[tuple[Part, int | None]]:
    """Yield for each expert a matrix that identifies it, and its index in a stacked tensor."""
    for role in ("gate", "gate_up", "up"):
        if (part := side.at(stack, block).get((role, "weight"))) and part.stacked:
            yield from ((part, number) for number in range(part.stacked))
            return
        if numbers := [
            e for e in side.experts(stack, block) if (role, "weight") in side.at(stack, block, e)
        ]:
            yield from ((side.at(stack, block, e)[role, "weight"], None) for e in numbers)
            return


def _align_block(alignment: Alignment, after: tuple[str, int], base: tuple[str, int]) -> None:
    """Match the heads and channels of a block, and of each of its experts."""
    parts = alignment.before.at(*base), alignment.after.at(*after)
    for axis in _AXES:
        _align_axis(alignment, axis, (*base, None), parts, None)
    known = alignment.before.experts(*base)
    for number, expert in enumerate(alignment.after.experts(*after)):
        match = alignment.match("expert", (*base, None), number + 1)
        if number < match.index.size and int(match.index[number]) < len(known):
            place = (*base, known[int(match.index[number])])
            inner = alignment.before.at(*place), alignment.after.at(*after, expert)
            _align_axis(alignment, "channel", place, inner, None)
    stack = next((p for p in parts[1].values() if p.stacked), None)
    if stack is not None:
        match = alignment.match("expert", (*base, None), stack.stacked)
        for number, expert in enumerate(match.index.tolist()):
            _align_axis(alignment, "channel", (*base, expert), parts, number)


def _align_axis(
    alignment: Alignment, axis: str, place: Place, sides: tuple[Parts, ...], number: int | None
) -> None:
    """Match the units of an axis in a place by the rows of the first matrix that has it."""
    kind, comma, suffix = axis.partition(",")
    for role, role_after in _matrix_roles(kind):
        one, other = (
            side.get((f"{each}{comma}{suffix}", "weight"))
            for each, side in zip((role, role_after), sides, strict=True)
        )
        if one is None or other is None or bool(one.stacked) != (number is not None):
            continue
        ranges = [rows for part in (one, other) if (rows := _axis_rows(part, axis))]
        if len(ranges) < 2:
            continue
        (first, base, lines), (_, left, lines_after) = ranges
        alignment.check_not_more(axis, one.module.name, base, left)
        if lines != lines_after:
            raise SparsityReportError(
                f"{alignment.names}: a head of {one.module.name} has {lines:,} rows in one and "
                f"{lines_after:,} in the other; give models with heads of one size"
            )
        experts = (place[2] if number is not None else None, number)
        span = (first, ranges[1][0], base, lines)
        if base == left and _keeps_places(alignment, (one, other), experts, span):
            return
        tables = [_unit_tables(alignment, (one, other), experts, ranges)]
        twin = (f"{_TWIN_MATRICES.get(role_after)}{comma}{suffix}", "weight")
        twins = [side[twin] for side in sides if twin in side]
        if [_axis_rows(part, axis) for part in twins] == ranges:
            tables.append(_unit_tables(alignment, (twins[0], twins[1]), experts, ranges))
        module = one.module.name.rpartition(".")[0]
        if number is not None:
            module = f"{experts_module(one)}.{place[2]}"
        alignment.add(axis, place, match_rows(*tables[0], *tables[1:]), module)
        return


def _matrix_roles(kind: str) -> Iterator[tuple[str, str]]:
    """Yield roles of matrices before and after with rows of an axis, in the same order."""
    roles = _MATRICES[kind]
    yield from zip(roles, roles, strict=True)
    # A fused matrix begins with the rows of the separate one.
    for separate, fused in (("q", "qkv"), ("k", "qkv"), ("gate", "gate_up")):
        if separate in roles:
            yield from ((separate, fused), (fused, separate))


def _unit_tables(
    alignment: Alignment, parts: tuple[Part, Part], experts: _Experts, ranges: Sequence[_Range]
) -> tuple[Tables, Tables]:
    """Return functions that read the units of an axis in a matrix of each model."""

    def table(side: int) -> Iterator[Floats]:
        first, number, lines = ranges[side]
        rows = alignment.read_rows(not side, parts[side], experts[side])
        yield rows[first : first + number * lines].reshape(number, -1)

    return partial(table, 0), partial(table, 1)


def _keeps_places(
    alignment: Alignment, parts: tuple[Part, Part], experts: _Experts, span: tuple[int, ...]
) -> bool:
    """Return whether sampled rows of an axis, one per head, are in their places."""
    first, start, number, lines = span
    of_experts = parts[0].expert is not None or bool(parts[0].stacked)
    heads = max(number, _AXIS_SAMPLE) if lines > 1 else _AXIS_SAMPLE
    some = _EXPERT_SAMPLE if of_experts else heads
    sample = alignment.sample(parts, experts, (first, start, number * lines), some)
    return differing_share(sample) <= (0 if of_experts or lines > 1 else _FEW_MOVED)


def _axis_rows(part: Part, axis: str) -> _Range | None:
    """Return the first row, the units and the rows per unit of an axis in a matrix."""
    start = 0
    for segment in part.rows:
        if segment.axis == axis:
            return start, segment.units, segment.lines
        start += segment.size
    return None
