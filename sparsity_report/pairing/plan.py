"""Which parameter of a model is which of another, and which of its rows and columns are left."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing.align import align
from sparsity_report.pairing.alignment import Alignment, Place, named, plural
from sparsity_report.pairing.look import Index, digests, projections
from sparsity_report.pairing.match import Match, alike, equal
from sparsity_report.pairing.roles import Part, Segment, anatomy, grouped
from sparsity_report.weights.parameters import Parameter
from sparsity_report.weights.weights import Weights

# How a parameter was recognised, the most doubtful way first.
ALIGNMENTS = (
    "rotated",
    "content",
    "reordered",
    "fused",
    "turned",
    "renamed",
    "name",
    "added",
    "removed",
)
# Values of what is recognised by them alone, and how much alike they must be.
_SMALL, _ALIKE = 2**20, 0.5
# Matrices of which several may be one, in the order of its rows.
_FUSED = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}


class Piece(NamedTuple):
    """A matrix inside of a parameter: of one expert, and of the rows of one segment.

    Attributes
    ----------
    expert : int or None
        In a tensor of several.
    first, last : int
        Rows, as outputs.
    """

    expert: int | None
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class Link:
    """A parameter of the base and the one that became of it; without one side, what is gone or new.

    Attributes
    ----------
    before, after : Part or None
    alignment : str
        One of :data:`ALIGNMENTS`.
    certainty : float
        1 where names or equal values leave no doubt.
    rows : numpy.ndarray of int64 or None
        For each row after, as it lies in memory, experts one after the other, the row in the base;
        None where all are there, in their places.
    columns : tuple of (numpy.ndarray of int64 or None)
        The same of columns, for each expert.
    pieces : tuple of Piece or None
        Of each side what is compared, where it is a part of the parameter or lies the other way.
    """

    before: Part | None
    after: Part | None
    alignment: str = "name"
    certainty: float = 1.0
    rows: Index | None = None
    columns: tuple[Index | None, ...] = (None,)
    pieces: tuple[Piece, Piece] | None = None

    @property
    def apart(self) -> bool:
        """Whether nothing says which value of one is which of the other."""
        return self.alignment == "rotated"

    @property
    def name(self) -> str:
        """Of the link, unique in a plan."""
        names = [part.parameter.name if part else "" for part in (self.before, self.after)]
        return "\n".join([*names, repr(self.pieces or "")])

    @property
    def shown(self) -> str:
        """The parameter that it is about."""
        part = self.before or self.after
        assert part is not None
        return part.parameter.name

    @property
    def parameters(self) -> Iterator[Parameter]:
        """The one or two that there are."""
        return (p.parameter for p in (self.before, self.after) if p is not None)

    @property
    def total(self) -> int:
        """Weights after that are compared."""
        assert self.after is not None
        if self.pieces is None:
            return self.after.parameter.total
        piece = self.pieces[1]
        return (piece.last - piece.first) * sum(
            s.size for s in self.after.columns or (Segment("", 1),)
        )

    @property
    def how(self) -> str:
        """What tells this way to compare the two from any other."""
        digest = hashlib.sha256(repr((self.pieces, self.apart)).encode())
        for index in (self.rows, *self.columns):
            digest.update(b"-" if index is None else index.tobytes())
        return digest.hexdigest()

    @property
    def in_step(self) -> bool:
        """Whether both are read place by place."""
        return (
            self.rows is None
            and self.pieces is None
            and not any(each is not None for each in self.columns)
        )


@dataclass(frozen=True, eq=False)
class Plan:
    """How two models are read side by side.

    Attributes
    ----------
    alignment : Alignment
    links : tuple of Link
        Every stored parameter of both stands in one, or in pieces in several.
    """

    alignment: Alignment
    links: tuple[Link, ...]

    @property
    def before(self) -> Weights:
        """The base."""
        return self.alignment.before.weights

    @property
    def after(self) -> Weights:
        """What became of it."""
        return self.alignment.after.weights


def plan(before: Weights, after: Weights) -> Plan:
    """Pair the parameters of two models, by names, places and, where numbers differ, by values.

    Raises
    ------
    SparsityReportError
        A model has no values, or the two are not of one kind.
    """
    for weights in (before, after):
        if unknown := next((p.name for p in weights.stored if not p.known), None):
            raise SparsityReportError(
                f"{weights.name}: the values of {unknown!r} are not known, and only values tell "
                "what became of a weight; open it with its values"
            )
    one = anatomy(before)
    other = anatomy(after, one.head, None if after.architecture else one)
    if one.head is None and other.head is not None:
        one = anatomy(before, other.head)
    found = align(*grouped(one, other))
    one, other = found.before, found.after
    links, waiting = [], {part.parameter.name: part for part in one.parts}
    names = {part.parameter.name: part for part in one.parts}
    alone: list[tuple[Part, Place]] = []
    for part in other.parts:
        place = found.base_place(part)
        twin = one.at(*place).get(part.key) if place else None
        if twin is None and place in {None, ("", None, None)}:
            twin = names.get(part.parameter.name)
        if twin is None or not _fits(twin, part):
            alone.append((part, place or ("", None, None)))
        else:
            links.append(_link(found, twin, part))
            waiting.pop(twin.parameter.name, None)
    links += _by_values(found, alone, waiting)
    links += _in_pieces(found, alone, waiting)
    links += [Link(part, None, "removed") for part in waiting.values()]
    _check_related(found, links)
    return Plan(found, tuple(links))


def _fits(before: Part, after: Part) -> bool:
    """Whether two parameters have rows and columns of the same kinds, and experts or none."""
    sides = (before.rows, after.rows), (before.columns, after.columns)
    return bool(before.stacked) == bool(after.stacked) and all(_alike(*each) for each in sides)


def _alike(before: Sequence[Segment], after: Sequence[Segment]) -> bool:
    """Whether rows, or columns, are of the same kinds; as many, where they are of none."""
    kinds = [[s.axis or s.size for s in side] for side in (before, after)]
    return kinds[0] == kinds[1]


def _link(found: Alignment, before: Part, after: Part) -> Link:
    """Pair two parameters that have the same axes."""
    if found.rotated and any(s.axis == "width" for s in (*before.rows, *before.columns)):
        return Link(before, after, "rotated")
    place = (before.stack if before.block is not None else "", before.block, before.expert)
    experts = found.match("expert", place, after.stacked) if after.stacked else None
    numbers = experts.index.tolist() if experts else [before.expert]
    ways = [_ways(found, before, after, (*place[:2], number)) for number in numbers]
    certainty = min(sure for _, _, sure in ways)
    if experts:
        certainty = min(certainty, float(experts.certainty.min(initial=1)))
    certainty = min(certainty, _sure_of_place(found, before, after))
    turned = before.parameter.transposed != after.parameter.transposed and bool(before.columns)
    renamed = before.parameter.name != after.parameter.name
    around = [*_around(found, before, after)]
    moved = any(row is not None or column is not None for row, column, _ in ways)
    moved |= bool(experts and not experts.is_identity) or any(
        m.gone or m.index[number] != number for m, number in around
    )
    cut = before.parameter.total != after.parameter.total or any(m.gone for m, _ in around)
    values = "content" if cut else "reordered"
    way = values if moved else "turned" if turned else "renamed" if renamed else "name"
    if turned:
        whole = [Piece(None, 0, sum(s.size for s in p.rows)) for p in (before, after)]
        rows, columns, _ = ways[0]
        return Link(before, after, way, certainty, rows, (columns,), (whole[0], whole[1]))
    if after.parameter.transposed and after.columns:
        ways = [(columns, rows, sure) for rows, columns, sure in ways]
    sides = before.columns if before.parameter.transposed and before.columns else before.rows
    lines = sum(segment.size for segment in sides)
    many = sum(
        s.size
        for s in (after.columns if after.parameter.transposed and after.columns else after.rows)
    )
    rows = np.concatenate(
        [
            (number * lines if experts else 0) + (np.arange(many) if row is None else row)
            for number, (row, _, _) in zip(numbers, ways, strict=True)
        ]
    )
    all_there = rows.size == lines * (before.stacked or 1)
    identity = all_there and bool((rows == np.arange(rows.size)).all())
    return Link(
        before, after, way, certainty, None if identity else rows, tuple(c for _, c, _ in ways)
    )


def _around(found: Alignment, before: Part, after: Part) -> Iterator[tuple[Match, int]]:
    """Yield the match of blocks, and of experts, that a parameter is in, and which one it is."""
    if before.block is None or after.block is None:
        return
    number = found.after.blocks(after.stack).index(after.block)
    yield found.blocks[before.stack], number
    experts = found.units.get(("expert", (before.stack, before.block, None)))
    if experts is not None and after.expert is not None:
        yield experts, found.after.experts(after.stack, after.block).index(after.expert)


def _sure_of_place(found: Alignment, before: Part, after: Part) -> float:
    """Return how sure it is that the block, and the expert, are the right ones."""
    around = _around(found, before, after)
    return min((float(match.certainty[number]) for match, number in around), default=1.0)


def _ways(
    found: Alignment, before: Part, after: Part, place: Place
) -> tuple[Index | None, Index | None, float]:
    """Return where rows and columns come from, outputs and inputs, and how sure it is."""
    rows, sure = _lines(found, before.rows, after.rows, place)
    columns, certain = _lines(found, before.columns, after.columns, place)
    return rows, columns, min(sure, certain)


def _lines(
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


def _by_values(
    found: Alignment, alone: list[tuple[Part, Place]], waiting: dict[str, Part]
) -> Iterator[Link]:
    """Pair what has another name in the same place, such as norms, by its values."""
    kinds: dict[tuple[Place, tuple[int, ...]], list[Part]] = defaultdict(list)
    for part, place in alone:
        if part.parameter.total <= _SMALL:
            kinds[place, part.parameter.shape].append(part)
    for (place, shape), parts in kinds.items():
        known = [
            part
            for part in waiting.values()
            if (part.stack if part.block is not None else "", part.block, part.expert) == place
            and part.parameter.shape == shape
        ]
        if len(known) < len(parts):
            continue
        sides = ((found.before.weights, known), (found.after.weights, parts))
        tables = [
            torch.stack([w.tensor(p.parameter.name).detach().float().reshape(-1) for p in some])
            for w, some in sides
        ]
        drawn = [projections([table]) for table in tables]
        match = equal(*(digests([table]) for table in tables)) or alike(*drawn)
        for number, part in enumerate(parts):
            twin = known[int(match.index[number])]
            if float(drawn[1][number] @ drawn[0][int(match.index[number])]) < _ALIKE:
                continue
            certainty = float(match.certainty[number])
            yield Link(twin, part, "renamed", min(certainty, _sure_of_place(found, twin, part)))
            waiting.pop(twin.parameter.name)
            alone.remove((part, place))


def _in_pieces(
    found: Alignment, alone: list[tuple[Part, Place]], waiting: dict[str, Part]
) -> Iterator[Link]:
    """Pair what is fused in one model and split in the other; the rest is new."""
    pieces = {}
    for part in waiting.values():
        stack = part.stack if part.block is not None else ""
        for key, piece in _pieces(part):
            expert = part.expert if piece.expert is None else piece.expert
            pieces[(stack, part.block, expert, *key)] = part, piece
    taken = set()
    for part, place in alone:
        links = []
        experts = found.match("expert", place, part.stacked).index if part.stacked else None
        for key, piece in _pieces(part):
            expert = (
                place[2] if piece.expert is None or experts is None else int(experts[piece.expert])
            )
            twin = pieces.get((*place[:2], expert, *key))
            if twin is None or not _piece_fits(twin, (part, piece)):
                break
            links.append(_piece_link(found, twin, (part, piece), (*place[:2], expert)))
        else:
            taken |= {link.before.parameter.name for link in links if link.before}
            yield from links
            continue
        yield Link(None, part, "added")
    for name in taken:
        waiting.pop(name)


def _piece_fits(base: tuple[Part, Piece], left: tuple[Part, Piece]) -> bool:
    rows = [tuple(_segments(*each)) for each in (base, left)]
    return _alike(*rows) and _alike(base[0].columns, left[0].columns)


def _piece_link(
    found: Alignment, base: tuple[Part, Piece], left: tuple[Part, Piece], place: Place
) -> Link:
    (before, old), (after, new) = base, left
    if found.rotated:
        raise SparsityReportError(
            f"{named(found)}: the width looks rotated, and {after.parameter.name} has other rows "
            "than the base's, fused or split: nothing tells which"
        )
    segments = [tuple(_segments(part, piece)) for part, piece in (base, left)]
    rows, sure = _lines(found, segments[0], segments[1], place)
    columns, certain = _lines(found, before.columns, after.columns, place)
    certainty = min(sure, certain, _sure_of_place(found, before, after))
    return Link(before, after, "fused", certainty, rows, (columns,), (old, new))


def _pieces(part: Part) -> Iterator[tuple[tuple[str, str], Piece]]:
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


def _check_related(found: Alignment, links: list[Link]) -> None:
    """Refuse two models of which nothing, or nearly, has the same place in both."""
    base = [link for link in links if link.before and link.before.parameter.prunable]
    there = sum(link.before.parameter.total for link in base if link.before and link.after)
    if base and not there:
        first = [
            next((p.parameter for p in a.parts if p.parameter.prunable), None)
            for a in (found.before, found.after)
        ]
        said = [f"{p.name} {p.shape}" if p else "no prunable matrix" for p in first]
        raise SparsityReportError(
            f"{found.before.weights.name} and {found.after.weights.name} look unrelated: no matrix "
            f"of one has its place in the other; the first are {said[0]} and {said[1]}"
        )
