"""Matches of parameters: which parameter, rows and columns of the base each one comes from."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sparsity_report.pairing.alignment import Alignment
from sparsity_report.pairing.fingerprints import Index
from sparsity_report.pairing.roles import Part
from sparsity_report.weights.weights import Parameter, Weights

# Kinds of matches, the least certain first.
ALIGNMENTS = (
    "content", "reordered", "fused", "turned", "renamed", "name", "added", "removed",
)  # fmt: skip


# Matrices in a fused one, in the order of its rows.
_FUSED = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}


class Piece(NamedTuple):
    """A matrix inside a parameter: some rows of one expert.

    Attributes
    ----------
    expert : int or None
        Index in a tensor of several experts.
    first, last : int
        Rows, outputs first.
    """

    expert: int | None
    first: int
    last: int


def split_fused(part: Part) -> Iterator[tuple[tuple[str, str], Piece]]:
    """Yield the separate matrices in a parameter, with their roles."""
    role, _, suffix = part.role.partition(",")
    tail = f",{suffix}" if suffix else ""
    fused = _FUSED.get(role, ()) if len(part.rows) > 1 else ()
    for expert in range(part.stacked) if part.stacked else (None,):
        start = 0
        for name, segment in zip(fused or (role,), part.rows, strict=False):
            size = segment.size if fused else sum(s.size for s in part.rows)
            yield (f"{name}{tail}", part.leaf), Piece(expert, start, start + size)
            start += size


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

    @property
    def method(self) -> str:
        """A digest of the way in which the two are compared, for cache keys."""
        digest = hashlib.sha256(repr(self.pieces).encode())
        for index in (self.rows, self.columns):
            digest.update(b"-" if index is None else index.tobytes())
        return digest.hexdigest()


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
