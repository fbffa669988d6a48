"""Rows of a matrix: reading, hashing, and projections that preserve similarity."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sparsity_report.pairing.roles import Part, stored_sizes
from sparsity_report.weights.array_dtypes import Array, array_dtype
from sparsity_report.weights.tensor_slices import Divisible, LocalFile, Slice, pieces
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


def take_fingerprints(table: Floats) -> Fingerprints:
    """Return the fingerprints of the rows of a table."""
    return Fingerprints(hash_rows(table), project([table]))


def read_matrix(
    weights: Weights, part: Part, expert: int | None = None, rows: int | None = None
) -> Array:
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
) -> Array:
    """Return :func:`read_matrix` from slices of the parameter; read only slices that overlap it."""
    lines, width = (*stored_sizes(part.parameter.shape, part.stacked), 1)[:2]
    first, lines_read = (expert or 0) * lines * width, min(lines, rows or lines)
    stored = _read_span(slices, first, first + lines_read * width).reshape(lines_read, width)
    return stored.T if part.parameter.transposed and part.columns else stored


def _read_span(slices: Sequence[Slice], first: int, last: int) -> Array:
    """Read the values of a parameter from position `first` to before `last`."""
    values = np.empty(last - first, array_dtype(slices[0].dtype))
    start = done = 0
    for part in slices:
        low, high = max(first - start, 0), min(last - start, part.total)
        for piece in part.within(low, high) if low < high else ():
            values[done : done + piece.size] = piece
            done += piece.size
        start += part.total
    return values


def sample_rows(
    weights: Weights, part: Part, expert: int | None, rows: Index, columns: Index
) -> Floats | None:
    """Read some rows of a matrix, and of a transposed one only some of the columns.

    Return None if this would take as long as reading the whole matrix.
    """
    name, (lines, width) = part.parameter.name, stored_sizes(part.parameter.shape, part.stacked)
    if not weights.gives_some(name):
        return None
    slices = tuple(weights.as_in_memory(name))
    files = [source.file for each in slices for source in each.sources()]
    if not all(isinstance(each, Divisible | LocalFile) for each in (*slices, *files)):
        return None
    transposed = part.parameter.transposed
    first = (expert or 0) * lines
    stored_rows = columns[:_INPUTS] if transposed else rows
    starts = [(first + row) * width for row in stored_rows.tolist()]
    table = np.stack([_read_span(slices, start, start + width) for start in starts])
    return pick_columns(*((table.T[rows], None) if transposed else (table, columns)))


def pick_columns(table: Array, columns: Index | None) -> Floats:
    """Return a table with some of its columns, all for None, as float32."""
    return (table if columns is None else table[:, columns]).astype(np.float32, copy=False)


def hash_rows(table: Floats) -> list[bytes]:
    """Return a digest of each row; rows with equal values have equal digests.

    Examples
    --------
    >>> one, zero, other = hash_rows(np.array([[1.0, 0.0], [0.0, 0.0], [1.0, -0.0]]))
    >>> one == other, one == zero
    (True, False)
    """
    digests = []
    for start in range(0, len(table), _ROWS):
        rows = np.add(table[start : start + _ROWS], 0.0, order="C")
        digests += [hashlib.blake2b(row.data, digest_size=16).digest() for row in rows]
    return digests


def iterate_rows(weights: Weights, part: Part) -> Iterator[Array]:
    """Yield the rows of a table in chunks, so that a large one is never in memory as a whole."""
    width = part.parameter.shape[-1]
    values = pieces(weights.as_in_memory(part.parameter.name))
    return (rows.reshape(-1, width) for rows in whole_groups(values, width))


def whole_groups(parts: Iterable[Array], size: int) -> Iterator[Array]:
    """Yield consecutive values as pieces of whole groups of one size, and the rest."""
    rest: Array = np.empty(0)
    for part in parts:
        joined = np.concatenate([rest, part]) if rest.size else part
        grouped = joined.size // size * size
        if grouped:
            yield joined[:grouped]
        rest = joined[grouped:]
    if rest.size:
        yield rest


@np.errstate(all="ignore")
def normalize_rows(table: Floats) -> Floats:
    """Return rows of length one; rows of zeros stay zero."""
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    rows: Floats = table / np.maximum(lengths, np.finfo(np.float32).tiny)
    return rows


@np.errstate(all="ignore")
def project(tables: Sequence[Floats]) -> Floats:
    """Return rows over all tables projected to random directions, the same ones for any model.

    Rows are normalized, so that a product of two is about the cosine of their angle.
    """
    total = np.zeros((len(tables[0]), PROJECTIONS), np.float32)
    for number, table in enumerate(tables):
        generator = np.random.RandomState(number)
        step = max(2**20 // PROJECTIONS, 1)
        for start in range(0, table.shape[1], step):
            some = table[:, start : start + step]
            bits = generator.randint(2**32, size=(some.shape[1], PROJECTIONS), dtype=np.uint32)
            total += some @ (2 * (bits & 1).astype(np.float32) - 1)
    return np.nan_to_num(normalize_rows(total))
