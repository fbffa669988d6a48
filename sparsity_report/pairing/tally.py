"""Counts and sums over the values of two models, and their figures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from operator import add

from sparsity_report.counting.n_m_patterns import COMPLIANCE, KNOWN, compliance
from sparsity_report.sparse.shares import ratio

# Models with at least this many compared weights are unrelated below this correlation.
UNRELATED, ENOUGH = 0.1, 1000


@dataclass(frozen=True, slots=True)
class SideCount:
    """Counts over the weights of one model.

    Attributes
    ----------
    total, zeros : int
        All weights, and zeros among them.
    groups : tuple of int
        Groups of m weights that comply with each pattern of ``n_m_patterns.KNOWN``.
    grouped : int
        Weights in groups that were checked.
    """

    total: int = 0
    zeros: int = 0
    groups: tuple[int, ...] = (0,) * len(KNOWN)
    grouped: int = 0

    def __add__(self, other: SideCount) -> SideCount:
        """Return the sums of both counts."""
        groups = tuple(map(add, self.groups, other.groups))
        sums = self.total + other.total, self.zeros + other.zeros
        return SideCount(*sums, groups, self.grouped + other.grouped)

    @property
    def shares(self) -> dict[str, float]:
        """Share of complying groups by pattern, sparsest first; empty if some are in no group."""
        if self.grouped != self.total:
            return {}
        complying = dict(zip(KNOWN, self.groups, strict=True))
        return {str(p): share for p, share in compliance(complying, self.total).items()}

    @property
    def n_m(self) -> str | None:
        """The sparsest N:M pattern; None without one, or if some weights are in no group."""
        return next((name for name, share in self.shares.items() if share >= COMPLIANCE), None)


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts over the compared weights of two models, and over all weights of each.

    Attributes
    ----------
    before, after : SideCount
        Counts of each model.
    compared : int
        Weights that both models have.
    kept, revived, new : int
        Weights that are zero in both, zero only before, and zero only after.
    changed : int
        Weights that are nonzero in both with different values.
    square, change : float
        Sums of squares before, and of squared changes, over weights that are nonzero in both.
    product, square_before, square_after : float
        Sums of products and of squares over all compared weights.
    """

    before: SideCount = field(default_factory=SideCount)
    after: SideCount = field(default_factory=SideCount)
    compared: int = 0
    kept: int = 0
    revived: int = 0
    new: int = 0
    changed: int = 0
    square: float = 0.0
    change: float = 0.0
    product: float = 0.0
    square_before: float = 0.0
    square_after: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        """Return the sums of both tallies."""
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def surviving(self) -> int:
        """Weights that are nonzero in both models."""
        return self.compared - self.kept - self.revived - self.new

    @property
    def untouched(self) -> bool:
        """True if no compared weight changed."""
        return not (self.changed or self.revived or self.new)

    @property
    def relative_change(self) -> float | None:
        """Norm of the change ÷ norm before, over weights that are nonzero in both."""
        share = ratio(self.change, self.square)
        return math.sqrt(share) if share is not None and math.isfinite(share) else None

    @property
    def norm(self) -> float | None:
        """Norm before, over weights that are nonzero in both."""
        return math.sqrt(self.square) if math.isfinite(self.square) else None

    @property
    def correlation(self) -> float | None:
        """Cosine of the angle between the compared weights; None if one side is all zeros."""
        norms = math.sqrt(self.square_before) * math.sqrt(self.square_after)
        cosine = ratio(self.product, norms)
        if cosine is None or not math.isfinite(cosine):
            return None
        return max(-1.0, min(cosine, 1.0))

    @property
    def iou(self) -> float | None:
        """Common zeros ÷ zeros of either, over compared weights."""
        return ratio(self.kept, self.kept + self.revived + self.new)
