"""What a file compressed by zstd takes: the one layout that is measured, not derived."""

from __future__ import annotations

import sys
from typing import Any

import torch

from sparsity_report.errors import SparsityReportError

#: What the ``zstd`` program compresses with unless told otherwise.
LEVEL = 3
# RFC 8878: the most of a block, its header with one byte that repeats, and the least that a frame
# says of itself.
_BLOCK, _LEAST, _HEADER = 2**17, 4, 6
# Of one value each: its bits, whatever they stand for.
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def zstd_version() -> str | None:
    """Return the version of the zstd library; None where there is none."""
    library = _library()
    return None if library is None else str(library.zstd_version)


def check_zstd() -> None:
    """Refuse to compress without the library.

    Raises
    ------
    SparsityReportError
        Says what to install.
    """
    if zstd_version() is None:
        raise SparsityReportError(
            "zstd takes Python 3.14 or the package backports.zstd, and neither is there: "
            "pip install 'sparsity-report[zstd]'"
        )


def frame_bounds(size: Any) -> tuple[Any, Any]:
    """Return the least and the most bytes that a frame of so many bytes takes.

    The most is zstd's own ``ZSTD_compressBound``; the least a block of one byte that repeats for
    each 128 KiB behind the smallest header (RFC 8878, 3.1.1).

    Parameters
    ----------
    size : int, or array of int
        Bytes before compression.

    Examples
    --------
    >>> frame_bounds(2**20), frame_bounds(0)
    ((38, 1052672), (6, 64))
    """
    small = (_BLOCK - size) * (size < _BLOCK)
    return _HEADER + _LEAST * -(-size // _BLOCK), size + size // 256 + small // 2048


class Frames:
    """Matrices alike that come one after the other, a zstd frame each; only its size is kept.

    A frame is compressed as a stream at level 3 that knows its length: the values of one matrix,
    row by row as the model holds them, in the type they are counted in, +0 where they are zero.

    Attributes
    ----------
    sizes : list of int
        Bytes of the frames that are whole.

    Examples
    --------
    >>> check_zstd()
    >>> frames = Frames(matrices=2, size=4 * 4)
    >>> for _ in range(4):  # two at a time
    ...     frames.add(torch.tensor([0.5, -3.0]), torch.tensor([True, False]))
    >>> len(frames.sizes), frames.sizes[0] == frames.sizes[1]
    (2, True)
    """

    def __init__(self, matrices: int, size: int) -> None:
        self.sizes: list[int] = []
        self._size = size
        self._begin()
        if not size:  # of which no values come
            self.sizes = [len(self._frame.flush())] * matrices

    def add(self, values: torch.Tensor, kept: torch.Tensor) -> None:
        """Add values that follow, none of them of two matrices, and which of them are kept."""
        bits = values.view(_BITS[values.element_size()])
        data = torch.where(kept, bits, torch.zeros((), dtype=bits.dtype)).numpy()
        self._written += len(self._frame.compress(data))
        self._lacking -= data.nbytes
        if not self._lacking:
            self.sizes.append(self._written + len(self._frame.flush()))
            self._begin()

    def _begin(self) -> None:
        library = _library()
        assert library is not None
        self._frame = library.ZstdCompressor(level=LEVEL)
        self._frame.set_pledged_input_size(self._size)
        self._lacking, self._written = self._size, 0


def _library() -> Any:
    """Return Python's own module or what brings it to those before; None where neither is."""
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        return None
    return zstd
