"""Parallel work on slices, by threads or by the workers of any executor.

The slow parts of NumPy and compiled loops release Python's lock. Results come in the order of the
jobs, so that their sums are equal to the bit on every run.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from sparsity_report.errors import SparsityReportError, ran_out
from sparsity_report.weights.tensor_slices import Slice

S = TypeVar("S", bound=Slice)
T = TypeVar("T")

SMALL = 2**12
"""Values that are counted in the calling thread, as handing them over would take longer."""
_THREADS = min(4, os.cpu_count() or 1)
# Tasks submitted ahead of their results: enough to feed every worker, with bounded memory.
_THREADS_AHEAD, _REMOTE_AHEAD = 8 * _THREADS, 1024


def work_through(
    slices: Mapping[str, Iterable[Slice]], work: Callable[[Slice], T], executor: Executor | None
) -> dict[str, list[T]]:
    """Apply a function to every slice of several tensors; return the results by tensor."""
    results: dict[str, list[T]] = {name: [] for name in slices}
    jobs = ((name, part, work) for name, parts in slices.items() for part in parts)
    for name, _, result in in_order(jobs, executor):
        results[name].append(result)
    return results


def in_order(
    jobs: Iterable[tuple[str, S, Callable[[S], T]]], executor: Executor | None = None
) -> Iterator[tuple[str, S, T]]:
    """Run jobs by threads or an executor; yield results in the order of the jobs."""
    waiting: deque[tuple[str, S, Future[T], Executor | None]] = deque()
    with unflushed(), ThreadPoolExecutor(_THREADS) as pool:
        try:
            for name, part, work in jobs:
                remote = executor if part.sources() else None
                with _errors_of(name, remote):
                    if remote is not None:
                        future = remote.submit(_run_remotely, work, part)
                    elif part.total <= SMALL:
                        future = Future[T]()
                        future.set_result(work(part))
                    else:
                        future = pool.submit(work, part)
                    waiting.append((name, part, future, remote))
                while len(waiting) > (_THREADS_AHEAD if remote is None else _REMOTE_AHEAD):
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        finally:
            for _, _, future, _ in waiting:
                future.cancel()


def _run_remotely(work: Callable[[S], T], part: S) -> T:
    with unflushed():
        return work(part)


@contextmanager
def unflushed() -> Iterator[None]:
    """Keep denormal numbers where torch, if it is loaded, made the processor flush them to zero."""
    if sys.float_info.min / 2 or "torch" not in sys.modules:
        yield
        return
    # Only torch sets this; new threads inherit it.
    torch = sys.modules["torch"]
    torch.set_flush_denormal(False)
    try:
        yield
    finally:
        torch.set_flush_denormal(True)


def _first(waiting: deque[tuple[str, S, Future[T], Executor | None]]) -> tuple[str, S, T]:
    name, part, future, remote = waiting.popleft()
    with _errors_of(name, remote):
        return name, part, future.result()


@contextmanager
def _errors_of(name: str, remote: Executor | None) -> Iterator[None]:
    """Name the tensor in errors, and turn errors of executors into ours."""
    try:
        yield
    except SparsityReportError as error:
        raise SparsityReportError(f"{name}: {error}") from error
    except Exception as error:
        if ran_out(error):
            raise SparsityReportError(
                f"{name}: memory ran out; nothing was counted wrong, start again with more of it"
                + (", or with fewer workers" if remote else "")
            ) from error
        if remote is None:
            raise
        raise SparsityReportError(
            f"a worker failed at {name} ({type(error).__name__}: {error}); nothing was counted "
            "wrong, start again (with cache= only what is missing is counted)"
        ) from error
