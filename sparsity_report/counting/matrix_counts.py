"""Values of a tensor, and positions of the zeros in its matrices, counted in one pass.

The pass reads blocks of bounded size. Unpacked values are read as unsigned integers; packed ones
are decoded. Rows are outputs and columns are inputs, in whichever order a matrix is
stored, so that groups and patterns always run along the inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sparsity_report.counting.n_m_patterns import Flags, Pattern, group_counts
from sparsity_report.weights.array_dtypes import dtype_name
from sparsity_report.weights.matrix_direction import Matrix
from sparsity_report.weights.tensor_slices import Entry, FileSlice, pieces

Bits = npt.NDArray[Any]
# Values of a block: few enough for a cache of the processor.
_BLOCK = 2**18


class _Codes(NamedTuple):
    """Magnitudes of a dtype as unsigned integers: the mask without the sign, and special codes."""

    unsigned: str
    mask: int
    infinity: int | None = None
    nan: int | None = None


def _ieee(bits: int, mantissa: int) -> _Codes:
    sign, infinity = 1 << (bits - 1), (1 << (bits - 1)) - (1 << mantissa)
    return _Codes(f"u{bits // 8}", sign - 1, infinity, infinity + 1)


_CODES = {
    "float64": _ieee(64, 52), "float32": _ieee(32, 23), "float16": _ieee(16, 10),
    "bfloat16": _ieee(16, 7), "float8_e5m2": _ieee(8, 2),
    "float8_e4m3fn": _Codes("u1", 0x7F, None, 0x7F),
    # Without infinities, and with NaN in place of −0.
    "float8_e4m3fnuz": _Codes("u1", 0x7F, None, 0x80),
    "float8_e5m2fnuz": _Codes("u1", 0x7F, None, 0x80),
    "complex64": _Codes("u8", 0x7FFFFFFF7FFFFFFF),
    "bool": _Codes("u1", 0xFF),
    **{
        f"{sign}int{8 * size}": _Codes(f"u{size}", (1 << 8 * size) - 1)
        for sign in ("", "u") for size in (1, 2, 4, 8)
    },
}  # fmt: skip


@dataclass(eq=False)
class MatrixCount:
    """Counts of one tensor, and positions of the zeros in its matrices.

    Attributes
    ----------
    matrix : Matrix
        Sizes and direction of the weight matrix or of each expert; none of a tensor without one.
    patterns : sequence of Pattern
        N:M patterns to look for.
    blocks : sequence of int
        Ascending sizes of square blocks to look for, powers of two.
    total, zeros, nan, infinite : int
        Values in all, and those that are ±0, NaN and infinite.
    rows, columns : numpy.ndarray of int64
        Nonzeros of each output and input, by expert.
    kept : dict of Pattern to numpy.ndarray of int64
        Groups that comply by expert, for the patterns whose M divides the inputs.
    violations : dict of Pattern to tuple of int
        Expert, row and first column of the first group that breaks a pattern.
    filled : dict of int to numpy.ndarray of int64
        Square blocks with a nonzero, by size and expert.

    Examples
    --------
    >>> count = MatrixCount(Matrix(2, 4), [Pattern(2, 4)])
    >>> count.add(0, 0, np.array([[True, False, False, True], [False, False, False, False]]))
    >>> count.rows.tolist(), count.columns.tolist(), count.complying, dead_parts(count.rows)
    ([[2, 0]], [[1, 0, 0, 1]], {Pattern(n=2, m=4): 2}, 1)
    """

    matrix: Matrix
    patterns: InitVar[Sequence[Pattern]] = ()
    blocks: InitVar[Sequence[int]] = ()
    total: int = 0
    zeros: int = 0
    nan: int = 0
    infinite: int = 0
    violations: dict[Pattern, tuple[int, int, int]] = field(default_factory=dict)

    def __post_init__(self, patterns: Sequence[Pattern], blocks: Sequence[int]) -> None:
        outputs, inputs, experts = self.matrix[:3]
        self.rows = np.zeros((experts, outputs), np.int64)
        self.columns = np.zeros((experts, inputs), np.int64)
        dividing = [p for p in patterns if inputs and inputs % p.m == 0 and outputs]
        self.kept = {p: np.zeros(experts, np.int64) for p in dividing}
        self.filled = {size: np.zeros(experts, np.int64) for size in blocks}

    @property
    def complying(self) -> dict[Pattern, int]:
        """Groups of all experts that comply, by pattern."""
        return {pattern: int(groups.sum()) for pattern, groups in self.kept.items()}

    @property
    def step(self) -> int:
        """Stored lines of a block: whole rows, or whole groups of inputs."""
        unit = math.lcm(*(p.m for p in self.kept))
        unit = unit if self.matrix.input_first else 1
        return max(1, _BLOCK // max(1, self.matrix.stored[1] * unit)) * unit

    def add(self, expert: int, start: int, flags: Flags) -> None:
        """Add a block of stored lines from `start` on.

        Parameters
        ----------
        expert, start : int
            `start` cuts no group and no block.
        flags : numpy.ndarray of bool
            Whether each value is not zero.
        """
        row, column = (0, start) if self.matrix.input_first else (start, 0)
        flags = np.ascontiguousarray(flags.T if self.matrix.input_first else flags)
        rows, columns = (
            slice(at, at + n) for at, n in zip((row, column), flags.shape, strict=True)
        )
        self.rows[expert, rows] += _sums(flags, axis=1)
        self.columns[expert, columns] += _sums(flags, axis=0)
        by_group = {m: group_counts(flags, m) for m in {p.m for p in self.kept}}
        for pattern, complying in self.kept.items():
            broken = by_group[pattern.m] > pattern.n
            number = int(np.count_nonzero(broken))
            complying[expert] += broken.size - number
            if number:
                down, across = np.unravel_index(int(broken.argmax()), broken.shape)
                at = (expert, row + int(down), column + int(across) * pattern.m)
                self.violations[pattern] = min(self.violations.get(pattern, at), at)
        side, squares = 1, flags
        for size, filled in self.filled.items():
            while side < size:
                side, squares = 2 * side, _quarter(squares)
            filled[expert] += np.count_nonzero(squares)


def dead_parts(nonzeros: npt.NDArray[np.int64]) -> int:
    """Return the number of parts (rows, columns or heads) that are dead: without a nonzero."""
    return nonzeros.size - int(np.count_nonzero(nonzeros))


def head_sums(lines: npt.NDArray[np.int64], heads: int) -> npt.NDArray[np.int64]:
    """Return the nonzeros of each head, given those of the rows or columns of all."""
    sums: npt.NDArray[np.int64] = lines.reshape(*lines.shape[:-1], heads, -1).sum(axis=-1)
    return sums


def count_entry(
    entry: Entry, matrix: Matrix | None = None, patterns: Sequence[Pattern] = ()
) -> MatrixCount:
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
    >>> from sparsity_report.weights.tensor_slices import HeldSlice
    >>> held = HeldSlice.from_array(np.array([1.0, 0.0, 0.0, -2.0]))
    >>> counts = count_entry(Entry("w", (1, 4), held), Matrix(1, 4), [Pattern(2, 4)])
    >>> counts.zeros, counts.complying
    (2, {Pattern(n=2, m=4): 1})
    """
    codes = _codes(entry)
    if matrix is None or not entry.total:
        count = MatrixCount(Matrix(0, 0, 0))
        for bits in in_runs(_bits(entry), _sizes(entry.total, _BLOCK)):
            _add_values(count, codes, bits)
        return count
    count = MatrixCount(matrix, patterns)
    lines, width = matrix.stored
    if (size := min(count.step, lines) * width) > 2**28:
        raise entry.wrong(f"has {size:,} values in a row or group, more than fit into memory")
    for expert, start, bits in matrix_blocks(_bits(entry), matrix, count.step):
        count.add(expert, start, _add_values(count, codes, bits))
    return count


def nonzero_blocks(entry: Entry, step: int = _BLOCK) -> Iterator[Flags]:
    """Yield nonzero flags of the values in order, in blocks of equal size but for the last."""
    codes = _codes(entry)
    return (
        _magnitudes(codes, bits) != 0 for bits in in_runs(_bits(entry), _sizes(entry.total, step))
    )


def matrix_blocks(
    parts: Iterator[Bits], matrix: Matrix, step: int
) -> Iterator[tuple[int, int, Bits]]:
    """Yield expert, first line and values of each block of `step` stored lines.

    Parameters
    ----------
    parts : iterator of numpy.ndarray
        All values in the order of storage, one-dimensional.
    matrix : Matrix
    step : int
    """
    lines, width = matrix.stored
    places = [
        (expert, start, size)
        for expert in range(matrix.experts if width else 0)
        for start, size in zip(range(0, lines, step), _sizes(lines, step), strict=True)
    ]
    runs = in_runs(parts, (size * width for *_, size in places))
    for (expert, start, _), run in zip(places, runs, strict=True):
        yield expert, start, run.reshape(-1, width)


def in_runs(parts: Iterator[Bits], sizes: Iterable[int]) -> Iterator[Bits]:
    """Yield consecutive values in runs of the given sizes, from one-dimensional parts."""
    waiting: list[Bits] = []
    gathered = 0
    for size in sizes:
        while gathered < size:
            waiting.append(next(parts))
            gathered += len(waiting[-1])
        joined = np.concatenate(waiting) if len(waiting) > 1 else waiting[0]
        gathered -= size
        waiting = [joined[size:]] if gathered else []
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
    if isinstance(entry.values, FileSlice):
        yield from (entry.values.unpack(raw).view(unsigned) for raw in entry.values.raw())
        return
    for piece in pieces(entry.slices()):
        yield piece.view(unsigned)


def narrow_magnitudes(values: Bits) -> Bits:
    """Return the magnitudes of values of at most 16 bits as unsigned integers."""
    codes = _CODES[dtype_name(values.dtype)]
    return _magnitudes(codes, values.view(codes.unsigned))


def _magnitudes(codes: _Codes, bits: Bits) -> Bits:
    magnitudes: Bits = bits & bits.dtype.type(codes.mask)
    if codes.nan == codes.mask + 1:
        magnitudes[bits == codes.nan] = codes.nan
    return magnitudes


def _add_values(counts: MatrixCount, codes: _Codes, bits: Bits) -> Flags:
    """Count zeros and special values of a block; return which values are not zero."""
    magnitudes = _magnitudes(codes, bits)
    nonzero: Flags = magnitudes != 0
    counts.total += bits.size
    counts.zeros += bits.size - int(np.count_nonzero(nonzero))
    if codes.nan is not None and magnitudes.max(initial=0) >= (codes.infinity or codes.nan):
        counts.nan += int(np.count_nonzero(magnitudes >= codes.nan))
        if codes.infinity is not None:
            counts.infinite += int(np.count_nonzero(magnitudes == codes.infinity))
    return nonzero


def _sums(flags: Flags, axis: int) -> Bits:
    """Return the number of flags along an axis, added in the narrowest integers."""
    narrow = np.min_scalar_type(flags.shape[axis])
    sums: Bits = flags.view(np.uint8).sum(axis=axis, dtype=narrow)
    return sums


def _quarter(flags: Flags) -> Flags:
    """Return whether each square of 2 × 2 has any flag."""
    rows, columns = flags.shape
    if rows % 2 or columns % 2:
        flags = np.pad(flags, ((0, rows % 2), (0, columns % 2)))
    lines = flags[0::2] | flags[1::2]
    return lines[:, 0::2] | lines[:, 1::2]
