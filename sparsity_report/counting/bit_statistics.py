"""Counts of a tensor from the bits of its values: zeros, patterns, and numbers that break kernels.

One pass in blocks of bounded size. Unpacked values are read as unsigned integers, without torch;
packed ones are decoded. Rows are outputs and columns are inputs, in whichever order a matrix is
stored, so that groups and patterns always run along the inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sparsity_report.counting.n_m_patterns import Flags, Pattern, group_counts
from sparsity_report.deferred import torch
from sparsity_report.weights.matrix_direction import Matrix
from sparsity_report.weights.tensor_slices import Entry, FileSlice, pieces

Bits = npt.NDArray[Any]

GROUPS = (32, 64, 128)
"""Weights that share a scale in usual quantized formats."""
# Values of a block: few enough for a cache of the processor.
_BLOCK = 2**18


class _Codes(NamedTuple):
    """Magnitudes of a dtype as unsigned integers: the mask without the sign, and special codes."""

    unsigned: str
    mask: int
    infinity: int | None = None
    nan: int | None = None
    normal: int = 0


def _ieee(bits: int, mantissa: int) -> _Codes:
    sign, infinity = 1 << (bits - 1), (1 << (bits - 1)) - (1 << mantissa)
    return _Codes(f"u{bits // 8}", sign - 1, infinity, infinity + 1, 1 << mantissa)


_CODES = {
    "float64": _ieee(64, 52), "float32": _ieee(32, 23), "float16": _ieee(16, 10),
    "bfloat16": _ieee(16, 7), "float8_e5m2": _ieee(8, 2),
    "float8_e4m3fn": _Codes("u1", 0x7F, None, 0x7F, 1 << 3),
    # Without infinities, and with NaN in place of −0.
    "float8_e4m3fnuz": _Codes("u1", 0x7F, None, 0x80, 1 << 3),
    "float8_e5m2fnuz": _Codes("u1", 0x7F, None, 0x80, 1 << 2),
    "complex64": _Codes("u8", 0x7FFFFFFF7FFFFFFF),
    "bool": _Codes("u1", 0xFF),
    **{
        f"{sign}int{8 * size}": _Codes(f"u{size}", (1 << 8 * size) - 1)
        for sign in ("", "u") for size in (1, 2, 4, 8)
    },
}  # fmt: skip


@dataclass(eq=False)
class BitStatistics:
    """Counts of one tensor.

    Attributes
    ----------
    total, zeros, nan, infinite, denormal : int
        Values in all, and those that are ±0, NaN, infinite and denormal.
    complying : dict of Pattern to int
        Groups that comply, for the patterns whose M divides the inputs.
    violations : dict of Pattern to tuple of int
        Expert, row and first column of the first group that breaks a pattern.
    zero_groups : dict of int to int
        All-zero groups along the inputs by their size, for sizes that divide the inputs.
    first_zero_group : tuple of int or None
        Expert, row and first column of the first all-zero group of the smallest size.
    filled_rows, filled_columns : numpy.ndarray of bool
        Outputs and inputs with a nonzero, by expert; empty for a tensor that is no matrix.
    constant_rows : int
        Outputs whose weights are all equal and not zero.
    """

    total: int = 0
    zeros: int = 0
    nan: int = 0
    infinite: int = 0
    denormal: int = 0
    complying: dict[Pattern, int] = field(default_factory=dict)
    violations: dict[Pattern, tuple[int, int, int]] = field(default_factory=dict)
    zero_groups: dict[int, int] = field(default_factory=dict)
    first_zero_group: tuple[int, int, int] | None = None
    filled_rows: Flags = field(default_factory=lambda: np.ones((0, 0), np.bool_))
    filled_columns: Flags = field(default_factory=lambda: np.ones((0, 0), np.bool_))
    constant_rows: int = 0


def bit_statistics(
    entry: Entry, matrix: Matrix | None = None, patterns: Sequence[Pattern] = ()
) -> BitStatistics:
    """Count the values of a tensor in one pass.

    Parameters
    ----------
    entry : Entry
    matrix : Matrix, optional
        Sizes and direction of a weight matrix; without it, only values are counted.
    patterns : sequence of Pattern
        N:M patterns to look for.

    Raises
    ------
    SparsityReportError
        The tensor cannot be read, or has no single row that fits into memory.

    Examples
    --------
    >>> import torch
    >>> from sparsity_report.weights.tensor_slices import HeldSlice
    >>> held = HeldSlice.from_tensor(torch.tensor([1.0, 0.0, 0.0, -2.0]))
    >>> counts = bit_statistics(Entry("w", (1, 4), held), Matrix(1, 4), [Pattern(2, 4)])
    >>> counts.zeros, counts.complying
    (2, {Pattern(n=2, m=4): 1})
    """
    codes, counts = _codes(entry), BitStatistics()
    if matrix is None or not entry.total:
        for bits in in_runs(_bits(entry), _sizes(entry.total, _BLOCK)):
            _add_values(counts, codes, bits)
        return counts
    lines = _Lines(counts, matrix, patterns)
    down, width = matrix.stored
    if (size := min(lines.step, down) * width) > 2**28:
        raise entry.wrong(f"has {size:,} values in a row or group, more than fit into memory")
    places = matrix_places(matrix.experts, down, lines.step)
    runs = in_runs(_bits(entry), (number * width for *_, number in places))
    for (expert, start, _), run in zip(places, runs, strict=True):
        block = run.reshape(-1, width)
        bits = np.ascontiguousarray(block.T) if matrix.input_first else block
        lines.add(expert, start, bits, _add_values(counts, codes, bits))
    if matrix.inputs > 1:
        counts.constant_rows = int(np.count_nonzero(lines.constant & counts.filled_rows))
    return counts


def nonzero_blocks(entry: Entry, step: int = _BLOCK) -> Iterator[Flags]:
    """Yield nonzero flags of the values in order, in blocks of equal size but for the last."""
    codes = _codes(entry)
    return (
        _magnitudes(codes, bits) != 0 for bits in in_runs(_bits(entry), _sizes(entry.total, step))
    )


def matrix_places(experts: int, lines: int, step: int) -> list[tuple[int, int, int]]:
    """Return expert, first line and number of lines of each block of `step` lines."""
    return [
        (expert, start, size)
        for expert in range(experts)
        for start, size in zip(range(0, lines, step), _sizes(lines, step), strict=True)
    ]


def in_runs(
    parts: Iterator[Any], sizes: Iterable[int], join: Callable[[Any], Any] = np.concatenate
) -> Iterator[Any]:
    """Yield consecutive values in runs of the given sizes, from one-dimensional parts."""
    waiting: list[Any] = []
    held = 0
    for size in sizes:
        while held < size:
            waiting.append(next(parts))
            held += len(waiting[-1])
        joined = join(waiting) if len(waiting) > 1 else waiting[0]
        held -= size
        waiting = [joined[size:]] if held else []
        yield joined[:size]
    next(parts, None)  # the end of a file, where a change since its begin is noticed


def _sizes(total: int, step: int) -> list[int]:
    return [min(step, total - start) for start in range(0, total, step)]


def _codes(entry: Entry) -> _Codes:
    if (codes := _CODES.get(entry.dtype)) is None:
        raise entry.wrong(f"holds {entry.dtype}, whose zeros are not known; convert it")
    return codes


def _bits(entry: Entry) -> Iterator[Bits]:
    """Yield the values of a tensor as unsigned integers, decoded if they are packed."""
    unsigned = np.dtype(_codes(entry).unsigned)
    if isinstance(entry.values, FileSlice) and not entry.values.packing:
        yield from (raw.view(unsigned) for raw in entry.values.raw())
        return
    for piece in pieces(entry.slices()):
        yield piece.contiguous().view(torch.uint8).numpy().view(unsigned)


def _magnitudes(codes: _Codes, bits: Bits) -> Bits:
    magnitudes: Bits = bits & bits.dtype.type(codes.mask)
    if codes.nan == codes.mask + 1:
        magnitudes[bits == codes.nan] = codes.nan
    return magnitudes


def _add_values(counts: BitStatistics, codes: _Codes, bits: Bits) -> Flags:
    """Count zeros and special values of a block; return which values are not zero."""
    magnitudes = _magnitudes(codes, bits)
    nonzero: Flags = magnitudes != 0
    zeros = bits.size - int(np.count_nonzero(nonzero))
    counts.total += bits.size
    counts.zeros += zeros
    if codes.nan is not None and bits.size:
        counts.denormal += int(np.count_nonzero(magnitudes < codes.normal)) - zeros
        if magnitudes.max() >= (codes.nan if codes.infinity is None else codes.infinity):
            counts.nan += int(np.count_nonzero(magnitudes >= codes.nan))
            if codes.infinity is not None:
                counts.infinite += int(np.count_nonzero(magnitudes == codes.infinity))
    return nonzero


class _Lines:
    """Groups, rows and columns of one matrix, counted block by block."""

    def __init__(self, counts: BitStatistics, matrix: Matrix, patterns: Sequence[Pattern]) -> None:
        self._counts, self._matrix = counts, matrix
        inputs, outputs, experts = matrix.inputs, matrix.outputs, matrix.experts
        counts.complying = {p: 0 for p in patterns if inputs and inputs % p.m == 0}
        counts.zero_groups = {size: 0 for size in GROUPS if inputs and inputs % size == 0}
        counts.filled_rows = np.zeros((experts, outputs), np.bool_)
        counts.filled_columns = np.zeros((experts, inputs), np.bool_)
        self._first = np.zeros((experts, outputs), np.uint64)
        self.constant = np.ones((experts, outputs), np.bool_)
        # Stored lines of a block: whole rows, or whole groups of inputs.
        unit = math.lcm(*counts.zero_groups, *(p.m for p in counts.complying))
        unit = unit if matrix.input_first else 1
        self.step = max(1, _BLOCK // max(1, matrix.stored[1] * unit)) * unit

    def add(self, expert: int, start: int, bits: Bits, nonzero: Flags) -> None:
        """Add a block of outputs × inputs that begins at a stored line."""
        flags = nonzero.reshape(bits.shape)
        row, column = (0, start) if self._matrix.input_first else (start, 0)
        rows, columns = (slice(at, at + n) for at, n in zip((row, column), bits.shape, strict=True))
        counts = self._counts
        counts.filled_rows[expert, rows] |= flags.any(axis=1)
        counts.filled_columns[expert, columns] |= flags.any(axis=0)
        if column == 0:
            self._first[expert, rows] = bits[:, 0]
        same = bits == self._first[expert, rows, None].astype(bits.dtype)
        self.constant[expert, rows] &= same.all(axis=1)
        held = {m: group_counts(flags, m) for m in {p.m for p in counts.complying}}
        for pattern in counts.complying:
            broken = held[pattern.m] > pattern.n
            counts.complying[pattern] += broken.size - int(np.count_nonzero(broken))
            if broken.any():
                at = (expert, *_first(broken, row, column, pattern.m))
                counts.violations[pattern] = min(counts.violations.get(pattern, at), at)
        for size in counts.zero_groups if not flags.all() else ():
            filled = flags.view(np.uint64) != 0  # by eight inputs
            empty = ~filled.reshape(len(flags), -1, size // 8).any(axis=2)
            if not (number := int(np.count_nonzero(empty))):
                break  # larger groups consist of smaller ones
            counts.zero_groups[size] += number
            if size == GROUPS[0]:
                at = (expert, *_first(empty, row, column, size))
                counts.first_zero_group = min(counts.first_zero_group or at, at)


def _first(flags: Flags, row: int, column: int, width: int) -> tuple[int, int]:
    """Return row and column of the first flagged group of a block."""
    down, across = np.unravel_index(int(flags.argmax()), flags.shape)
    return row + int(down), column + int(across) * width
