"""Counts of a whole model from one pass over its tensors, remembered while the model lives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from weakref import WeakKeyDictionary

from sparsity_report.counting.count_cache import CacheFolder, Entries
from sparsity_report.counting.histogram import Magnitudes, count_slice, count_together
from sparsity_report.counting.progress import Progress, bar
from sparsity_report.counting.workers import SMALL, in_order, unflushed
from sparsity_report.weights.weights import Parameter, Weights
from sparsity_report.words.sentences import say

NOT_A_NUMBER, INFINITE = "note.weights_nan", "note.weights_infinite"
"""Keys of the notes about weights that are not finite."""
# Tensors that such a note lists.
_NAMED = 3
# Dtypes and number of small tensors that are counted together.
_TOGETHER = ("float64", "float32", "bfloat16", "float16")
_BATCH = 1024
# Values whose histograms torch's loop speeds up by more than the import of torch takes.
_MANY = 2**30


@dataclass
class _Memory:
    """Counts and notes of a model; `complete` once all its tensors are counted."""

    counts: dict[str, Magnitudes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    complete: bool = False


_MEMORIES: WeakKeyDictionary[Weights, _Memory] = WeakKeyDictionary()


def count_notes(weights: Weights) -> tuple[str, ...]:
    """Return the notes about the counts of a model."""
    memory = _MEMORIES.get(weights, _Memory())
    return (*memory.notes, *_not_finite(weights.name, memory.counts))


def _not_finite(model: str, counts: Mapping[str, Magnitudes]) -> Iterator[str]:
    """Yield notes that name the prunable tensors with NaN or infinite weights."""
    for key, numbers in (
        (NOT_A_NUMBER, {name: c.nan for name, c in counts.items() if c.nan}),
        (INFINITE, {name: c.infinite for name, c in counts.items() if c.infinite}),
    ):
        if numbers:
            figures = {"count": sum(numbers.values()), "tensors": len(numbers)}
            yield say(key, model=model, names=list(numbers)[:_NAMED], **figures)


def count_weights(
    weights: Weights,
    progress: Progress | None = None,
    *,
    executor: Executor | None = None,
    cache: CacheFolder | None = None,
) -> Mapping[str, Magnitudes]:
    """Count every stored parameter of a model once and remember the result.

    Prunable tensors get a histogram, and only nonzeros are counted in the others. Tensors without
    values are skipped.

    Parameters
    ----------
    weights : Weights
    progress, executor, cache : optional
        See :func:`sparsity_report.global_magnitude`.

    Raises
    ------
    SparsityReportError
        A file cannot be read or has changed, or a worker died.
    """
    memory = _MEMORIES.setdefault(weights, _Memory())
    counts = memory.counts
    entries = Entries(cache)
    if memory.complete:
        return MappingProxyType(counts)
    stored = {p.name: p for p in weights.stored if p.known}
    counts |= {name: Magnitudes(0, 0) for name, p in stored.items() if p.total == 0}
    for p in [p for name, p in stored.items() if name not in counts] if entries.in_use else ():
        if tally := entries.get(p.name, list(weights.slices(p.name)), p.prunable):
            counts[p.name] = tally
    with unflushed():
        counts |= _count_small(weights, [p for name, p in stored.items() if name not in counts])
    so_far = {name: Magnitudes(0, 0) for name in stored if name not in counts}
    size = sum(p.total * p.itemsize for p in stored.values())
    done = size - sum(stored[name].total * stored[name].itemsize for name in so_far)
    jobs = (
        (name, part, partial(count_slice, histogram=stored[name].prunable))
        for name in list(so_far)
        for part in weights.slices(name)
    )
    if executor is None and sum(stored[name].total for name in so_far) > _MANY:
        with suppress(ImportError, OSError):
            import torch  # noqa: F401
    with bar("counting", given=progress) as show:
        for name, part, tally in in_order(jobs, executor):
            so_far[name] += tally
            done += part.total * stored[name].itemsize
            if so_far[name].total == stored[name].total:
                counts[name] = so_far.pop(name)
                entries.put(name, counts[name])
            show(done, size, name)
    memory.notes = tuple(entries.notes())
    memory.complete = True
    return MappingProxyType(counts)


def _count_small(
    weights: Weights, waiting: Iterable[Parameter]
) -> Iterator[tuple[str, Magnitudes]]:
    """Count small floats of a module, many of one dtype at a time."""
    groups: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for p in waiting if weights.source == "module" else ():
        if p.total <= SMALL and p.dtype in _TOGETHER:
            groups[p.dtype, p.prunable].append(p.name)
    for (_, is_prunable), names in groups.items():
        for start in range(0, len(names), _BATCH):
            some = names[start : start + _BATCH]
            arrays = [weights.array(name) for name in some]
            yield from zip(some, count_together(arrays, is_prunable), strict=True)
