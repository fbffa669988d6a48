"""Binary payload of the viewer: a header in JSON and arrays, compressed together."""

import gzip
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sparsity_report.study.derived.layer_metrics import LayerFigure

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp] | None
# Arrays begin at multiples of this number of bytes.
_ALIGNED = 8


class Arrays:
    """Arrays of a payload in the order of their bytes; equal arrays are stored once."""

    def __init__(self) -> None:
        self.described: list[dict[str, Any]] = []
        self.parts: list[bytes] = []
        self._places: dict[tuple[str, bytes], int] = {}

    def numbers(self, values: Any) -> int:
        """Add numbers, NaN where unknown, and return their position."""
        numbers = np.ascontiguousarray(values, dtype="<f8")
        shuffled = numbers.view(np.uint8).reshape(numbers.size, 8).T
        return self._add("f8", shuffled.tobytes(), length=numbers.size)

    def small(self, values: Any) -> int:
        """Add integers from 0 to 255, or truth values, and return their position."""
        numbers = np.asarray(values, dtype=np.uint8)
        return self._add("u1", numbers.tobytes(), length=numbers.size)

    def levels(self, matrix: npt.NDArray[np.int64]) -> int:
        """Add integers below 2⁵³ of shape (rows, levels) and return their position.

        Rows are stored as second differences, which are small where a row is smooth.
        """
        steps = np.diff(matrix, axis=1, prepend=0).astype(np.int64)
        steps[:, 2:] = np.diff(steps[:, 1:], axis=1)
        zigzag = ((steps << 1) ^ (steps >> 63)).astype("<u8")
        planes = zigzag.view(np.uint8).reshape(matrix.size, 8).T
        needed = max(1, -(-int(zigzag.max(initial=0)).bit_length() // 8))
        rows, columns = matrix.shape
        shape = {"length": matrix.size, "rows": rows, "columns": columns, "planes": needed}
        return self._add("levels", planes[:needed].tobytes(), **shape)

    def _add(self, kind: str, content: bytes, **shape: int) -> int:
        key = (json.dumps([kind, shape]), content)
        if key not in self._places:
            self._places[key] = len(self.parts)
            self.described.append({"kind": kind, **shape})
            self.parts.append(content)
        return self._places[key]


class Contents(NamedTuple):
    """The contents of a payload.

    Attributes
    ----------
    header : dict
    arrays : Arrays
    figures : mapping of str to LayerFigure
        Figures of the metrics that do not follow from counts, by the keys of the metrics.
    """

    header: dict[str, Any]
    arrays: Arrays
    figures: Mapping[str, LayerFigure]


def common_ratio(
    amounts: Floats, sizes: Floats | None, codes: Codes = None, *, is_root: bool = False
) -> Floats:
    """Return amounts ÷ sizes of modules, or of the sums of those with a common code.

    Parameters
    ----------
    amounts, sizes : numpy.ndarray
        Without sizes, amounts are returned. Ratios are NaN where sizes are 0.
    codes : numpy.ndarray, optional
        By module.
    is_root : bool
        True for the square roots of the ratios.
    """
    if codes is not None and len(codes):
        amounts = np.bincount(codes, amounts).astype(float)
        sizes = None if sizes is None else np.bincount(codes, sizes).astype(float)
    if sizes is None:
        return amounts
    ratios: Floats = np.divide(amounts, sizes, out=np.full(len(amounts), np.nan), where=sizes != 0)
    return np.sqrt(ratios) if is_root else ratios


def nearest(levels: Sequence[float], sparsity: float) -> float:
    """Return the level next to a sparsity."""
    return min(levels, key=lambda level: abs(level - sparsity))


def encode(header: Mapping[str, Any], arrays: Arrays) -> bytes:
    """Return a header and arrays as compressed bytes; the header names arrays by position.

    Parameters
    ----------
    header : mapping
        Values of JSON.
    arrays : Arrays

    Examples
    --------
    >>> arrays = Arrays()
    >>> [arrays.numbers([0.5]), arrays.small([True]), arrays.numbers([0.5])]
    [0, 1, 0]
    >>> gzip.decompress(encode({}, arrays))[4:66]
    b'{"arrays":[{"kind":"f8","length":1},{"kind":"u1","length":1}]}'
    """
    text = json.dumps(
        {**header, "arrays": arrays.described}, separators=(",", ":"), allow_nan=False
    )
    plain = text.encode("ascii")
    plain += b" " * (-(4 + len(plain)) % _ALIGNED)
    parts = [struct.pack("<I", len(plain)), plain]
    parts += [content + bytes(-len(content) % _ALIGNED) for content in arrays.parts]
    return gzip.compress(b"".join(parts), 9, mtime=0)
