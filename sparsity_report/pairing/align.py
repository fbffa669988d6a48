"""What of a base is left in another model: blocks, experts, heads, channels, tokens, width.

What is as many in both is taken to be the same, in its place. Where the numbers differ, values
tell: rows with equal values first, then those that are most alike. Every width is known before what
stands in it is compared, and a block before its experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing.look import Index, digests, matrix, projections, rows_of, units
from sparsity_report.pairing.match import Match, alike, equal, likest, same
from sparsity_report.pairing.roles import Anatomy, Part

Place = tuple[str, int | None, int | None]
# Less sure than this, nothing is recognised at all.
_RECOGNISED = 0.1
# Tokens whose values tell one channel of the width from another, and rows that tell blocks apart.
_TOKENS, _SAMPLE = 2048, 64
# Matrices whose rows tell blocks and experts apart, those that are small first.
_TELLING = ("k", "qkv", "q", "v", "gate", "up", "gate_up", "router")
# Of each axis the matrices whose rows it has.
_WITNESSES = {
    "head": ("q", "qkv"),
    "kv_head": ("k", "qkv"),
    "channel": ("gate", "up", "gate_up"),
}
_PLURAL = {
    "head": "heads", "kv_head": "key-value heads", "channel": "channels", "expert": "experts",
    "vocabulary": "tokens", "width": "channels of the width", "block": "blocks",
}  # fmt: skip


@dataclass
class Alignment:
    """Which units of the base those of the model after are.

    Attributes
    ----------
    before, after : Anatomy
    stacks : dict of str to str
        The base's name of what holds blocks, by the name after.
    blocks : dict of str to Match
        By the base's stack; numbers are places among the blocks there.
    units : dict
        Matches by axis and place in the base, those only that are not the same.
    """

    before: Anatomy
    after: Anatomy
    stacks: dict[str, str] = field(default_factory=dict)
    blocks: dict[str, Match] = field(default_factory=dict)
    units: dict[tuple[str, Place], Match] = field(default_factory=dict)

    def match(self, axis: str, place: Place, number: int) -> Match:
        """Return where units of an axis in a place come from."""
        if axis in {"width", "vocabulary"}:
            place = ("", None, None)
        elif axis == "expert":
            place = (*place[:2], None)
        return self.units.get((axis, place)) or same(number)

    def base_place(self, part: Part) -> Place | None:
        """Return where in the base a part of the model after stood."""
        if part.block is None:
            return ("", None, None)
        stack = self.stacks.get(part.stack)
        if stack is None:
            return None
        number = self.after.blocks(part.stack).index(part.block)
        block = self.before.blocks(stack)[int(self.blocks[stack].index[number])]
        expert = part.expert
        if expert is not None and (found := self.units.get(("expert", (stack, block, None)))):
            expert = int(found.index[self.after.experts(part.stack, part.block).index(expert)])
            expert = self.before.experts(stack, block)[expert]
        return stack, block, expert


def align(before: Anatomy, after: Anatomy) -> Alignment:
    """Find out what of a base is left.

    Raises
    ------
    SparsityReportError
        There is more than there was, or what there is is not the base's.
    """
    found = Alignment(before, after)
    _vocabulary_and_width(found)
    _stacks(found)
    for stack_after, stack in found.stacks.items():
        found.blocks[stack] = _blocks(found, stack_after, stack)
        numbers = found.before.blocks(stack)
        for place, number in enumerate(found.after.blocks(stack_after)):
            block = numbers[int(found.blocks[stack].index[place])]
            _experts(found, (stack_after, number), (stack, block))
            _inside(found, (stack_after, number), (stack, block))
    return found


def _named(found: Alignment) -> str:
    return f"{found.before.weights.name} and {found.after.weights.name}"


def check(found: Alignment, match: Match, axis: str, where: str) -> Match:
    """Refuse what was not recognised."""
    if match.index.size and (sure := float(np.mean(match.certainty))) < _RECOGNISED:
        raise SparsityReportError(
            f"{_named(found)} look unrelated: of the {match.index.size:,} {_PLURAL[axis]} of "
            f"{where} hardly one is recognised among those of the base (certainty {sure:.2f}); "
            "give the base that the second one was made from"
        )
    return match


def _fewer(found: Alignment, axis: str, where: str, was: int, now: int) -> None:
    if now > was:
        raise SparsityReportError(
            f"{where} has {now:,} {_PLURAL[axis]} in {found.after.weights.name} and {was:,} in "
            f"{found.before.weights.name}: give the larger model first, as the base"
        )


def _vocabulary_and_width(found: Alignment) -> None:
    tables = [side.at("", None).get(("embed", "weight")) for side in (found.before, found.after)]
    one, other = tables
    if one is None or other is None or not (one.columns and other.columns):
        return
    (was, width), (now, narrower) = one.parameter.shape, other.parameter.shape
    key, where = ("", None, None), one.module.name
    if width != narrower:
        _fewer(found, "width", where, width, narrower)
        # Tokens are in one order, also where some were cut off at the end.
        most = min(was, now, _TOKENS)
        sides = (
            (found.before, one), (found.after, other)
        )  # fmt: skip
        seen = [[matrix(a.weights, p, most=most).float().T.contiguous()] for a, p in sides]
        match = equal(*map(digests, seen)) or alike(*map(projections, seen))
        found.units["width", key] = check(found, match, "width", where)
    if was != now:
        _fewer(found, "vocabulary", where, was, now)
        columns = _columns(found)
        told: list[list[bytes]] = []
        for side, part, some in ((found.before, one, columns), (found.after, other, None)):
            rows = rows_of(side.weights, part)
            told.append([d for chunk in rows for d in digests([units(chunk, 1, some)])])
        match = equal(*told) or alike(
            *(
                np.concatenate([projections([units(c, 1, some)]) for c in rows_of(s.weights, p)])
                for s, p, some in ((found.before, one, columns), (found.after, other, None))
            )
        )
        found.units["vocabulary", key] = check(found, match, "vocabulary", where)


def _columns(found: Alignment) -> Index | None:
    """Return the channels of the base's width that are left; None where all are."""
    match = found.units.get(("width", ("", None, None)))
    return match.index if match else None


def _stacks(found: Alignment) -> None:
    """Pair what holds blocks by name, else in order where there are as many."""
    one, other = found.before.stacks, found.after.stacks
    if set(other) <= set(one):
        found.stacks = {name: name for name in other}
    elif len(one) == len(other):
        found.stacks = dict(zip(other, one, strict=True))
    else:
        raise SparsityReportError(
            f"{_named(found)} look unrelated: blocks are in {', '.join(one) or 'nothing'} of one "
            f"and in {', '.join(other) or 'nothing'} of the other"
        )


def _rows(found: Alignment, base: bool, part: Part, expert: int | None = None) -> torch.Tensor:
    """Read the rows of a matrix, in the width that both have."""
    side = found.before if base else found.after
    wide = [segment.axis for segment in part.columns] == ["width"]
    return units(matrix(side.weights, part, expert), 1, _columns(found) if base and wide else None)


def _same_rows(base: list[torch.Tensor], stayed: list[torch.Tensor]) -> Match:
    """Match sets of rows: by how many of one are in the other, else by how alike they are."""
    known = [set(digests([rows])) for rows in base]
    of = [digests([rows]) for rows in stayed]
    shares = np.array([[sum(d in k for d in ds) / len(ds) for k in known] for ds in of])
    if bool((shares.max(axis=1) == 1).all()):
        tops = (shares == 1).sum(axis=1)
        if bool((tops == 1).all()) and len(set(shares.argmax(axis=1).tolist())) == len(of):
            gone = sorted(set(range(len(base))) - set(shares.argmax(axis=1).tolist()))
            index = shares.argmax(axis=1).astype(np.int64)
            return Match(index, np.ones(len(of)), dict.fromkeys(gone, 1.0))
    drawn = [projections([rows]) for rows in base]
    some = [projections([r[:: max(len(r) // _SAMPLE, 1)][:_SAMPLE]]) for r in stayed]
    table = np.array(
        [[float((rows @ each.T).max(axis=1).mean()) for each in drawn] for rows in some],
        dtype=np.float32,
    )
    return likest(lambda start, stop: table[start:stop], len(some), len(drawn))


def _blocks(found: Alignment, stack_after: str, stack: str) -> Match:
    one, other = found.before.blocks(stack), found.after.blocks(stack_after)
    if len(one) == len(other):
        return same(len(one))
    _fewer(found, "block", stack, len(one), len(other))
    sides = ((found.before, stack, one), (found.after, stack_after, other))
    shared = [
        role
        for role in _TELLING
        if all((role, "weight") in side.at(s, b) for side, s, numbers in sides for b in numbers)
    ]
    if not shared:
        raise SparsityReportError(
            f"{_named(found)}: of {len(one):,} blocks {len(other):,} are left, and no matrix that "
            "all of them have tells which"
        )
    key = (shared[0], "weight")
    base, stayed = (
        [
            _rows(
                found,
                side is found.before,
                side.at(s, b)[key],
                0 if side.at(s, b)[key].stacked else None,
            )
            for b in numbers
        ]
        for side, s, numbers in sides
    )
    return check(found, _same_rows(base, stayed), "block", stack)


def _experts(found: Alignment, after: tuple[str, int], base: tuple[str, int]) -> None:
    sides = ((found.before, *base), (found.after, *after))
    told = [list(_expert_parts(side, stack, block)) for side, stack, block in sides]
    one, other = map(len, told)
    where = f"{base[0]}.{base[1]}"
    if one == other or not (one and other):
        return
    _fewer(found, "expert", where, one, other)
    match = None
    routers = [side.at(stack, block).get(("router", "weight")) for side, stack, block in sides]
    if (old := routers[0]) and (new := routers[1]):
        match = equal(digests([_rows(found, True, old)]), digests([_rows(found, False, new)]))
    if match is None or match.certainty.min() < 1:
        rows = [
            [_rows(found, base, *p) for p in ps]
            for base, ps in zip((True, False), told, strict=True)
        ]
        match = _same_rows(*rows)
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
    for axis in ("head", "kv_head", "channel"):
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
    for role in _WITNESSES[axis]:
        one, other = (side.get((role, "weight")) for side in parts)
        if one is None or other is None or bool(one.stacked) != (number is not None):
            continue
        cuts = [_cut(part, axis) for part in (one, other)]
        if None in cuts:
            continue
        (first, was, lines), (start, now, many) = (c for c in cuts if c)
        if was == now:
            return
        _fewer(found, axis, one.module.name, was, now)
        if lines != many:
            raise SparsityReportError(
                f"{_named(found)}: a head of {one.module.name} has {lines:,} rows in one and "
                f"{many:,} in the other"
            )
        expert = place[2] if number is not None else None
        tables = [
            _rows(found, True, one, expert)[first : first + was * lines],
            _rows(found, False, other, number)[start : start + now * lines],
        ]
        seen = [[table.reshape(-1, lines * table.shape[1])] for table in tables]
        match = equal(*map(digests, seen)) or alike(*map(projections, seen))
        found.units[axis, place] = check(found, match, axis, one.module.name)
        return


def _cut(part: Part, axis: str) -> tuple[int, int, int] | None:
    """Return the first row, the units and the lines of an axis in a matrix."""
    start = 0
    for segment in part.rows:
        if segment.axis == axis:
            return start, segment.units, segment.lines
        start += segment.size
    return None
