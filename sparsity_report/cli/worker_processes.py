"""Processes that count files beside this one."""

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
    """Start so many processes; None is what counts in threads of this one."""
    if number == 0:
        yield None
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # A fork would copy the threads of torch in whatever state they are.
    with ProcessPoolExecutor(number, mp_context=get_context("spawn")) as pool:
        with _unheard_by_children():
            for _ in range(number):
                pool.submit(int)  # starts a process
        yield pool


@contextmanager
def _unheard_by_children() -> Iterator[None]:
    """Let processes that are started not hear Ctrl-C, which a terminal tells all: one answers."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
