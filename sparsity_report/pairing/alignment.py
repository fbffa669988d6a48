"""Which units of a base those of another model are, and what nothing is recognised by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch

from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing.fingerprints import Index, digests, glimpse, matrix, projections, units
from sparsity_report.pairing.roles import Anatomy, Part
from sparsity_report.pairing.unit_matching import Match, alike, cosines, equal, reordered, same

Place = tuple[str, int | None, int | None]
Tables = Callable[[], Iterable[torch.Tensor]]
"""Rows of which each is a unit, some at a time, as often as they are asked for."""
WHOLE: Place = ("", None, None)
"""Outside of blocks."""
# Less sure than this, and less alike, nothing is recognised at all.
_RECOGNISED, _LIKE = 0.1, 0.5
# How much alike a row is that is in its place; rows of fewer values are alike by chance.
_THERE, _TELLING = 0.5, 32
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
    rotated : bool
        Whether channels of the width are mixtures of the base's, none of them any one of those.
    """

    before: Anatomy
    after: Anatomy
    stacks: dict[str, str] = field(default_factory=dict)
    blocks: dict[str, Match] = field(default_factory=dict)
    units: dict[tuple[str, Place], Match] = field(default_factory=dict)
    rotated: bool = False

    @property
    def columns(self) -> Index | None:
        """The channels of the base's width that are left, in their order; None of all in theirs."""
        found = self.units.get(("width", WHOLE))
        return found.index if found else None

    def match(self, axis: str, place: Place, number: int) -> Match:
        """Return where units of an axis in a place come from."""
        if axis in {"width", "vocabulary"}:
            place = WHOLE
        elif axis == "expert":
            place = (*place[:2], None)
        return self.units.get((axis, place)) or same(number)

    def base_place(self, part: Part) -> Place | None:
        """Return where in the base a part of the model after stood."""
        if part.block is None:
            return WHOLE
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


def plural(axis: str) -> str:
    """Return what several units of an axis are called.

    Examples
    --------
    >>> plural("kv_head"), plural("channel, shared")
    ('key-value heads', 'channels')
    """
    return _PLURAL[axis.partition(",")[0]]


def named(found: Alignment) -> str:
    """Return what both models are called."""
    return f"{found.before.weights.name} and {found.after.weights.name}"


def check(found: Alignment, match: Match, axis: str, where: str) -> Match:
    """Refuse what was not recognised."""
    sure = float(np.mean(match.certainty)) if match.index.size else 1.0
    if sure < _RECOGNISED and match.likeness < _LIKE:
        raise SparsityReportError(
            f"{named(found)} look unrelated: of the {match.index.size:,} {plural(axis)} of "
            f"{where} hardly one is recognised among those of the base (certainty {sure:.2f}); "
            "give the base that the second one was made from"
        )
    return match


def fewer(found: Alignment, axis: str, where: str, was: int, now: int) -> None:
    """Refuse more than there were."""
    if now <= was:
        return
    sides = (found.before.weights, found.after.weights)
    kinds = [weights.architecture for weights in sides]
    other = f"; a {kinds[0]} and a {kinds[1]} may be unrelated" if kinds[0] != kinds[1] else ""
    raise SparsityReportError(
        f"{where} has {now:,} {plural(axis)} in {sides[1].name} and {was:,} in {sides[0].name}: "
        f"give the larger model first, as the base{other}"
    )


def as_many(found: Alignment, axis: str, where: str, was: int, now: int) -> bool:
    """Whether units are the same without a look: as many, in a width that values cannot tell."""
    fewer(found, axis, where, was, now)
    if found.rotated and was != now:
        raise SparsityReportError(
            f"{named(found)}: the width looks rotated, so that nothing tells which of the {was:,} "
            f"{plural(axis)} of {where} are the {now:,} that are left"
        )
    return found.rotated


def rows(found: Alignment, base: bool, part: Part, expert: int | None = None) -> torch.Tensor:
    """Read the rows of a matrix, in the width that both have."""
    side = found.before if base else found.after
    wide = [segment.axis for segment in part.columns] == ["width"]
    return units(matrix(side.weights, part, expert), 1, found.columns if base and wide else None)


def held(table: torch.Tensor) -> Tables:
    """Return a table in memory as it is asked for."""
    return lambda: (table,)


def matched(base: Tables, stayed: Tables, *beside: tuple[Tables, Tables]) -> Match:
    """Match units, rows of tables: equal ones first, else those that are most alike.

    As many as there were are the same ones, unless their values clearly say something else. What
    else the units have, `beside`, is asked for where values are not equal: rows of one matrix can
    be much like each other.
    """
    told = [[d for table in tables() for d in digests([table])] for tables in (base, stayed)]
    if (found := equal(*told)) is not None:
        return found
    # Few need the projections, which take longer than to read once more.
    one, other = (
        np.concatenate([projections(some) for some in zip(*(t() for t in side), strict=True)])
        for side in zip((base, stayed), *beside, strict=True)
    )
    if len(one) != len(other):
        return alike(one, other)
    return reordered(cosines(one, other), len(one)) or same(len(one))


def away(
    found: Alignment,
    parts: tuple[Part, Part],
    experts: tuple[int | None, int | None] = (None, None),
    lines: tuple[int, int, int] | None = None,
    number: int = 16,
) -> float:
    """Return the share of a few rows of a matrix that are not what they were in their places.

    Parameters
    ----------
    found : Alignment
    parts : pair of Part
        Before and after.
    experts : pair of int or None
        In tensors of several.
    lines : tuple of int
        The first row before and after, and how many there are in both; all if not given.
    number : int
        Rows that are looked at.
    """
    wide = [segment.axis for segment in parts[0].columns] == ["width"]
    sizes = [sum(s.size for s in part.columns) for part in parts]
    first, start, many = lines or (0, 0, sum(s.size for s in parts[0].rows))
    some = np.unique(np.linspace(0, many - 1, number).round().astype(np.int64))
    inputs = found.columns if wide and found.columns is not None else np.arange(sizes[0])
    if inputs.size != sizes[1]:
        return 0.0
    one = glimpse(found.before.weights, parts[0], experts[0], first + some, inputs)
    other = glimpse(found.after.weights, parts[1], experts[1], start + some, np.arange(sizes[1]))
    return 0.0 if one is None or other is None else apart(one, other)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the share of rows that are not much like those in the same places.

    Examples
    --------
    >>> apart(torch.eye(32), torch.eye(32)[[1, 0, *range(2, 32)]])
    0.0625
    """
    if other.shape[1] < _TELLING:
        return 0.0
    cosines = torch.nn.functional.cosine_similarity(one, other, dim=1)
    # Of rows of zeros nothing is known.
    there = (cosines >= _THERE) | ~one.any(dim=1) | ~other.any(dim=1)
    return float((~there).float().mean())
