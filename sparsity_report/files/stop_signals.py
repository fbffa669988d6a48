"""Signals by which somebody wants a process to stop, and a while in which they wait."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Signals by which somebody wants a process to stop.
STOPPING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let Ctrl-C, and whoever else wants this process to stop, wait for a few milliseconds."""
    waiting: list[int] = []
    before = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                handler = signal.getsignal(number)
                if callable(handler) or handler is signal.SIG_DFL:
                    before[number] = handler
                    signal.signal(number, lambda number, _: waiting.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in dict.fromkeys(waiting):
            signal.raise_signal(number)
