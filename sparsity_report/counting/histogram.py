"""One pass over the weights: how many are nonzero, and how their magnitudes are distributed.

A bucket is the top 16 bits of a magnitude as float32, which is a bfloat16 number. The histogram
of a tensor of 8 or 16 bits is therefore lossless; for wider ones a bucket is 2⁻⁷ (0.8 %) wide and
:func:`refine` looks into buckets exactly.

Slices are counted by threads, as what costs time in NumPy and torch lets other threads run, or by
the workers of any executor. Results are merged in the order of the weights whatever the order of
arrival, so they are the same to the bit.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from sparsity_report.counting.kept import Cache
from sparsity_report.errors import SparsityReportError
from sparsity_report.weights import Parameter, Weights
from sparsity_report.weights.slices import FileSlice, Slice, held

Progress = Callable[[int, int, str], None]
"""Called with bytes done, bytes in all, and what is being read."""
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
T = TypeVar("T")

BUCKETS = 2**15
# Chunks long enough to pay for their bins and for passing Python's lock between threads.
_CHUNK = 2**20
_THREADS = min(4, os.cpu_count() or 1)
# Tasks handed out before their results are needed: bounds what waits, feeds every worker.
_AHEAD_HERE, _AHEAD = 8 * _THREADS, 1024
_SMALL = 2**12
_TOP_HALF = 1 if sys.byteorder == "little" else 0
_NO_SIGN, _INFINITE = np.int16(0x7FFF), 0x7F80
_NO_VALUES: Floats = np.empty(0)
_NO_COUNTS: Integers = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False, slots=True)
class Magnitudes:
    """Counts of one tensor.

    Attributes
    ----------
    total, nonzero : int
        Elements, and elements other than +0 and −0 (NaN is not zero).
    nan : int
        Elements that are NaN; they stand in no bucket.
    values : numpy.ndarray of float64
        Smallest magnitude of each bucket that is not empty, ascending.
    counts : numpy.ndarray of int64
        Elements of each bucket.
    exact : bool
        Whether a bucket holds a single magnitude, so that `values` are the magnitudes.
    """

    total: int
    nonzero: int
    nan: int = 0
    values: Floats = field(default_factory=lambda: _NO_VALUES, repr=False)
    counts: Integers = field(default_factory=lambda: _NO_COUNTS, repr=False)
    exact: bool = True

    def __add__(self, other: Magnitudes) -> Magnitudes:
        """Return the counts of both together."""
        values, counts = _merge([(self.values, self.counts), (other.values, other.counts)])
        return Magnitudes(
            self.total + other.total,
            self.nonzero + other.nonzero,
            self.nan + other.nan,
            values,
            counts,
            self.exact and other.exact,
        )


def count_nonzero(tensor: torch.Tensor) -> int:
    """Count the elements other than +0 and −0, for any dtype.

    Examples
    --------
    >>> count_nonzero(torch.tensor([0.0, -0.0, 1e-45, float("nan")]))
    2
    """
    return sum(_count_slice(part, False).nonzero for part in held(tensor))


def count(tensor: torch.Tensor) -> Magnitudes:
    """Count the nonzeros of a tensor and tally its magnitudes.

    Examples
    --------
    >>> seen = count(torch.tensor([0.5, -0.5, 0.0, 2.0], dtype=torch.bfloat16))
    >>> seen.nonzero, seen.values.tolist(), seen.counts.tolist()
    (3, [0.0, 0.5, 2.0], [1, 2, 1])
    """
    return count_slices({"": held(tensor)})[""]


def refine(tensor: torch.Tensor, first: int, last: int) -> tuple[Floats, Integers]:
    """Return the distinct magnitudes in the buckets `first` … `last` and their counts.

    Examples
    --------
    >>> number = int(bucket_of(np.array([1.0]))[0])
    >>> values, counts = refine(torch.tensor([1.0, -1.0, 1.001, 2.0]), number, number)
    >>> values.round(3).tolist(), counts.tolist()
    ([1.0, 1.001], [2, 1])
    """
    return _merge([_refine_slice(part, first, last) for part in held(tensor)])


def bucket_of(values: Floats) -> Integers:
    """Return the bucket number (top 16 bits as float32) of magnitudes."""
    return _codes(_single(values)).astype(np.int64)


def count_weights(
    weights: Weights,
    progress: Progress | None = None,
    *,
    executor: Executor | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Mapping[str, Magnitudes]:
    """Count every stored parameter of a model once and remember the result.

    Prunable tensors get a histogram, the others only their nonzeros; those without values are
    left out.

    Parameters
    ----------
    weights : Weights
    progress : callable, optional
        Called with bytes done, bytes in all and the tensor's name.
    executor : concurrent.futures.Executor, optional
        Counts checkpoints in files: a ``ProcessPoolExecutor``, ``dask.distributed``'s
        ``Client.get_executor()``, an ``mpi4py.futures.MPIPoolExecutor``. Its workers must see the
        files under the same path. Models in memory are counted by threads of this process.
    cache : path-like, optional
        Folder where the counts of large tensors in files are kept and looked up, see
        :mod:`sparsity_report.counting.kept`.

    Raises
    ------
    SparsityReportError
        A file cannot be read or has changed, or a worker died; the tensor is named.
    """
    stored = [p for p in weights.stored if p.known]
    kept = Cache(cache) if cache is not None else None
    keys = {}
    if kept:
        for p in stored:
            key = kept.key(list(weights.slices(p.name)), p.prunable)
            if p.name not in weights.counts and key and (found := kept.get(key)):
                weights.counts[p.name] = _thawed(found)
            keys[p.name] = key
    waiting = {p.name: p for p in stored if p.name not in weights.counts}
    for few in _small_ones(weights, waiting.values()):
        seen_of = _count_many([weights.tensor(p.name) for p in few])
        weights.counts |= {p.name: seen for p, seen in zip(few, seen_of, strict=True)}
    waiting = {name: p for name, p in waiting.items() if name not in weights.counts}
    size = sum(p.total * p.itemsize for p in stored)
    done = size - sum(p.total * p.itemsize for p in waiting.values())
    jobs = (
        (p.name, part, partial(_count_slice, histogram=p.prunable))
        for p in waiting.values()
        for part in weights.slices(p.name)
    )
    so_far = {name: Magnitudes(0, 0) for name in waiting}
    weights.counts |= {name: so_far[name] for name, p in waiting.items() if p.total == 0}
    for name, part, seen in in_order(jobs, executor):
        so_far[name] += seen
        done += part.total * waiting[name].itemsize
        if so_far[name].total == waiting[name].total:
            weights.counts[name] = so_far.pop(name)
            if kept and (key := keys[name]):
                kept.put(key, *_frozen(weights.counts[name]))
        if progress:
            progress(done, size, name)
    if kept and kept.trouble:
        weights.notes += (f"counts could not be kept: {kept.trouble}",)
    return weights.counts


def count_slices(
    slices: Mapping[str, Iterable[Slice]], executor: Executor | None = None
) -> dict[str, Magnitudes]:
    """Count several tensors, each given as slices."""
    counts = {name: Magnitudes(0, 0) for name in slices}
    work = partial(_count_slice, histogram=True)
    jobs = ((name, part, work) for name, parts in slices.items() for part in parts)
    for name, _, seen in in_order(jobs, executor):
        counts[name] += seen
    return counts


def refine_slices(
    slices: Mapping[str, Iterable[Slice]],
    first: int,
    last: int,
    executor: Executor | None = None,
) -> dict[str, tuple[Floats, Integers]]:
    """Look into the buckets `first` … `last` of several tensors, see :func:`refine`."""
    found: dict[str, list[tuple[Floats, Integers]]] = {name: [] for name in slices}
    work = partial(_refine_slice, first=first, last=last)
    jobs = ((name, part, work) for name, parts in slices.items() for part in parts)
    for name, _, pair in in_order(jobs, executor):
        found[name].append(pair)
    return {name: _merge(pairs) for name, pairs in found.items()}


def in_order(
    jobs: Iterable[tuple[str, Slice, Callable[[Slice], T]]], executor: Executor | None = None
) -> Iterator[tuple[str, Slice, T]]:
    """Do the work of each job by threads or by an executor; yield results in the jobs' order."""
    waiting: deque[tuple[str, Slice, Future[T], bool]] = deque()
    # Threads side by side, each with torch's own threads, would mostly wait for one another.
    before = torch.get_num_threads()
    alone = partial(torch.set_num_threads, 1)
    with ThreadPoolExecutor(_THREADS, initializer=alone) as threads:
        try:
            for name, part, work in jobs:
                away = executor is not None and isinstance(part, FileSlice)
                with _named(name, away):
                    if executor is not None and away:
                        future = executor.submit(_elsewhere, work, part, os.getpid())
                    elif part.total <= _SMALL:
                        # Handing a few values over would take longer than counting them.
                        future = Future[T]()
                        future.set_result(work(part))
                    else:
                        future = threads.submit(work, part)
                    waiting.append((name, part, future, away))
                while len(waiting) > (_AHEAD if away else _AHEAD_HERE):
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        finally:
            for _, _, future, _ in waiting:
                future.cancel()
            torch.set_num_threads(before)


def _elsewhere(work: Callable[[Slice], T], part: Slice, home: int) -> T:
    if os.getpid() == home:
        return work(part)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return work(part)
    finally:
        torch.set_num_threads(before)


def _first(waiting: deque[tuple[str, Slice, Future[T], bool]]) -> tuple[str, Slice, T]:
    name, part, future, away = waiting.popleft()
    with _named(name, away):
        return name, part, future.result()


@contextmanager
def _named(name: str, away: bool) -> Iterator[None]:
    """Say which tensor an error is about; what an executor of others raises is not known here."""
    try:
        yield
    except SparsityReportError as error:
        raise SparsityReportError(f"{name}: {error}") from error
    except Exception as error:
        if not away:
            raise
        raise SparsityReportError(
            f"a worker failed at {name} ({type(error).__name__}: {error}); nothing was counted "
            "wrong, start again (with cache= only what is missing is counted)"
        ) from error


def _count_slice(part: Slice, histogram: bool) -> Magnitudes:
    if not histogram:
        return Magnitudes(part.total, sum(map(_nonzero, _chunks(part))))
    return (_count_narrow if part.dtype.itemsize <= 2 else _count_wide)(part)


def _count_narrow(part: Slice) -> Magnitudes:
    tally = np.zeros(2 ** (8 * part.dtype.itemsize), dtype=np.int64)
    for chunk in _chunks(part):
        if part.dtype.itemsize == 1:
            codes = chunk.view(torch.uint8)
        elif part.dtype.is_floating_point:
            codes = torch.from_numpy(chunk.view(torch.int16).numpy() & _NO_SIGN)
        else:
            codes = torch.from_numpy(chunk.view(torch.int16).numpy().view(np.uint16)).int()
        _add(tally, codes)
    values, counts, nan = _by_magnitude(part.dtype, tally)
    zero = int(counts[0]) if values.size and values[0] == 0 else 0
    return Magnitudes(part.total, part.total - zero, nan, values, counts)


def _count_wide(part: Slice) -> Magnitudes:
    if part.total <= _SMALL:
        return _count_many([torch.cat(list(part.pieces()))])[0]
    tally = np.zeros(BUCKETS, dtype=np.int64)
    nonzero, nan = part.total, 0
    for chunk in _chunks(part):
        values = _real(chunk)
        single = _single(values)
        seen = _add(tally, torch.from_numpy(_codes(single)))
        if seen[0]:
            nonzero -= values.size - int(np.count_nonzero(values))
        if seen[_INFINITE:].any():
            nan += int(np.count_nonzero(np.isnan(single)))
    # A NaN whose mark is in the low half looks like infinity from its top half alone.
    tally[_INFINITE] = part.total - nan - tally[:_INFINITE].sum()
    present = np.flatnonzero(tally[: _INFINITE + 1] > 0)
    values = (present.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return Magnitudes(part.total, nonzero, nan, values, tally[present], exact=False)


def _count_many(tensors: Sequence[torch.Tensor]) -> list[Magnitudes]:
    """Count small tensors of one wide dtype together, in buckets as :func:`_count_wide` does."""
    values = np.concatenate([_real(tensor.reshape(-1).cpu()) for tensor in tensors])
    sizes = [tensor.numel() for tensor in tensors]
    owner, many = np.repeat(np.arange(len(sizes)), sizes), len(sizes)
    single = _single(values)
    unknown = np.isnan(single)
    nan = np.bincount(owner[unknown], minlength=many).tolist()
    nonzero = np.bincount(owner[values != 0], minlength=many).tolist()
    keys = (owner * BUCKETS + _codes(single))[~unknown]
    present, counts = np.unique(keys, return_counts=True)
    buckets = ((present % BUCKETS).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    edges = np.searchsorted(present, np.arange(many + 1) * BUCKETS).tolist()
    return [
        Magnitudes(
            sizes[i],
            nonzero[i],
            nan[i],
            buckets[edges[i] : edges[i + 1]],
            counts[edges[i] : edges[i + 1]],
            exact=False,
        )
        for i in range(many)
    ]


def _small_ones(weights: Weights, waiting: Iterable[Parameter]) -> Iterator[list[Parameter]]:
    """Yield small prunable parameters in memory, some thousands of one wide dtype at a time."""
    if weights.source != "module":
        return
    by_dtype: dict[str, list[Parameter]] = {}
    for p in waiting:
        if p.prunable and p.itemsize > 2 and 0 < p.total <= _SMALL:
            by_dtype.setdefault(p.dtype, []).append(p)
    for few in by_dtype.values():
        for start in range(0, len(few), _SMALL):
            yield few[start : start + _SMALL]


def _add(tally: Integers, codes: torch.Tensor) -> Integers:
    """Add the counts of codes to a tally; torch's bincount, unlike NumPy's, frees other threads."""
    seen: Integers = torch.bincount(codes, minlength=min(tally.size, BUCKETS)).numpy()
    tally[: seen.size] += seen
    return seen


def _refine_slice(part: Slice, first: int, last: int) -> tuple[Floats, Integers]:
    pairs, found = [], []
    for chunk in _chunks(part):
        values = _real(chunk)
        if part.dtype == torch.float32:
            # Without the sign, and counted from the first bucket on, one comparison is enough.
            bits = values.view(np.uint32) << np.uint32(1)
            bits -= np.uint32(first << 17)
            inside = bits[bits < np.uint32((last + 1 - first) << 17)]
            found.append(((inside + np.uint32(first << 17)) >> np.uint32(1)).view(np.float32))
        else:
            codes = _codes(_single(values))
            inside = values[(codes >= first) & (codes <= last)]
            found.append(np.abs(inside.astype(np.float64)))
        if sum(some.size for some in found) > _CHUNK // 4:
            pairs.append(_distinct(found))
            found = []
    return _merge([*pairs, _distinct(found)])


def _distinct(found: Sequence[npt.NDArray[Any]]) -> tuple[Floats, Integers]:
    values, counts = np.unique(np.concatenate(found or [_NO_VALUES]), return_counts=True)
    values = values[~np.isnan(values)]
    return values.astype(np.float64), counts[: values.size].astype(np.int64)


def _merge(pairs: Sequence[tuple[Floats, Integers]]) -> tuple[Floats, Integers]:
    """Add up counts per value."""
    pairs = [pair for pair in pairs if pair[0].size] or [(_NO_VALUES, _NO_COUNTS)]
    if len(pairs) == 1:
        return pairs[0]
    values, which = np.unique(np.concatenate([v for v, _ in pairs]), return_inverse=True)
    counts = np.zeros(values.size, dtype=np.int64)
    np.add.at(counts, which, np.concatenate([c for _, c in pairs]))
    return values, counts


def _by_magnitude(dtype: torch.dtype, tally: Integers) -> tuple[Floats, Integers, int]:
    """Merge the counts of bit patterns into counts of magnitudes; NaN apart."""
    magnitudes, which, is_nan = _meaning(dtype)
    present = np.flatnonzero(tally > 0)
    nan = int(tally[present[is_nan[present]]].sum())
    present = present[~is_nan[present]]
    merged = np.zeros(magnitudes.size, dtype=np.int64)
    np.add.at(merged, which[present], tally[present])
    kept = np.flatnonzero(merged)
    return magnitudes[kept], merged[kept], nan


@lru_cache(maxsize=16)
def _meaning(
    dtype: torch.dtype,
) -> tuple[Floats, npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Distinct magnitudes of a narrow dtype, and which of them each bit pattern means."""
    bits = 8 * dtype.itemsize
    patterns = np.arange(2**bits, dtype=np.uint8 if bits == 8 else np.uint16)
    raw = torch.from_numpy(patterns.view(np.uint8 if bits == 8 else np.int16))
    numbers = (raw != 0) if dtype == torch.bool else raw.view(dtype)
    values = np.abs(numbers.to(torch.float64).numpy())
    is_nan = np.isnan(values)
    magnitudes, which = np.unique(np.where(is_nan, 0.0, values), return_inverse=True)
    return magnitudes, which.astype(np.intp), is_nan


def _chunks(part: Slice) -> Iterator[torch.Tensor]:
    for piece in part.pieces():
        yield from piece.split(_CHUNK)


def _nonzero(chunk: torch.Tensor) -> int:
    if chunk.dtype.is_complex:
        return int(torch.count_nonzero(chunk))
    if not chunk.dtype.is_floating_point:
        return int(np.count_nonzero(chunk.numpy()))
    if chunk.dtype.itemsize == 1:
        return int(np.count_nonzero(chunk.float().numpy()))
    # NumPy counts integers at the speed of memory, floats much slower; a shift takes the sign off.
    width = chunk.dtype.itemsize
    bits = chunk.view(getattr(torch, f"int{8 * width}")).numpy().view(f"u{width}")
    return int(np.count_nonzero(bits << bits.dtype.type(1)))


def _real(chunk: torch.Tensor) -> npt.NDArray[Any]:
    return (chunk.abs() if chunk.dtype.is_complex else chunk).numpy()


def _single(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return values as float32; rounding keeps their order."""
    with np.errstate(over="ignore", under="ignore"):
        return values.astype(np.float32, copy=False)


def _codes(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """Return the top 16 bits without the sign."""
    codes = values.view(np.int16)[_TOP_HALF::2].copy()
    codes &= _NO_SIGN
    return codes


def _frozen(seen: Magnitudes) -> list[npt.NDArray[Any]]:
    facts = np.array([seen.total, seen.nonzero, seen.nan, seen.exact], dtype=np.int64)
    return [facts, seen.values, seen.counts]


def _thawed(arrays: Sequence[npt.NDArray[Any]]) -> Magnitudes:
    (total, nonzero, nan, exact), values, counts = arrays[0].tolist(), arrays[1], arrays[2]
    return Magnitudes(total, nonzero, nan, values, counts, bool(exact))
