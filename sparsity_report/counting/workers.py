"""Work on slices by threads or by the workers of any executor, results in order.

What costs time in NumPy, torch and compiled loops lets other threads run. Results come in the order
of the jobs whatever the order of arrival, so that sums of them are the same to the bit.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch

from sparsity_report.errors import SparsityReportError, ran_out
from sparsity_report.weights.tensor_slices import Slice

S = TypeVar("S", bound=Slice)
T = TypeVar("T")

# Values that are not worth handing to another thread.
SMALL = 2**12
# Threads side by side, each with torch's own threads, would mostly wait for one another.
_one_thread = partial(torch.set_num_threads, 1)
_THREADS = min(4, os.cpu_count() or 1)
# Tasks handed out before their results are needed: bounds what waits, feeds every worker.
_AHEAD_OF_THREADS, _AHEAD_OF_OTHERS = 8 * _THREADS, 1024


def work_through(
    slices: Mapping[str, Iterable[Slice]],
    work: Callable[[Slice], T],
    executor: Executor | None = None,
) -> dict[str, list[T]]:
    """Do the same work on every slice of several tensors; return the results of each tensor."""
    results: dict[str, list[T]] = {name: [] for name in slices}
    jobs = ((name, part, work) for name, parts in slices.items() for part in parts)
    for name, _, result in in_order(jobs, executor):
        results[name].append(result)
    return results


def in_order(
    jobs: Iterable[tuple[str, S, Callable[[S], T]]], executor: Executor | None = None
) -> Iterator[tuple[str, S, T]]:
    """Do the work of each job by threads or by an executor; yield results in the jobs' order."""
    waiting: deque[tuple[str, S, Future[T], Executor | None]] = deque()
    with own_settings(), ThreadPoolExecutor(_THREADS, initializer=_one_thread) as pool:
        try:
            for name, part, work in jobs:
                away = executor if part.sources() else None
                with _named(name, away):
                    if away is not None:
                        future = away.submit(_elsewhere, work, part, os.getpid())
                    elif part.total <= SMALL:
                        # Handing a few values over would take longer than counting them.
                        future = Future[T]()
                        future.set_result(work(part))
                    else:
                        future = pool.submit(work, part)
                    waiting.append((name, part, future, away))
                while len(waiting) > (_AHEAD_OF_THREADS if away is None else _AHEAD_OF_OTHERS):
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        finally:
            for _, _, future, _ in waiting:
                future.cancel()


def _elsewhere(work: Callable[[S], T], part: S, home: int) -> T:
    if os.getpid() == home:
        return work(part)
    with own_settings():
        _one_thread()
        return work(part)


@contextmanager
def own_settings() -> Iterator[None]:
    """Count what is too small for a normal number as it is; then set all of torch as it was."""
    threads, flushing = torch.get_num_threads(), not sys.float_info.min / 2
    # Threads that are started from here on begin like this.
    torch.set_flush_denormal(False)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushing)


def _first(waiting: deque[tuple[str, S, Future[T], Executor | None]]) -> tuple[str, S, T]:
    name, part, future, away = waiting.popleft()
    with _named(name, away):
        return name, part, future.result()


@contextmanager
def _named(name: str, away: Executor | None) -> Iterator[None]:
    """Say which tensor an error is about; what other executors raise is anybody's guess."""
    try:
        yield
    except SparsityReportError as error:
        raise SparsityReportError(f"{name}: {error}") from error
    except Exception as error:
        if ran_out(error):
            raise SparsityReportError(
                f"{name}: memory ran out; nothing was counted wrong, start again with more of it"
                + (", or with fewer workers" if away else "")
            ) from error
        if away is None:
            raise
        raise SparsityReportError(
            f"a worker failed at {name} ({type(error).__name__}: {error}); nothing was counted "
            "wrong, start again (with cache= only what is missing is counted)"
        ) from error
