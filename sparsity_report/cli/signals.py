"""Signals as exceptions, so that a stopped command undoes its work."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Signals that ask a process to stop.
STOPPING: list[int] = [s for s in signal.Signals if s.name in {"SIGINT", "SIGTERM", "SIGHUP"}]
# Number of SIGPIPE, which Windows lacks.
PIPE = 13


class Stopped(BaseException):
    """A request to stop; its argument is the number of the signal."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise :class:`Stopped` on a signal; restore the default handlers at the end."""

    def stop(number: int, _: object) -> None:
        raise Stopped(number)

    numbers = []
    if threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            if signal.getsignal(number) in {signal.SIG_DFL, signal.default_int_handler}:
                signal.signal(number, stop)
                numbers.append(number)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
