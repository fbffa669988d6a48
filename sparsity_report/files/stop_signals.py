"""Signals that ask a process to stop, and a context that defers them."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Signals that ask a process to stop.
STOPPING: list[int] = [s for s in signal.Signals if s.name in {"SIGINT", "SIGTERM", "SIGHUP"}]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Defer Ctrl-C and other requests to stop until the block ends."""
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in STOPPING if is_main}
    deferred: list[int] = []
    try:
        for number in handlers:
            signal.signal(number, lambda number, _: deferred.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
        for number in dict.fromkeys(deferred):
            signal.raise_signal(number)
