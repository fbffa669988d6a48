"""What of a base is left in another model: blocks, experts, heads, channels, tokens, width.

What is as many in both is the same, in its place, unless a glimpse says that it is not. Where it
does, or the numbers differ, values tell: rows with equal values first, then those that are most
alike. Every width is known before what stands in it is compared, and a block before its experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing.alignment import (
    Alignment,
    Place,
    Tables,
    apart,
    as_many,
    away,
    check,
    matched,
    named,
    rows,
)
from sparsity_report.pairing.embeddings import width_and_vocabulary
from sparsity_report.pairing.fingerprints import Seen, digests, seen
from sparsity_report.pairing.fused import pieces_of
from sparsity_report.pairing.matches import Piece
from sparsity_report.pairing.roles import Anatomy, Part
from sparsity_report.pairing.unit_matching import Match, equal, likest, one_of, reordered, same

# Rows that tell blocks, or experts, apart, and how many of a few are elsewhere before all are read.
_SAMPLE, _HALF = 64, 0.5
# Matrices whose rows tell blocks and experts apart: small ones first, those that can be cut last.
_TELLING = ("k", "qkv", "q", "v", "gate", "up", "gate_up", "router", "o", "down")
# What is matched in a block; experts that all tokens see, and what looks at another text, have
# channels and heads of their own.
_AXES = ("head", "kv_head", "channel", "channel, shared", "head, cross", "kv_head, cross")
# Of each kind the matrices whose rows it has, and the share of a few that may be elsewhere.
_WITNESSES = {"head": ("q", "qkv"), "kv_head": ("k", "qkv"), "channel": ("gate", "up", "gate_up")}
# What has the same units.
_BESIDE = {"gate": "up"}
_MANY = 0.1
# Rows of an axis that are looked at, and of one expert of many.
_GLIMPSES, _OF_AN_EXPERT = 16, 4


def align(before: Anatomy, after: Anatomy) -> Alignment:
    """Find out what of a base is left.

    Raises
    ------
    SparsityReportError
        There is more than there was, or what there is is not the base's.
    """
    found = Alignment(before, after)
    width_and_vocabulary(found)
    _stacks(found)
    for stack_after, stack in found.stacks.items():
        found.blocks[stack] = _blocks(found, stack_after, stack)
        numbers = found.before.blocks(stack)
        for place, number in enumerate(found.after.blocks(stack_after)):
            block = numbers[int(found.blocks[stack].index[place])]
            _experts(found, (stack_after, number), (stack, block))
            _inside(found, (stack_after, number), (stack, block))
    return found


def _stacks(found: Alignment) -> None:
    """Pair what holds blocks by name, else in order where there are as many."""
    one, other = found.before.stacks, found.after.stacks
    if set(other) <= set(one):
        found.stacks = {name: name for name in other}
    elif len(one) == len(other):
        found.stacks = dict(zip(other, one, strict=True))
    else:
        raise SparsityReportError(
            f"{named(found)} look unrelated: blocks are in {', '.join(one) or 'nothing'} of one "
            f"and in {', '.join(other) or 'nothing'} of the other"
        )


def _same_rows(base: Sequence[Mapping[str, Seen]], stayed: Sequence[tuple[str, Seen]]) -> Match:
    """Match sets of rows: by how many of one are in the other, else by how alike they are.

    Parameters
    ----------
    base : sequence of (mapping of str to Seen)
        Of each block or expert, the rows of matrices by their roles.
    stayed : sequence of (str, Seen)
        Of each the rows of one matrix, and its role.
    """
    known = [{role: set(told.digests) for role, told in each.items()} for each in base]
    candidates = [
        {n for n, each in enumerate(known) if each.get(role, set()).issuperset(told.digests)}
        for role, told in stayed
    ]
    if (found := one_of(candidates, len(base))) is not None:
        return found
    table = np.zeros((len(stayed), len(base)), dtype=np.float32)
    for number, (role, told) in enumerate(stayed):
        some = told.drawn[:: max(len(told.drawn) // _SAMPLE, 1)][:_SAMPLE]
        for place, each in enumerate(base):
            if role in each:
                table[number, place] = (some @ each[role].drawn.T).max(axis=1).mean()
    if len(stayed) == len(base):
        return reordered(lambda start, stop: table[start:stop], len(base)) or same(len(base))
    return likest(lambda start, stop: table[start:stop], len(stayed), len(base))


def _blocks(found: Alignment, stack_after: str, stack: str) -> Match:
    one, other = found.before.blocks(stack), found.after.blocks(stack_after)
    if as_many(found, "block", stack, len(one), len(other)):
        return same(len(one))
    base = [_told(found.before.at(stack, number)) for number in one]
    stayed = [_told(found.after.at(stack_after, number)) for number in other]
    if len(one) == len(other):
        both = [
            next(((b[role], a[role]) for role in _TELLING if role in b and role in a), None)
            for b, a in zip(base, stayed, strict=True)
        ]
        if not any(pair and _block_away(found, *pair) for pair in both):
            return same(len(one))
    shared = set[str]().union(*base)
    roles = [next((role for role in each if role in shared), "") for each in stayed]
    if not all(roles):
        if len(one) == len(other):
            return same(len(one))
        raise SparsityReportError(
            f"{named(found)}: of {len(one):,} blocks {len(other):,} are left, and no matrix that "
            "all of them have tells which"
        )
    known = [
        {role: _rows_of(found, True, *each[role]) for role in dict.fromkeys(roles) if role in each}
        for each in base
    ]
    left = [
        (role, _rows_of(found, False, *each[role]))
        for role, each in zip(roles, stayed, strict=True)
    ]
    return check(found, _same_rows(known, left), "block", stack)


def _told(parts: Mapping[tuple[str, str], Part]) -> dict[str, tuple[Part, Piece]]:
    """Return the matrices of a block that tell it from others, the first one best."""
    told = {
        role: (part, piece)
        for part in parts.values()
        for (role, leaf), piece in pieces_of(part)
        if leaf == "weight" and part.columns and not piece.expert
    }
    return {role: told[role] for role in _TELLING if role in told}


def _block_away(found: Alignment, one: tuple[Part, Piece], other: tuple[Part, Piece]) -> bool:
    (before, old), (after, new) = one, other
    many = old.last - old.first
    if many != new.last - new.first:
        return True
    lines = (old.first, new.first, many)
    return away(found, (before, after), (old.expert, new.expert), lines) > _HALF


def _rows_of(found: Alignment, base: bool, part: Part, piece: Piece) -> Seen:
    return seen([rows(found, base, part, piece.expert)[piece.first : piece.last]])


def _seen(found: Alignment, base: bool, part: Part, expert: int | None) -> Seen:
    return seen([rows(found, base, part, expert)])


def _experts(found: Alignment, after: tuple[str, int], base: tuple[str, int]) -> None:
    sides = ((found.before, *base), (found.after, *after))
    told = [list(_expert_parts(side, stack, block)) for side, stack, block in sides]
    one, other = map(len, told)
    where = f"{base[0]}.{base[1]}"
    if not (one and other):
        return
    if as_many(found, "expert", where, one, other):
        return
    routers = [side.at(stack, block).get(("router", "weight")) for side, stack, block in sides]
    match = None
    if (old := routers[0]) and (new := routers[1]):
        tables = rows(found, True, old), rows(found, False, new)
        if one == other and not apart(*tables):
            return
        match = equal(*map(digests, ([table] for table in tables)))
    if match is None or match.certainty.min(initial=1) < 1:
        known = [{"": _seen(found, True, *each)} for each in told[0]]
        match = _same_rows(known, [("", _seen(found, False, *each)) for each in told[1]])
    if not match.is_identity:
        found.units["expert", (*base, None)] = check(found, match, "expert", where)


def _expert_parts(side: Anatomy, stack: str, block: int) -> Iterator[tuple[Part, int | None]]:
    """Yield of each expert a matrix that tells it apart, and its number in a stack of several."""
    for role in ("gate", "gate_up", "up"):
        if (part := side.at(stack, block).get((role, "weight"))) and part.stacked:
            yield from ((part, number) for number in range(part.stacked))
            return
        if numbers := [
            e for e in side.experts(stack, block) if (role, "weight") in side.at(stack, block, e)
        ]:
            yield from ((side.at(stack, block, e)[role, "weight"], None) for e in numbers)
            return


def _inside(found: Alignment, after: tuple[str, int], base: tuple[str, int]) -> None:
    """Match heads and channels of a block, and of each of its experts."""
    for axis in _AXES:
        _units(found, axis, (*base, None), (found.before.at(*base), found.after.at(*after)), None)
    for number, expert in enumerate(found.after.experts(*after)):
        match = found.match("expert", (*base, None), number + 1)
        known = found.before.experts(*base)
        if number < match.index.size and int(match.index[number]) < len(known):
            place = (*base, known[int(match.index[number])])
            parts = found.before.at(*place), found.after.at(*after, expert)
            _units(found, "channel", place, parts, None)
    stack = next((p for p in found.after.at(*after).values() if p.stacked), None)
    if stack is not None:
        match = found.match("expert", (*base, None), stack.stacked)
        parts = found.before.at(*base), found.after.at(*after)
        for number, expert in enumerate(match.index.tolist()):
            _units(found, "channel", (*base, expert), parts, number)


def _units(
    found: Alignment,
    axis: str,
    place: Place,
    parts: tuple[Mapping[tuple[str, str], Part], ...],
    number: int | None,
) -> None:
    """Match units of one axis in one place by the rows of the first matrix that has it."""
    kind, comma, more = axis.partition(",")
    for role, of_after in _witnesses(kind):
        one, other = (
            side.get((f"{each}{comma}{more}", "weight"))
            for each, side in zip((role, of_after), parts, strict=True)
        )
        if one is None or other is None or bool(one.stacked) != (number is not None):
            continue
        cuts = [cut for part in (one, other) if (cut := _cut(part, axis))]
        if len(cuts) < len(parts):
            continue
        (first, was, lines), (start, now, many) = cuts
        if as_many(found, axis, one.module.name, was, now):
            return
        if lines != many:
            raise SparsityReportError(
                f"{named(found)}: a head of {one.module.name} has {lines:,} rows in one and "
                f"{many:,} in the other"
            )
        experts = (place[2] if number is not None else None, number)
        if was == now and _there(found, (one, other), experts, (first, start, was, lines)):
            return
        tables = [_read(found, (one, other), experts, cuts)]
        beside = [side.get((f"{_BESIDE.get(of_after)}{comma}{more}", "weight")) for side in parts]
        if beside[0] and beside[1] and [_cut(part, axis) for part in beside if part] == cuts:
            tables.append(_read(found, (beside[0], beside[1]), experts, cuts))
        match = matched(*tables[0], *tables[1:])
        if not match.is_identity:
            found.units[axis, place] = check(found, match, axis, one.module.name)
        return


def _witnesses(kind: str) -> Iterator[tuple[str, str]]:
    """Yield roles of matrices before and after that have rows of a kind, in one order."""
    roles = _WITNESSES[kind]
    yield from zip(roles, roles, strict=True)
    # Of those that are fused in one model the first ones are what the other has alone.
    for alone, fused in (("q", "qkv"), ("k", "qkv"), ("gate", "gate_up")):
        if alone in roles:
            yield from ((alone, fused), (fused, alone))


def _read(
    found: Alignment,
    parts: tuple[Part, Part],
    experts: tuple[int | None, int | None],
    cuts: Sequence[tuple[int, int, int]],
) -> tuple[Tables, Tables]:
    """Return the units of an axis in a matrix of each model, read when they are asked for."""

    def table(side: int) -> Iterator[torch.Tensor]:
        first, number, lines = cuts[side]
        some = rows(found, not side, parts[side], experts[side])[first : first + number * lines]
        yield some.reshape(number, -1)

    return partial(table, 0), partial(table, 1)


def _there(
    found: Alignment,
    parts: tuple[Part, Part],
    experts: tuple[int | None, int | None],
    cut: tuple[int, int, int, int],
) -> bool:
    """Whether a few rows of an axis, of each head one, are what they were."""
    first, start, number, lines = cut
    few = parts[0].expert is not None or bool(parts[0].stacked)
    some = _OF_AN_EXPERT if few else max(number, _GLIMPSES) if lines > 1 else _GLIMPSES
    share = away(found, parts, experts, (first, start, number * lines), some)
    return share <= (0 if few or lines > 1 else _MANY)


def _cut(part: Part, axis: str) -> tuple[int, int, int] | None:
    """Return the first row, the units and the lines of an axis in a matrix."""
    start = 0
    for segment in part.rows:
        if segment.axis == axis:
            return start, segment.units, segment.lines
        start += segment.size
    return None
