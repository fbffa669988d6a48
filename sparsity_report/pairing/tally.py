"""What became of weights, from the values that they had and those that they have."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparsity_report.sparse.shares import COMPLYING, N_M, ratio

# Values that are compared at a time.
_AT_ONCE = 2**16
# Integers of as many bits, and dtypes whose values float32 holds all.
_WHOLE = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}
_EXACT = {
    torch.float16, torch.bfloat16, torch.float32, torch.int8, torch.uint8, torch.int16, torch.bool,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
}  # fmt: skip
# For groups of M: words of so many bytes, and a one in each of them.
_TOGETHER = {4: (torch.int32, 0x01010101), 8: (torch.int64, 0x0101010101010101)}
# No N:M of at least half zeros has so few, of whole groups or nearly.
_FEW_ZEROS = 0.45
NO_GROUPS = (0,) * len(N_M)
Bits = npt.NDArray[np.signedinteger[Any]]
Flags = npt.NDArray[np.bool_]


class _Room(threading.local):
    """Memory of a thread, used again and again: to be given it takes longer than to count."""

    def __init__(self) -> None:
        self.bits = np.empty(_AT_ONCE, dtype=np.int64)
        self.flags = np.empty((3, _AT_ONCE), dtype=bool)
        self.floats = torch.empty(2, _AT_ONCE)


_ROOM = _Room()


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
        One-dimensional, of one length, of any dtype; NaN is no zero, and two of one kind are equal.
    grouped : bool
        Whether the values are whole groups along the input, to be looked at for N:M.

    Examples
    --------
    >>> found = tally(torch.tensor([0.0, 0.0, 3.0, 4.0]), torch.tensor([0.0, 1.0, 0.0, 5.0]))
    >>> found.kept, found.revived, found.new, found.changed, found.relative_change, found.iou
    (1, 1, 1, 1, 0.25, 0.3333333333333333)
    """
    total = before.numel()
    rows = []
    for start in range(0, total, _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        rows.append(_compared(*_of_one_dtype(before[some], after[some]), grouped))
    if not rows:
        return Tally()
    nonzero, left, surviving, changed, *sums = map(sum, zip(*rows, strict=True))
    square, change, product, square_before, square_after, *groups = sums
    return Tally(
        total, total, total - nonzero, total - left, total,
        kept=total - nonzero - left + surviving,
        revived=left - surviving,
        new=nonzero - surviving,
        changed=changed,
        square=square,
        change=change,
        product=product,
        square_before=square_before,
        square_after=square_after,
        groups_before=tuple(groups[: len(N_M)]),
        groups_after=tuple(groups[len(N_M) :]),
        grouped_before=total * grouped,
        grouped_after=total * grouped,
    )  # fmt: skip


def _compared(before: torch.Tensor, after: torch.Tensor, grouped: bool) -> tuple[Any, ...]:
    """Compare so few values that they stay near to the processor.

    Returns nonzeros of each and of both, changes, five sums as of :class:`Tally`, and groups.
    """
    one, other, n = _bits(before), _bits(after), before.numel()
    there, still, both = (flags[:n] for flags in _ROOM.flags)
    nonzero = _nonzero(one, there)
    if np.array_equal(one, other):
        groups = _groups(there, n - nonzero) if grouped else NO_GROUPS
        values = _floats(before, 0)
        square = _product(values, values)
        return (nonzero, nonzero, nonzero, 0, square, 0.0, square, square, square, *groups, *groups)
    left = _nonzero(other, still)
    groups = NO_GROUPS + NO_GROUPS
    if grouped:
        groups = _groups(there, n - nonzero) + _groups(still, n - left)
    surviving = _count(np.logical_and(there, still, out=both))
    differing = np.not_equal(one, other, out=there)
    changed = _count(np.logical_and(differing, both, out=differing))
    values, new = _floats(before, 0), _floats(after, 1)
    squares = _product(values, values), _product(new, new)
    if not changed:  # what is nonzero in both is equal, and products of all else are zero
        square = product = _product(values, new)
        return (nonzero, left, surviving, 0, square, 0.0, product, *squares, *groups)
    square = squares[0]
    if surviving < nonzero or surviving < left:
        mask = np.negative(both.view(np.int8), out=both.view(np.int8))
        values, new = (_floats(_masked(part, mask), k) for k, part in enumerate((before, after)))
        square = _product(values, values)
    product = _product(values, new)
    new -= values
    change = _product(new, new)
    return (nonzero, left, surviving, changed, square, change, product, *squares, *groups)


def alone(values: torch.Tensor, *, before: bool, grouped: bool = False) -> Tally:
    """Count weights that stand in one of the models only.

    Examples
    --------
    >>> alone(torch.tensor([0.0, 2.0]), before=True).zeros_before
    1
    """
    n = values.numel()
    there = np.empty(n, dtype=bool)
    zeros = n - _nonzero(_bits(_of_one_dtype(values, values)[0]), there)
    groups = _groups(there, zeros) if grouped else NO_GROUPS
    if before:
        return Tally(
            total_before=n, zeros_before=zeros, groups_before=groups, grouped_before=n * grouped
        )
    return Tally(total_after=n, zeros_after=zeros, groups_after=groups, grouped_after=n * grouped)


def _of_one_dtype(before: torch.Tensor, after: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return values that can be told apart by their bits: halves, singles or doubles alike."""
    dtype = before.dtype
    if dtype != after.dtype or dtype not in _WHOLE:
        exact = {dtype, after.dtype} <= _EXACT
        dtype = torch.float32 if exact else torch.float64
    return before.to(dtype).contiguous(), after.to(dtype).contiguous()


def _bits(values: torch.Tensor) -> Bits:
    """Return values as integers of as many bits, which NumPy compares several times as fast."""
    bits: Bits = values.view(_WHOLE[values.dtype]).numpy()
    return bits


def _nonzero(bits: Bits, flags: Flags) -> int:
    """Tell and count what is not zero, neither +0 nor −0."""
    room = _ROOM.bits.view(bits.dtype)
    room = room[: bits.size] if bits.size <= room.size else np.empty_like(bits)
    np.bitwise_and(bits, np.iinfo(bits.dtype).max, out=room)
    return _count(np.not_equal(room, 0, out=flags))


def _masked(values: torch.Tensor, mask: npt.NDArray[np.int8]) -> torch.Tensor:
    """Return values with zeros where a mask has no bits."""
    bits = _bits(values)
    room = _ROOM.bits.view(bits.dtype)[: bits.size]
    room[:] = mask
    room &= bits
    return torch.from_numpy(room).view(values.dtype)


def _floats(values: torch.Tensor, number: int) -> torch.Tensor:
    """Return values as singles, where there is room for them; doubles stay doubles."""
    if values.dtype == torch.float64:
        return values.clone()
    return _ROOM.floats[number, : values.numel()].copy_(values)


def _count(flags: Flags) -> int:
    return int(np.count_nonzero(flags))


def _product(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the sum of products, in float64 where float32 overflows."""
    found = float(torch.dot(one, other))
    return found if math.isfinite(found) else float(torch.dot(one.double(), other.double()))


def _groups(there: Flags, zeros: int) -> tuple[int, ...]:
    """Count the groups that comply with each N:M."""
    if zeros < _FEW_ZEROS * there.size:
        return NO_GROUPS
    sums = {}
    for m, (kind, ones) in _TOGETHER.items():
        # Eight bits a weight: the topmost of a product with ones is the sum of all.
        words = torch.from_numpy(there).view(kind)
        sums[m] = (words * ones).numpy()
    return tuple(_count(sums[m] < (n + 1) << 8 * (m - 1)) for n, m in N_M)


def _complied(groups: tuple[int, ...], grouped: int, total: int) -> str | None:
    if not total or grouped != total:
        return None
    matching = ((n, m) for (n, m), c in zip(N_M, groups, strict=True) if c * m >= COMPLYING * total)
    return next((f"{n}:{m}" for n, m in matching), None)
