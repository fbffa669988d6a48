"""What became of weights, from the values that they had and those that they have."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
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
# No N:M of at least half zeros has so few, of whole groups or nearly.
_FEW_ZEROS = 0.45
NO_GROUPS = (0,) * len(N_M)
# Of eight weights, a bit each, how many groups comply with each N:M.
_PATTERNS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
_COMPLYING = np.array([(_PATTERNS.reshape(256, -1, m).sum(2) <= n).sum(1) for n, m in N_M])
Bits = npt.NDArray[np.signedinteger[Any]]
Flags = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
# Bits, the values that they are, and the number of the side.
Chunk = tuple[Bits, torch.Tensor, int]
Packed = tuple[list[Bytes], list[Bytes]]
# The same memory twice, as torch and as NumPy have what is faster in one or in the other.
Values = tuple[torch.Tensor, npt.NDArray[np.floating[Any]]]


class _Room(threading.local):
    """Memory of a thread, used again and again: to be given it takes longer than to count."""

    def __init__(self) -> None:
        self.flags = np.empty((3, _AT_ONCE), dtype=bool)
        self.values = {
            dtype: [(row, row.numpy()) for row in torch.empty(3, _AT_ONCE, dtype=dtype)]
            for dtype in (torch.float32, torch.float64)
        }

    def of(self, number: int, dtype: torch.dtype, size: int) -> Values:
        """Return room for so many values, as both libraries see it."""
        values, same = self.values[dtype][number]
        return (values, same) if size == _AT_ONCE else (values[:size], same[:size])


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
    rows, packed = [], (list[Bytes](), list[Bytes]())
    for one, other in zip(*_chunks(before, after), strict=True):
        rows.append(_compared(one, other, packed if grouped else None))
    if not rows:
        return Tally()
    nonzero, left, surviving, changed, *sums = map(sum, zip(*rows, strict=True))
    square, change, product, square_before, square_after = sums
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
        groups_before=_complying(packed[0]),
        groups_after=_complying(packed[1]),
        grouped_before=total * grouped,
        grouped_after=total * grouped,
    )  # fmt: skip


def _chunks(*sides: torch.Tensor) -> Iterator[Iterator[Chunk]]:
    """Cut each side into what can be told apart by its bits, as many at a time as are compared."""
    dtype, dtypes = sides[0].dtype, {side.dtype for side in sides}
    if len(dtypes) > 1 or dtype not in _WHOLE:
        dtype = torch.float32 if dtypes <= _EXACT else torch.float64
    for number, side in enumerate(sides):
        yield _cut(side, dtype, number)


def _cut(side: torch.Tensor, dtype: torch.dtype, number: int) -> Iterator[Chunk]:
    for some in side.split(_AT_ONCE):
        values = some.to(dtype).contiguous()
        bits: Bits = values.view(_WHOLE[dtype]).numpy()
        yield bits, values, number


def _compared(before: Chunk, after: Chunk, packed: Packed | None) -> tuple[Any, ...]:
    """Compare so few values that they stay near to the processor.

    Returns nonzeros of each and of both, changes, and five sums as of :class:`Tally`; `packed`
    gets what is to be looked at for N:M.
    """
    there, still, differing = (flags[: before[0].size] for flags in _ROOM.flags)
    same = not _count(np.not_equal(before[0], after[0], out=differing))
    one = _floats(before)
    nonzero, before_it = _nonzero(one, there), _product(one, one)
    for side in (packed or ())[: 1 + same]:
        _pack(side, there, nonzero)
    if same:
        return (nonzero, nonzero, nonzero, 0, before_it, 0.0, before_it, before_it, before_it)
    other = _floats(after)
    left, after_it = _nonzero(other, still), _product(other, other)
    if packed:
        _pack(packed[1], still, left)
    both = np.logical_and(there, still, out=still)
    surviving = _count(both)
    changed = _count(np.logical_and(differing, both, out=differing))
    if not changed:  # what is nonzero in both is equal, and products of all else are zero
        product = after_it if surviving == left else _product(one, other)
        sums = (product, 0.0, product, before_it, after_it)
    else:
        square = before_it
        if surviving < max(nonzero, left):
            mask = _mask(both, one)
            one = _masked(one, mask, 0) if surviving < nonzero else one
            other = _masked(other, mask, 1) if surviving < left else other
            square = _product(one, one) if surviving < nonzero else square
        moved = _ROOM.of(2, one[0].dtype, both.size)
        torch.sub(other[0], one[0], out=moved[0])
        sums = (square, _product(moved, moved), _product(one, other), before_it, after_it)
    return (nonzero, left, surviving, changed, *sums)


def alone(values: torch.Tensor, *, before: bool, grouped: bool = False) -> Tally:
    """Count weights that stand in one of the models only.

    Examples
    --------
    >>> alone(torch.tensor([0.0, 2.0]), before=True).zeros_before
    1
    """
    n, left, packed = values.numel(), 0, list[Bytes]()
    (chunks,) = _chunks(values)
    for chunk in chunks:
        there = _ROOM.flags[0, : chunk[0].size]
        nonzero = _nonzero(_floats(chunk), there)
        left += nonzero
        if grouped:
            _pack(packed, there, nonzero)
    zeros, groups = n - left, _complying(packed)
    if before:
        return Tally(
            total_before=n, zeros_before=zeros, groups_before=groups, grouped_before=n * grouped
        )
    return Tally(total_after=n, zeros_after=zeros, groups_after=groups, grouped_after=n * grouped)


def _nonzero(values: Values, flags: Flags) -> int:
    """Tell and count what is not zero, neither +0 nor −0."""
    return _count(np.not_equal(values[1], 0, out=flags))


def _mask(flags: Flags, values: Values) -> Bits:
    """Return integers as wide as values, of nothing but bits where there is a flag; it is lost."""
    mask = _bits(_ROOM.of(2, values[0].dtype, flags.size))
    mask[:] = np.negative(flags.view(np.int8), out=flags.view(np.int8))
    return mask


def _masked(values: Values, mask: Bits, number: int) -> Values:
    """Return values with zeros where a mask has no bits."""
    room = _ROOM.of(number, values[0].dtype, mask.size)
    np.bitwise_and(_bits(values), mask, out=_bits(room))
    return room


def _bits(values: Values) -> Bits:
    return values[1].view(f"i{values[1].itemsize}")


def _floats(chunk: Chunk) -> Values:
    """Return halves as singles, where there is room for them; singles and doubles are that."""
    bits, values, number = chunk
    if bits.itemsize > 2:
        return values, bits.view(f"f{bits.itemsize}")
    room = _ROOM.of(number, torch.float32, bits.size)
    room[0].copy_(values)
    return room


def _count(flags: Flags) -> int:
    return int(np.count_nonzero(flags))


def _product(one: Values, other: Values) -> float:
    """Return the sum of products, in float64 where float32 overflows."""
    found = float(torch.dot(one[0], other[0]))
    if math.isfinite(found):
        return found
    return float(torch.dot(one[0].double(), other[0].double()))


def _pack(packed: list[Bytes], there: Flags, nonzero: int) -> None:
    """Keep a bit of each weight, where there are zeros enough for an N:M."""
    if there.size - nonzero >= _FEW_ZEROS * there.size:
        packed.append(np.packbits(there))


def _complying(packed: list[Bytes]) -> tuple[int, ...]:
    """Count the groups that comply with each N:M."""
    if not packed:
        return NO_GROUPS
    patterns = torch.bincount(torch.from_numpy(np.concatenate(packed)), minlength=256).numpy()
    return tuple((_COMPLYING @ patterns).tolist())


def _complied(groups: tuple[int, ...], grouped: int, total: int) -> str | None:
    if not total or grouped != total:
        return None
    matching = ((n, m) for (n, m), c in zip(N_M, groups, strict=True) if c * m >= COMPLYING * total)
    return next((f"{n}:{m}" for n, m in matching), None)
