"""A signal undoes what is under way, and a pipe that nobody reads ends it quietly."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sparsity_report.files.stop_signals import STOPPING

# The signal of a pipe that nobody reads; Windows has none, and no such pipes.
PIPE = 13


class Stopped(BaseException):
    """Somebody wants this process to stop; holds the number of the signal."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise where a signal comes, so that all that is under way is undone; at the end, just end."""

    def stop(number: int, _: object) -> None:
        raise Stopped(number)

    heard = []
    if threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            if signal.getsignal(number) in {signal.SIG_DFL, signal.default_int_handler}:
                signal.signal(number, stop)
                heard.append(number)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, signal.SIG_DFL)
