"""What became of weights, from the values that they had and those that they have."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch

from sparsity_report.sparse.shares import COMPLYING, N_M, ratio

# No N:M of at least half zeros has so few, of whole groups or nearly.
_FEW_ZEROS = 0.45
NO_GROUPS = (0,) * len(N_M)


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
        Groups of M weights that comply with each N:M, in the order of :data:`N_M`.
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


def tally(before: torch.Tensor, after: torch.Tensor, grouped: bool = False) -> Tally:
    """Compare values one by one.

    Parameters
    ----------
    before, after : torch.Tensor
        One-dimensional, of one length, of any dtype; NaN is no zero, and two of them are equal.
    grouped : bool
        Whether the values are whole groups along the input, to be looked at for N:M.

    Examples
    --------
    >>> found = tally(torch.tensor([0.0, 0.0, 3.0, 4.0]), torch.tensor([0.0, 1.0, 0.0, 5.0]))
    >>> found.kept, found.revived, found.new, found.changed, found.relative_change, found.iou
    (1, 1, 1, 1, 0.25, 0.3333333333333333)
    """
    one, other = _plain(before), _plain(after)
    same = before.dtype == after.dtype and torch.equal(before, after)
    there, still = one != 0, other != 0
    n, nonzero, left = one.numel(), _count(there), _count(still)
    groups_before = _groups(there, n - nonzero) if grouped else NO_GROUPS
    if same:
        square = _square(one, one)
        return Tally(
            n, n, n - nonzero, n - nonzero, n, kept=n - nonzero,
            square=square, product=square, square_before=square, square_after=square,
            groups_before=groups_before, groups_after=groups_before,
            grouped_before=n * grouped, grouped_after=n * grouped,
        )  # fmt: skip
    both = there & still
    surviving = _count(both)
    square_before, square_after = _square(one, one), _square(other, other)
    apart = (other - one).mul_(both)
    return Tally(
        n, n, n - nonzero, n - left, n,
        kept=n - nonzero - left + surviving,
        revived=left - surviving,
        new=nonzero - surviving,
        changed=_changed(one, other, both),
        square=square_before if surviving == nonzero else _square(one * both, one),
        change=_square(apart, apart),
        product=_square(one, other),
        square_before=square_before,
        square_after=square_after,
        groups_before=groups_before,
        groups_after=_groups(still, n - left) if grouped else NO_GROUPS,
        grouped_before=n * grouped,
        grouped_after=n * grouped,
    )  # fmt: skip


def alone(values: torch.Tensor, *, before: bool, grouped: bool = False) -> Tally:
    """Count weights that stand in one of the models only.

    Examples
    --------
    >>> alone(torch.tensor([0.0, 2.0]), before=True).zeros_before
    1
    """
    there = _plain(values) != 0
    n, zeros = values.numel(), values.numel() - _count(there)
    groups = _groups(there, zeros) if grouped else NO_GROUPS
    if before:
        return Tally(
            total_before=n, zeros_before=zeros, groups_before=groups, grouped_before=n * grouped
        )
    return Tally(total_after=n, zeros_after=zeros, groups_after=groups, grouped_after=n * grouped)


def _plain(values: torch.Tensor) -> torch.Tensor:
    """Return values that can be reckoned with: float8 cannot, and float16 overflows."""
    return values if values.dtype == torch.float64 else values.float()


def _count(flags: torch.Tensor) -> int:
    return int(torch.count_nonzero(flags))


def _square(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the sum of products, in float64 where float32 overflows."""
    found = float(torch.dot(one, other))
    return found if math.isfinite(found) else float(torch.dot(one.double(), other.double()))


def _changed(one: torch.Tensor, other: torch.Tensor, both: torch.Tensor) -> int:
    apart = (one != other) & both
    return _count(apart) - _count(torch.isnan(one) & torch.isnan(other) & apart)


def _groups(there: torch.Tensor, zeros: int) -> tuple[int, ...]:
    """Count the groups that comply with each N:M."""
    if zeros < _FEW_ZEROS * there.numel():
        return NO_GROUPS
    sums = {m: there.view(-1, m).sum(1, dtype=torch.uint8) for m in (4, 8)}
    return tuple(_count(sums[m] <= n) for n, m in N_M)


def _complied(groups: tuple[int, ...], grouped: int, total: int) -> str | None:
    if not total or grouped != total:
        return None
    matching = ((n, m) for (n, m), c in zip(N_M, groups, strict=True) if c * m >= COMPLYING * total)
    return next((f"{n}:{m}" for n, m in matching), None)
