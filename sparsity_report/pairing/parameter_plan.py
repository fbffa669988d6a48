"""Which parameter of a model is which of another, and which of its rows and columns are left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch

from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing.align import align
from sparsity_report.pairing.alignment import Alignment, Place
from sparsity_report.pairing.fingerprints import Index, digests, projections
from sparsity_report.pairing.fused import in_pieces
from sparsity_report.pairing.matches import Link, Piece, Plan
from sparsity_report.pairing.roles import Part, anatomy, grouped
from sparsity_report.pairing.row_maps import around, lines_of, of_one_kind, sure_of_place
from sparsity_report.pairing.unit_matching import alike, equal
from sparsity_report.weights.weights import Weights

# Values of what is recognised by them alone, and how much alike they must be.
_SMALL, _ALIKE = 2**20, 0.5


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
    links += in_pieces(found, alone, waiting)
    links += [Link(part, None, "removed") for part in waiting.values()]
    _check_related(found, links)
    return Plan(found, tuple(links))


def _fits(before: Part, after: Part) -> bool:
    """Whether two parameters have rows and columns of the same kinds, and experts or none."""
    sides = (before.rows, after.rows), (before.columns, after.columns)
    return bool(before.stacked) == bool(after.stacked) and all(of_one_kind(*each) for each in sides)


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
    certainty = min(certainty, sure_of_place(found, before, after))
    turned = before.parameter.transposed != after.parameter.transposed and bool(before.columns)
    renamed = before.parameter.name != after.parameter.name
    beside = [*around(found, before, after)]
    moved = any(row is not None or column is not None for row, column, _ in ways)
    moved |= bool(experts and not experts.is_identity) or any(
        m.gone or m.index[number] != number for m, number in beside
    )
    cut = before.parameter.total != after.parameter.total or any(m.gone for m, _ in beside)
    values = "content" if cut else "reordered"
    way = values if moved else "turned" if turned else "renamed" if renamed else "name"
    if turned:
        whole = [Piece(None, 0, sum(s.size for s in p.rows)) for p in (before, after)]
        rows, columns, _ = ways[0]
        return Link(before, after, way, certainty, rows, (columns,), (whole[0], whole[1]))
    if after.parameter.transposed and after.columns:
        ways = [(columns, rows, sure) for rows, columns, sure in ways]
    lines, many = map(_in_memory, (before, after))
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


def _in_memory(part: Part) -> int:
    """Return the rows of a matrix as it lies in memory."""
    turned = part.parameter.transposed and part.columns
    return sum(segment.size for segment in (part.columns if turned else part.rows))


def _ways(
    found: Alignment, before: Part, after: Part, place: Place
) -> tuple[Index | None, Index | None, float]:
    """Return where rows and columns come from, outputs and inputs, and how sure it is."""
    rows, sure = lines_of(found, before.rows, after.rows, place)
    columns, certain = lines_of(found, before.columns, after.columns, place)
    return rows, columns, min(sure, certain)


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
            yield Link(twin, part, "renamed", min(certainty, sure_of_place(found, twin, part)))
            waiting.pop(twin.parameter.name)
            alone.remove((part, place))


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
