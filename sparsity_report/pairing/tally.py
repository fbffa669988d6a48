"""What became of weights, from the values that they had and those that they have."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from sparsity_report.counting.n_m_patterns import KNOWN, find_pattern
from sparsity_report.sparse.shares import ratio

NO_GROUPS = (0,) * len(KNOWN)


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts over weights that stand in both of two models, and over all of each.

    Attributes
    ----------
    total_before, total_after, zeros_before, zeros_after : int
        Of all weights of each model, those that stand in one only, too.
    compared : int
        Weights that stand in both.
    kept, revived, new : int
        Zero in both; zero before and not after; zero after and not before.
    changed : int
        Nonzero in both, with another value.
    square, change : float
        Sums over weights that are nonzero in both: of squares before, and of squared changes.
    product, square_before, square_after : float
        Sums over all compared weights.
    groups_before, groups_after : tuple of int
        Groups of M weights that comply with each N:M, in the order of :data:`.KNOWN`.
    grouped_before, grouped_after : int
        Weights that were looked at for it.
    """

    total_before: int = 0
    total_after: int = 0
    zeros_before: int = 0
    zeros_after: int = 0
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
    groups_before: tuple[int, ...] = NO_GROUPS
    groups_after: tuple[int, ...] = NO_GROUPS
    grouped_before: int = 0
    grouped_after: int = 0

    def __add__(self, other: Tally) -> Tally:
        sums: dict[str, Any] = {}
        for field in fields(self):
            one, two = getattr(self, field.name), getattr(other, field.name)
            both = isinstance(one, tuple)
            sums[field.name] = tuple(map(sum, zip(one, two, strict=True))) if both else one + two
        return Tally(**sums)

    @property
    def surviving(self) -> int:
        """Weights that are nonzero in both."""
        return self.compared - self.kept - self.revived - self.new

    @property
    def untouched(self) -> bool:
        """Whether every weight that stands in both is what it was."""
        return not (self.changed or self.revived or self.new)

    @property
    def relative_change(self) -> float | None:
        """Norm of the change ÷ norm before, of the weights that are nonzero in both."""
        share = ratio(self.change, self.square)
        return math.sqrt(share) if share is not None and math.isfinite(share) else None

    @property
    def norm(self) -> float | None:
        """Norm before, of the weights that are nonzero in both."""
        return math.sqrt(self.square) if math.isfinite(self.square) else None

    @property
    def correlation(self) -> float | None:
        """Cosine of the angle between what was and what is; None where one of them is nothing."""
        norms = math.sqrt(self.square_before) * math.sqrt(self.square_after)
        cosine = ratio(self.product, norms)
        if cosine is None or not math.isfinite(cosine):
            return None
        return max(-1.0, min(cosine, 1.0))

    @property
    def iou(self) -> float | None:
        """Zeros that both have ÷ zeros that either has, of the weights that stand in both."""
        return ratio(self.kept, self.kept + self.revived + self.new)

    @property
    def n_m(self) -> tuple[str | None, str | None]:
        """The sparsest N:M that the model before, and the one after, comply with."""
        return (
            _complied(self.groups_before, self.grouped_before, self.total_before),
            _complied(self.groups_after, self.grouped_after, self.total_after),
        )


def _complied(groups: tuple[int, ...], grouped: int, total: int) -> str | None:
    if not total or grouped != total:
        return None
    pattern = find_pattern(dict(zip(KNOWN, groups, strict=True)), total)
    return str(pattern) if pattern else None
