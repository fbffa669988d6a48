"""A budget of processor time that interrupts Python code in any thread.

Libraries run Python loops as long as a number in an untrusted file demands. A signal would
interrupt only the main thread, and its timer may be in use.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_ulong, py_object, pythonapi
from threading import Event, Thread, get_ident

# Seconds between two looks at the clock.
_INTERVAL = 0.05


class _Interrupt(BaseException):
    """An interrupt of the watched thread; handlers of Exception let it pass."""


@contextmanager
def within_processor_time(seconds: float) -> Iterator[Callable[[float], None]]:
    """Stop a block that takes more than some seconds of processor time.

    The block receives a function that adds seconds, which rewards progress. One long call into a
    library written in C is interrupted only when it returns.

    Raises
    ------
    ValueError
        The time is over.

    Examples
    --------
    >>> with within_processor_time(0.1):
    ...     while True:
    ...         pass
    Traceback (most recent call last):
    ValueError: it takes more than 0.1 seconds of processor time
    """
    watched, clock = c_ulong(get_ident()), _clock()
    start, stopped, interrupts = clock(), Event(), 0

    def add(more: float) -> None:
        nonlocal seconds
        seconds += more

    def watch() -> None:
        nonlocal interrupts
        while not stopped.wait(_INTERVAL):
            # A library may catch the first, and the block needs time to end.
            if clock() - start > seconds + interrupts:
                interrupts += 1
                pythonapi.PyThreadState_SetAsyncExc(watched, py_object(_Interrupt))

    watcher = Thread(target=watch, daemon=True)

    def stop() -> None:
        stopped.set()
        watcher.join()
        pythonapi.PyThreadState_SetAsyncExc(watched, None)

    try:
        watcher.start()
        try:
            yield add
        finally:
            try:
                stop()
            finally:  # an interrupt may have come just now
                stop()
    except (Exception, _Interrupt):
        if not interrupts:
            raise
    if interrupts:
        raise ValueError(f"it takes more than {seconds:.1f} seconds of processor time")


def _clock() -> Callable[[], float]:
    """Return a clock of this thread's processor time, of the process's where there is none."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.process_time
    clock = time.pthread_getcpuclockid(get_ident())
    return lambda: time.clock_gettime(clock)
