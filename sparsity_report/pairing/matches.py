"""What belongs to what in two models, as values: a link of two parameters, and a plan of links."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sparsity_report.pairing.alignment import Alignment
from sparsity_report.pairing.fingerprints import Index
from sparsity_report.pairing.roles import Part, Segment
from sparsity_report.weights.anatomy.parameters import Parameter
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
