"""Rows of a matrix: reading, hashing, and projections that preserve similarity."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sparsity_report.deferred import torch
from sparsity_report.pairing.roles import Part, stored_sizes
from sparsity_report.weights.tensor_slices import (
    FileSlice,
    HeldSlice,
    LocalFile,
    Slice,
    pieces,
    torch_dtype,
)
from sparsity_report.weights.weights import Weights

Floats = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]

# Projections per row: the cosine of unrelated rows is within about 1/√128 = 0.09 of zero.
PROJECTIONS = 128
_ROWS = 256
# Inputs sampled from a matrix that is stored with its inputs first.
_INPUTS = 64


class Fingerprints(NamedTuple):
    """Digests and projections of the rows of a matrix.

    Attributes
    ----------
    digests : list of bytes
        Equal for rows with equal values.
    projections : numpy.ndarray of float32
        One row of `PROJECTIONS` numbers for each.
    """

    digests: list[bytes]
    projections: Floats


def take_fingerprints(table: torch.Tensor) -> Fingerprints:
    """Return the fingerprints of the rows of a table."""
    return Fingerprints(hash_rows(table), project([table]))


def read_matrix(
    weights: Weights, part: Part, expert: int | None = None, rows: int | None = None
) -> torch.Tensor:
    """Read a matrix, outputs first, of one expert if the tensor holds several.

    Parameters
    ----------
    weights : Weights
    part : Part
    expert : int, optional
    rows : int, optional
        Read only the first so many rows, as they are stored.
    """
    return matrix_of_slices(tuple(weights.as_in_memory(part.parameter.name)), part, expert, rows)


def matrix_of_slices(
    slices: Sequence[Slice], part: Part, expert: int | None = None, rows: int | None = None
) -> torch.Tensor:
    """Return :func:`read_matrix` from slices of the parameter; read only slices that overlap it."""
    lines, width = (*stored_sizes(part.parameter.shape, part.stacked), 1)[:2]
    first, lines_read = (expert or 0) * lines * width, min(lines, rows or lines)
    stored = _read_span(slices, first, first + lines_read * width).reshape(lines_read, width)
    return stored.T if part.parameter.transposed and part.columns else stored


def _read_span(slices: Sequence[Slice], first: int, last: int) -> torch.Tensor:
    """Read the values of a parameter from position `first` to before `last`."""
    values = torch.empty(last - first, dtype=torch_dtype(slices[0].dtype))
    start = done = 0
    for part in slices:
        low, high = max(first - start, 0), min(last - start, part.total)
        for piece in part.within(low, high) if low < high else ():
            values[done : done + piece.numel()] = piece
            done += piece.numel()
        start += part.total
    return values


def sample_rows(
    weights: Weights, part: Part, expert: int | None, rows: Index, columns: Index
) -> torch.Tensor | None:
    """Read some rows of a matrix, and of a transposed one only some of the columns.

    Return None if this would take as long as reading the whole matrix.
    """
    name, (lines, width) = part.parameter.name, stored_sizes(part.parameter.shape, part.stacked)
    if not weights.gives_some(name):
        return None
    slices = tuple(weights.as_in_memory(name))
    if not all(
        isinstance(each, HeldSlice)
        or (isinstance(each, FileSlice) and isinstance(each.file, LocalFile))
        for each in slices
    ):
        return None
    transposed = part.parameter.transposed
    first = (expert or 0) * lines
    stored_rows = columns[:_INPUTS] if transposed else rows
    starts = [(first + row) * width for row in stored_rows.tolist()]
    table = torch.stack([_read_span(slices, start, start + width) for start in starts])
    if transposed:
        return table.T[torch.from_numpy(rows)].float()
    return table[:, torch.from_numpy(columns)].float()


def pick_columns(table: torch.Tensor, columns: Index | None) -> torch.Tensor:
    """Return a table with some of its columns, all for None, as float32."""
    return (table if columns is None else table[:, torch.from_numpy(columns)]).float()


def hash_rows(table: torch.Tensor) -> list[bytes]:
    """Return a digest of each row; rows with equal values have equal digests.

    Examples
    --------
    >>> one, zero, other = hash_rows(torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, -0.0]]))
    >>> one == other, one == zero
    (True, False)
    """
    digests = []
    for some in table.split(_ROWS):
        rows = (some + 0.0).contiguous().numpy()
        digests += [hashlib.blake2b(row.data, digest_size=16).digest() for row in rows]
    return digests


def iterate_rows(weights: Weights, part: Part) -> Iterator[torch.Tensor]:
    """Yield the rows of a table in chunks, so that a large one is never in memory as a whole."""
    width = part.parameter.shape[-1]
    values = pieces(weights.as_in_memory(part.parameter.name))
    return (rows.view(-1, width) for rows in whole_groups(values, width))


def whole_groups(parts: Iterable[torch.Tensor], size: int) -> Iterator[torch.Tensor]:
    """Yield consecutive values as pieces of whole groups of one size, and the rest."""
    rest = torch.empty(0)
    for part in parts:
        joined = torch.cat([rest, part]) if rest.numel() else part
        grouped = joined.numel() // size * size
        if grouped:
            yield joined[:grouped]
        rest = joined[grouped:]
    if rest.numel():
        yield rest


def project(tables: Sequence[torch.Tensor]) -> Floats:
    """Return rows over all tables projected to random directions, the same ones for any model.

    Rows are normalized, so that a product of two is about the cosine of their angle.
    """
    total = torch.zeros(len(tables[0]), PROJECTIONS)
    for number, table in enumerate(tables):
        generator = torch.Generator().manual_seed(number)
        step = max(2**20 // PROJECTIONS, 1)
        for start in range(0, table.shape[1], step):
            some = table[:, start : start + step]
            signs = torch.randint(0, 2, (some.shape[1], PROJECTIONS), generator=generator)
            total += some @ (2.0 * signs - 1)
    array: Floats = torch.nn.functional.normalize(total, dim=1).nan_to_num().numpy()
    return array
