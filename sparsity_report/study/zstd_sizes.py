"""Sizes of matrices compressed by zstd, the only layout that is measured and not derived."""

from __future__ import annotations

import sys
from typing import Any

from sparsity_report.deferred import torch
from sparsity_report.errors import SparsityReportError

#: The default level of the ``zstd`` program.
LEVEL = 3
# Integers of the same size as a value, by its bytes.
_BITS = {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}


def zstd_version() -> str | None:
    """Return the version of the zstd library; None if it is missing."""
    library = _library()
    return None if library is None else str(library.zstd_version)


def check_zstd() -> None:
    """Check that the zstd library is installed.

    Raises
    ------
    SparsityReportError
        The library is missing.
    """
    if zstd_version() is None:
        raise SparsityReportError(
            "zstd: needs Python 3.14 or a further library; run pip install backports.zstd"
        )


class Frames:
    """Sizes of zstd frames, one per matrix, of equal matrices that arrive one after another.

    A frame is a stream of known length at level 3. It holds the values of one matrix, row by row
    as the model holds them, in the type they are counted in, with +0 for each zero.

    Attributes
    ----------
    sizes : list of int
        Bytes of the finished frames.

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
        if not size:  # no values arrive
            self.sizes = [len(self._frame.flush())] * matrices

    def add(self, values: torch.Tensor, kept: torch.Tensor) -> None:
        """Add the next values of one matrix, with flags of the values that are kept."""
        bits = values.view(getattr(torch, _BITS[values.element_size()]))
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
    """Return the module of the standard library, or its backport; None without both."""
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        return None
    return zstd
