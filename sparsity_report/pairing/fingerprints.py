"""What rows of a matrix are like: read once, told apart by their bytes, compared by projections."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from sparsity_report.pairing.roles import Part
from sparsity_report.weights.tensor_slices import FileSlice, HeldSlice, LocalFile, Slice, pieces
from sparsity_report.weights.weights import Weights

Floats = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]

# Projections of a row: unrelated rows seem alike by 1/√128 = 0.09, give or take.
PROJECTIONS = 128
_ROWS = 256
# Inputs of a few outputs that are looked at where a matrix lies the other way.
_INPUTS = 64


def matrix(
    weights: Weights, part: Part, expert: int | None = None, most: int | None = None
) -> torch.Tensor:
    """Read a matrix, of one expert where there are several in the tensor; outputs come first.

    Of `most` rows in memory, no more are read.
    """
    return read(tuple(weights.as_in_memory(part.parameter.name)), part, expert, most)


def read(
    slices: Sequence[Slice], part: Part, expert: int | None = None, most: int | None = None
) -> torch.Tensor:
    """Return :func:`matrix` of a parameter's slices; those that it does not lie in are not read."""
    shape = part.parameter.shape[-2:] if part.columns else (*part.parameter.shape[-1:], 1)
    first = (expert or 0) * shape[0] * shape[1]
    shape = (min(shape[0], most or shape[0]), shape[1])
    turned = _span(slices, first, first + shape[0] * shape[1]).reshape(shape)
    return turned.T if part.parameter.transposed and part.columns else turned


def _span(slices: Sequence[Slice], first: int, last: int) -> torch.Tensor:
    """Read the values of a parameter from one place to before another."""
    values = torch.empty(last - first, dtype=slices[0].dtype)
    start = done = 0
    for cut in slices:
        low, high = max(first - start, 0), min(last - start, cut.total)
        for piece in cut.within(low, high) if low < high else ():
            values[done : done + piece.numel()] = piece
            done += piece.numel()
        start += cut.total
    return values


def glimpse(
    weights: Weights, part: Part, expert: int | None, rows: Index, inputs: Index
) -> torch.Tensor | None:
    """Read a few rows of a matrix, of one that lies the other way in some columns of all only.

    None where that would take as long as reading it as a whole.
    """
    name, (lines, width) = part.parameter.name, part.parameter.shape[-2:]
    if not weights.gives_some(name):
        return None
    slices = tuple(weights.as_in_memory(name))
    if not all(
        isinstance(cut, HeldSlice)
        or (isinstance(cut, FileSlice) and isinstance(cut.file, LocalFile))
        for cut in slices
    ):
        return None
    turned = part.parameter.transposed
    first = (expert or 0) * lines
    wanted = inputs[:_INPUTS] if turned else rows
    starts = [(first + line) * width for line in wanted.tolist()]
    table = torch.stack([_span(slices, start, start + width) for start in starts])
    if turned:
        return table.T[torch.from_numpy(rows)].float()
    return table[:, torch.from_numpy(inputs)].float()


def units(table: torch.Tensor, lines: int, columns: Index | None = None) -> torch.Tensor:
    """Return rows of a matrix, so many to a unit, with some of the columns only, as float32."""
    some = table if columns is None else table[:, torch.from_numpy(columns)]
    return some.float().reshape(some.shape[0] // lines, -1)


def digests(tables: Sequence[torch.Tensor]) -> list[bytes]:
    """Return what tells each unit from others: equal values have equal digests.

    Examples
    --------
    >>> one, zero, other = digests([torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, -0.0]])])
    >>> one == other, one == zero
    (True, False)
    """
    found = [hashlib.blake2b(digest_size=16) for _ in range(len(tables[0]))]
    for table in tables:
        for start in range(0, len(table), _ROWS):
            rows = (table[start : start + _ROWS] + 0.0).contiguous().numpy()
            for digest, row in zip(found[start:], rows, strict=False):
                digest.update(row.data)
    return [digest.digest() for digest in found]


def rows_of(weights: Weights, part: Part) -> Iterator[torch.Tensor]:
    """Yield the rows of a table, some at a time; of a large one never all are in memory."""
    slices = weights.as_in_memory(part.parameter.name)
    return whole_rows(pieces(slices), part.parameter.shape[-1])


def whole_rows(parts: Iterable[torch.Tensor], width: int) -> Iterator[torch.Tensor]:
    """Cut values into rows, as many at a time as come.

    Examples
    --------
    >>> [rows.tolist() for rows in whole_rows([torch.arange(3), torch.arange(3, 6)], 2)]
    [[[0, 1]], [[2, 3], [4, 5]]]
    """
    left = None
    for part in parts:
        joined = part if left is None else torch.cat([left, part])
        whole = joined.numel() // width * width
        if whole:
            yield joined[:whole].view(-1, width)
        left = joined[whole:] if whole < joined.numel() else None


class Seen(NamedTuple):
    """What is known of the rows of a matrix that is not in memory any more.

    Attributes
    ----------
    digests : list of bytes
    drawn : numpy.ndarray of float32
        Their projections.
    """

    digests: list[bytes]
    drawn: Floats


def seen(tables: Iterable[torch.Tensor]) -> Seen:
    """Return what tells the units of tables, one table after the other, from others."""
    told = [(digests([table]), projections([table])) for table in tables]
    return Seen([d for ds, _ in told for d in ds], np.concatenate([drawn for _, drawn in told]))


def projections(tables: Sequence[torch.Tensor]) -> Floats:
    """Return units of length 1, projected to few random directions, the same for any model."""
    total = torch.zeros(len(tables[0]), PROJECTIONS)
    for number, table in enumerate(tables):
        seed = torch.Generator().manual_seed(number)
        step = max(2**20 // PROJECTIONS, 1)
        for start in range(0, table.shape[1], step):
            some = table[:, start : start + step]
            signs = torch.randint(0, 2, (some.shape[1], PROJECTIONS), generator=seed)
            total += some @ (2.0 * signs - 1)
    array: Floats = torch.nn.functional.normalize(total, dim=1).nan_to_num().numpy()
    return array
