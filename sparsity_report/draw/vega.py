"""The version of Vega-Lite, and limits of drawing."""

import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from altair.utils.schemapi import debug_mode

from sparsity_report.errors import SparsityReportError

VEGALITE = "6.1"
# Bytes of address space that V8 reserves for its heap and other uses.
_RESERVED = 2**36 + 2**29


@contextmanager
def unchecked() -> Iterator[None]:
    """Build charts without checking every part against the schema of Vega-Lite.

    The checks take up to a third of the time. Tests check complete charts.
    """
    with debug_mode(False):
        yield


@lru_cache(maxsize=1)
def check_room() -> None:
    """Refuse to draw if V8 would end the process because it cannot reserve its heap.

    Raises
    ------
    SparsityReportError
        If the process may not reserve enough address space.
    """
    if sys.platform == "win32":
        return
    try:
        # This reserves addresses only, no memory.
        mmap.mmap(-1, _RESERVED, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0).close()
    except OSError as error:
        raise SparsityReportError(
            f"charts cannot be drawn: this process may not reserve {_RESERVED / 2**30:g} GiB of "
            "address space; lift its limit (ulimit -v unlimited), or leave out figures, page, PDF "
            "and thesis (--write csv,study)"
        ) from error
