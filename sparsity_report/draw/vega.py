"""Vega, Vega-Lite and their embedding: one script, shipped, for page and explorer.

And what it takes to run them without a browser.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from altair.utils.schemapi import debug_mode

from sparsity_report.errors import SparsityReportError

VEGALITE = "6.1"
# Bytes of addresses that V8, which draws, reserves for its heap, with what it takes besides.
_RESERVED = 2**36 + 2**29
BUNDLE = Path(__file__).parent / "vega.js"


@lru_cache(maxsize=1)
def bundle() -> str:
    """Return a script that defines ``vegaEmbed``, and nothing else; it fetches nothing.

    It stands as it is in a ``<script>`` of a page or before the code of an ES module. Made by
    ``docs/tools/bundle_vega.py``, because bundling takes seconds.
    """
    return BUNDLE.read_text(encoding="utf-8")


@contextmanager
def unchecked() -> Iterator[None]:
    """Let altair build charts without holding every part against its schema.

    That takes up to a third of the time; the tests check charts whole.
    """
    with debug_mode(False):
        yield


@lru_cache(maxsize=1)
def check_room() -> None:
    """Refuse to draw where V8 would end the process, as it finds no room for its heap.

    Raises
    ------
    SparsityReportError
        The process may not reserve so many addresses.
    """
    if sys.platform == "win32":
        return
    try:
        # Addresses only, no memory: nothing may be read or written there.
        mmap.mmap(-1, _RESERVED, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0).close()
    except OSError as error:
        raise SparsityReportError(
            f"charts cannot be drawn: that takes {_RESERVED / 2**30:g} GiB of addresses, and this "
            "process may not reserve them; lift its limit (ulimit -v unlimited), or leave out "
            "figures, page, PDF and thesis (--no-png --no-html)"
        ) from error
