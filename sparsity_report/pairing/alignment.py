"""Matches of the units and parameters of two models, and comparisons of rows.

A unit is a block, an expert, a head, a channel, a token or a channel of the width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from sparsity_report.errors import SparsityReportError
from sparsity_report.pairing import fingerprints, unit_matching
from sparsity_report.pairing.fingerprints import (
    Floats,
    Index,
    hash_rows,
    normalize_rows,
    project,
    read_matrix,
    sample_rows,
)
from sparsity_report.pairing.roles import OUTSIDE, ModelRoles, Part, Piece, Place, Segment, Sides
from sparsity_report.pairing.unit_matching import UnitMatch, match_identical
from sparsity_report.weights.weights import Parameter, Weights
from sparsity_report.words.sentences import say

Tables = Callable[[], Iterable[Floats]]
"""Returns the rows of a table, one per unit, in chunks; may be called several times."""
# Below this mean certainty and this similarity the models are unrelated.
_MIN_CERTAINTY, _MIN_SIMILARITY = 0.1, 0.5
# Cosine above which a row is in its place; rows with fewer values are similar by chance.
_SAME_ROW, _MIN_COLUMNS = 0.5, 32
# Certainty above which a unit counts as moved.
_CERTAIN = 0.5
# Kinds of matches, the least certain first.
ALIGNMENTS = (
    "content", "reordered", "fused", "turned", "renamed", "name", "added", "removed",
)  # fmt: skip
_PLURALS = {
    "head": "heads", "kv_head": "key-value heads", "channel": "channels", "expert": "experts",
    "vocabulary": "tokens", "width": "channels of the width", "block": "blocks",
}  # fmt: skip


@dataclass
class Alignment:
    """Matches of the units of a model with those of its base.

    Attributes
    ----------
    before, after : ModelRoles
        The base and the model.
    stacks : dict of str to str
        The base's name of each stack of blocks, by the name after.
    units : dict
        Matches other than the identity, by axis and place in the base; indices of blocks and of
        experts are positions among those of the base.
    """

    before: ModelRoles
    after: ModelRoles
    stacks: dict[str, str] = field(default_factory=dict)
    units: dict[tuple[str, Place], UnitMatch] = field(default_factory=dict)

    @property
    def columns(self) -> Index | None:
        """Remaining channels of the base's width, in order; None for the identity."""
        match = self.units.get(("width", OUTSIDE))
        return match.index if match else None

    @property
    def names(self) -> str:
        """Names of both models, for errors."""
        return f"{self.before.weights.name} and {self.after.weights.name}"

    def match(self, axis: str, place: Place, number: int) -> UnitMatch:
        """Return the match of the units of an axis in a place of the base."""
        if axis in {"width", "vocabulary"}:
            place = OUTSIDE
        elif axis == "expert":
            place = (*place[:2], None)
        elif axis == "block":
            place = (place[0], None, None)
        return self.units.get((axis, place)) or match_identical(number)

    def base_place(self, part: Part) -> Place | None:
        """Return the place in the base that matches the place of a parameter after."""
        if part.block is None:
            return OUTSIDE
        if (stack := self.stacks.get(part.stack)) is None:
            return None
        (blocks, number), *experts = self.enclosing_matches(part)
        block, expert = self.before.blocks(stack)[int(blocks.index[number])], None
        for match, number in experts:
            expert, known = int(match.index[number]), self.before.experts(stack, block)
            expert = known[expert] if known else expert  # all are in one tensor
        return stack, block, expert

    def add(self, axis: str, place: Place, match: UnitMatch, module: str) -> None:
        """Add a match unless it is the identity; raise an error if hardly a unit is recognized."""
        if match.is_identity:
            return
        certainty = float(np.mean(match.certainty)) if match.index.size else 1.0
        if certainty < _MIN_CERTAINTY and match.similarity < _MIN_SIMILARITY:
            raise SparsityReportError(
                f"{self.names} look unrelated: of the {match.index.size:,} {plural(axis)} of "
                f"{module} hardly one is recognized among those of the base (certainty "
                f"{certainty:.2f}); give the base that the second one was made from"
            )
        self.units[axis, place] = replace(match, module=module)

    def check_not_more(self, axis: str, where: str, base: int, number: int) -> None:
        """Raise an error if the model has more units than its base."""
        if number <= base:
            return
        sides = (self.before.weights, self.after.weights)
        kinds = [weights.architecture for weights in sides]
        is_other = all(kinds) and kinds[0] != kinds[1]
        advice = "give the larger model first, as the base"
        if is_other:
            advice = f"{kinds[0]} and {kinds[1]} look unrelated; give a model and its base"
        raise SparsityReportError(
            f"{where} has {number:,} {plural(axis)} in {sides[1].name} and {base:,} in "
            f"{sides[0].name}: {advice}"
        )

    def read_rows(self, base: bool, part: Part, expert: int | None = None) -> Floats:
        """Return the rows of a matrix, with the columns that both models have."""
        side = self.before if base else self.after
        columns = self._remaining_columns(part) if base else None
        return fingerprints.pick_columns(read_matrix(side.weights, part, expert), columns)

    def _remaining_columns(self, part: Part) -> Index | None:
        """Return the columns of a matrix of the base that both models have; None for all."""
        return self.columns if [s.axis for s in part.columns] == ["width"] else None

    def sample(
        self,
        parts: tuple[Part, Part],
        experts: tuple[int | None, int | None] = (None, None),
        lines: tuple[int, int, int] | None = None,
        number: int = 16,
    ) -> tuple[Floats, Floats] | None:
        """Read some rows in the same places of a matrix of both models.

        Return None if they cannot be compared, or if reading some rows means reading all.

        Parameters
        ----------
        parts : pair of Part
            Before and after.
        experts : pair of int or None
            Indices in tensors of several experts.
        lines : tuple of int, optional
            The first row before and after, and the number of rows in both. Default: all rows.
        number : int
            Rows to sample.
        """
        sizes = [sum(s.size for s in part.columns) for part in parts]
        first, start, many = lines or (0, 0, sum(s.size for s in parts[0].rows))
        some = np.unique(np.linspace(0, many - 1, number).round().astype(np.int64))
        columns = self._remaining_columns(parts[0])
        columns = np.arange(sizes[0]) if columns is None else columns
        if columns.size != sizes[1]:
            return None
        before, after = self.before.weights, self.after.weights
        one = sample_rows(before, parts[0], experts[0], first + some, columns)
        other = sample_rows(after, parts[1], experts[1], start + some, np.arange(sizes[1]))
        return None if one is None or other is None else (one, other)

    def _map_lines(
        self, before: tuple[Segment, ...], after: tuple[Segment, ...], place: Place
    ) -> tuple[Index | None, float]:
        """Return the base row of each row, None if both orders are equal, and the certainty."""
        start, maps, certainty, moved = 0, [], 1.0, False
        for old, new in zip(before, after, strict=True):
            match = self.match(new.axis, place, new.units)
            if match.index.size != new.units or new.units + len(match.removed) != old.units:
                raise SparsityReportError(
                    f"{self.names} look unrelated: {'.'.join(map(str, place[:2])).strip('.')} has "
                    f"{old.units:,} {plural(new.axis)} in one and {new.units:,} in the other, and "
                    "no common matrix identifies those that are left; give a model and its base"
                )
            lines = match.index[:, None] * old.lines + np.arange(old.lines)
            maps.append(start + lines.ravel())
            moved |= not match.is_identity or old.units != new.units
            certainty = min(certainty, float(match.certainty.min(initial=1)))
            start += old.size
        return (np.concatenate(maps) if moved else None), certainty

    def map_axes(
        self, before: Sides, after: Sides, place: Place
    ) -> tuple[Index | None, Index | None, float]:
        """Return the maps of rows and columns, as outputs and inputs, and their certainty."""
        (rows, one), (columns, other) = (
            self._map_lines(*sides, place) for sides in zip(before, after, strict=True)
        )
        return rows, columns, min(one, other)

    def enclosing_matches(self, part: Part) -> Iterator[tuple[UnitMatch, int]]:
        """Yield the match of the block, and of the expert, of a parameter after, and its number."""
        if part.block is None or (stack := self.stacks.get(part.stack)) is None:
            return
        numbers = self.after.blocks(part.stack)
        place = numbers.index(part.block)
        blocks = self.match("block", (stack, None, None), len(numbers))
        yield blocks, place
        if part.expert is not None:
            block = self.before.blocks(stack)[int(blocks.index[place])]
            experts = self.after.experts(part.stack, part.block)
            match = self.match("expert", (stack, block, None), len(experts))
            yield match, experts.index(part.expert)

    def place_certainty(self, part: Part) -> float:
        """Return the certainty that block and expert of a parameter after are matched correctly."""
        matches = self.enclosing_matches(part)
        return min((float(match.certainty[number]) for match, number in matches), default=1.0)

    def order_notes(self) -> Iterator[str]:
        """Yield a note for each kind of units that are in another order than in the base."""
        moved, total = Counter[str](), Counter[str]()
        for (axis, _), match in sorted(self.units.items(), key=lambda item: item[0][0] != "block"):
            kind = axis.partition(",")[0]
            if count := int((match.certainty[match.moved] > _CERTAIN).sum()):
                moved[kind] += count
                total[kind] += match.index.size
        for kind, count in moved.items():
            yield say("note.moved_units", units=plural(kind), moved=count, total=total[kind])


def plural(axis: str) -> str:
    """Return the English name of several units of an axis.

    Examples
    --------
    >>> plural("kv_head"), plural("channel, shared")
    ('key-value heads', 'channels')
    """
    return _PLURALS[axis.partition(",")[0]]


@dataclass(frozen=True, eq=False)
class ParameterMatch:
    """A parameter of the base and its match; one side is missing if it was added or removed.

    Attributes
    ----------
    before, after : Part or None
    alignment : str
        One of :data:`ALIGNMENTS`.
    certainty : float
        1 if names or equal values leave no doubt.
    pieces : pair of Piece or None
        Compared matrix of each side; None if values in the same positions are compared.
    rows, columns : numpy.ndarray of int64 or None
        The row and the column of the base's piece for each one after; None for the identity.
    """

    before: Part | None
    after: Part | None
    alignment: str = "name"
    certainty: float = 1.0
    pieces: tuple[Piece, Piece] | None = None
    rows: Index | None = None
    columns: Index | None = None

    @property
    def name(self) -> str:
        """A name that is unique in a plan."""
        names = [part.parameter.name if part else "" for part in (self.before, self.after)]
        return "\n".join([*names, repr(self.pieces or "")])

    @property
    def parameters(self) -> Iterator[Parameter]:
        """The parameters of the base and of the model, if there are both."""
        return (p.parameter for p in (self.before, self.after) if p is not None)


@dataclass(frozen=True, eq=False)
class Plan:
    """The matches of all parameters of two models.

    Attributes
    ----------
    alignment : Alignment
    matches : tuple of ParameterMatch
        Every stored parameter of both models is in one match, or its pieces in several.
    """

    alignment: Alignment
    matches: tuple[ParameterMatch, ...]

    @property
    def before(self) -> Weights:
        """The base."""
        return self.alignment.before.weights

    @property
    def after(self) -> Weights:
        """The model to compare with it."""
        return self.alignment.after.weights


def match_rows(base: Tables, remaining: Tables, *more: tuple[Tables, Tables]) -> UnitMatch:
    """Match units by their rows: equal rows first, else the most similar ones.

    As many units as in the base keep their places unless their values clearly differ. Further rows
    of the units, `more`, are read only if some rows are not equal, as rows of one matrix can be
    similar.
    """
    hashes = [[d for table in tables() for d in hash_rows(table)] for tables in (base, remaining)]
    if (match := unit_matching.match_equal(*hashes)) is not None:
        return match
    # Reading again takes less time than projecting rows that turn out to be equal.
    one, other = (
        np.concatenate([project(some) for some in zip(*(t() for t in side), strict=True)])
        for side in zip((base, remaining), *more, strict=True)
    )
    if len(one) == len(other):
        return unit_matching.match_in_place(one, other)
    return unit_matching.match_similar(one, other)


def differing_share(tables: tuple[Floats, Floats] | None) -> float:
    """Return the share of rows that differ from the rows in the same places; 0 without a sample.

    Examples
    --------
    >>> differing_share((np.eye(32), np.eye(32)[[1, 0, *range(2, 32)]]))
    0.0625
    """
    if tables is None or tables[1].shape[1] < _MIN_COLUMNS:
        return 0.0
    one, other = tables
    cosines = np.einsum("ij,ij->i", normalize_rows(one), normalize_rows(other))
    # Rows of zeros give no evidence.
    same = (cosines >= _SAME_ROW) | ~one.any(axis=1) | ~other.any(axis=1)
    return float((~same).mean())
