"""Counts of a whole model: one pass over its tensors, done once and remembered."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsity_report.counting.histogram import Magnitudes, count_many, count_slice
from sparsity_report.counting.kept import Cache
from sparsity_report.counting.workers import SMALL, in_order
from sparsity_report.weights.parameters import Parameter
from sparsity_report.weights.weights import Weights

Progress = Callable[[int, int, str], None]
"""Called with bytes done, bytes in all, and what is being read."""


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
        seen_of = count_many([weights.tensor(p.name) for p in few])
        weights.counts |= {p.name: seen for p, seen in zip(few, seen_of, strict=True)}
    waiting = {name: p for name, p in waiting.items() if name not in weights.counts}
    size = sum(p.total * p.itemsize for p in stored)
    done = size - sum(p.total * p.itemsize for p in waiting.values())
    jobs = (
        (p.name, part, partial(count_slice, histogram=p.prunable))
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


def _small_ones(weights: Weights, waiting: Iterable[Parameter]) -> Iterator[list[Parameter]]:
    """Yield small prunable parameters in memory, some thousands of one wide dtype at a time."""
    if weights.source != "module":
        return
    by_dtype: dict[str, list[Parameter]] = {}
    for p in waiting:
        if p.prunable and p.itemsize > 2 and 0 < p.total <= SMALL:
            by_dtype.setdefault(p.dtype, []).append(p)
    for few in by_dtype.values():
        for start in range(0, len(few), SMALL):
            yield few[start : start + SMALL]


def _frozen(seen: Magnitudes) -> list[npt.NDArray[Any]]:
    facts = np.array([seen.total, seen.nonzero, seen.nan, seen.exact], dtype=np.int64)
    return [facts, seen.values, seen.counts]


def _thawed(arrays: Sequence[npt.NDArray[Any]]) -> Magnitudes:
    (total, nonzero, nan, exact), values, counts = arrays[0].tolist(), arrays[1], arrays[2]
    return Magnitudes(total, nonzero, nan, values, counts, bool(exact))
