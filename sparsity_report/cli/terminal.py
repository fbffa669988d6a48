"""Output of commands and of libraries, signals as exceptions, and worker processes.

A stopped command undoes its work.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import TYPE_CHECKING, TextIO

from sparsity_report.errors import SparsityReportError, legible

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from sparsity_report.counting.progress import Progress


# Seconds of measurements whose time is not announced.
_SHORT = 5


def print_line(text: str, stream: TextIO | None = None) -> None:
    """Print a line; spell out control characters and characters that the encoding lacks."""
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    print(legible(text).encode(encoding, "backslashreplace").decode(encoding), file=stream)


def print_warning(text: str) -> None:
    """Print a warning or an error to stderr."""
    with suppress(OSError):  # the pipe is closed
        print_line(f"sparsity-report: {text}", sys.stderr)


@contextmanager
def timed_bar(title: str, key: str, count: int) -> Iterator[Progress]:
    """Show a bar, and print about how long all the work takes once its first steps are done.

    `key` is that of the line in the catalogue; `count` is its number of variants.
    """
    from sparsity_report.counting.progress import bar

    begun: list[float] = []
    with bar(title, unit="") as show:

        def progress(done: int, total: int, name: str) -> None:
            if not done:
                begun.append(perf_counter())
            elif begun and done < total and (spent := perf_counter() - begun[-1]) >= 1:
                print_time(key, count, spent * total / done)
                begun.clear()
            show(done, total, name)

        yield progress


def print_time(key: str, count: int, seconds: float) -> None:
    """Print about how long a measurement takes to stderr, unless it is short."""
    if seconds >= _SHORT:
        from tqdm import tqdm

        from sparsity_report.words.sentences import say

        time = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
        tqdm.write(say(key, count=count, time=time), file=sys.stderr)  # above a bar


def flush() -> None:
    """Flush stdout; raise an error if it cannot be written."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError):  # Python flushes again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise Stopped(PIPE) from error
        raise SparsityReportError(
            f"cannot print: {error.strerror}; send stdout to a file with space left"
        ) from error


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


@contextmanager
def workers(number: int) -> Iterator[Executor | None]:
    """Start processes that count files, at most one per core; give None for 0: threads count."""
    number = min(number, os.cpu_count() or 1)
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


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence other libraries, whether they are imported or will be."""
    import warnings

    # Libraries read these when they are imported, and many commands do without them.
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    added = quiet.keys() - os.environ.keys()
    os.environ |= {name: quiet[name] for name in added}
    if logging := sys.modules.get("transformers.utils.logging"):
        logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", module="sparsity_report")
        try:
            yield
        finally:
            for name in added:
                del os.environ[name]
