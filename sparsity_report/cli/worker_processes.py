"""Worker processes that count files."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Executor


@contextmanager
def workers(number: int) -> Iterator[Executor | None]:
    """Start processes; give None for 0, which counts in threads of this process."""
    if number == 0:
        yield None
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # A fork would copy threads of torch in an undefined state.
    with ProcessPoolExecutor(number, mp_context=get_context("spawn")) as pool:
        with _block_ctrl_c():
            for _ in range(number):
                pool.submit(int)  # starts a process
        yield pool


@contextmanager
def _block_ctrl_c() -> Iterator[None]:
    """Block Ctrl-C in processes started meanwhile, so that the parent alone handles it."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
