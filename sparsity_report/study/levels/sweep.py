"""What global magnitude pruning leaves of every layer at many levels, from one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np
import pandas as pd

from sparsity_report.counting.allocation import check_sparsity
from sparsity_report.counting.bounds import Bounded, Bounds, bounded, levels_within
from sparsity_report.counting.counts import count_weights
from sparsity_report.counting.disk_cache import CacheFolder
from sparsity_report.counting.histogram import BUCKETS, Integers, Magnitudes, bucket_of
from sparsity_report.counting.policies import prunable_counts
from sparsity_report.counting.progress import Progress
from sparsity_report.counting.ranks import Level, look_into, select, settle
from sparsity_report.errors import SparsityReportError
from sparsity_report.study.layers import added, layer_frame
from sparsity_report.study.levels.levels import LEVEL_COUNTS, Levels, level_rows
from sparsity_report.study.schema import typed
from sparsity_report.weights.weights import Weights

# Modules up to which a study keeps a level at every percent.
_FINE = 10_000
# Magnitudes that are looked at exactly in one reading: bounds the memory.
_LOOK = 2**21


def sweep(
    weights: Weights,
    sparsities: Iterable[float] | None = None,
    *,
    exact: bool = False,
    progress: Progress | None = None,
    executor: Executor | None = None,
    cache: CacheFolder | None = None,
) -> pd.DataFrame:
    """Return what global magnitude pruning leaves of every layer at many sparsities.

    One pass over the weights serves all levels. The number of weights pruned in all is exact at
    every level, as :func:`global_magnitude` would prune. How they spread over the layers is exact
    for weights of 8 or 16 bits. For wider ones a layer's share of the 0.8 % wide bucket of
    magnitudes that the threshold lies in is interpolated: the column ``uncertainty`` says by how
    many weights ``nonzero`` may be off, for a bell curve at most some thousandths of the layer.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`.
    sparsities : iterable of float, optional
        Each between 0 and 1; by default 0, 0.01, … 0.99.
    exact : bool
        Read float32 weights again, once for a few levels, to make every level exact.
    progress, executor, cache : optional
        See :func:`sparsity_report.counting.counts.count_weights`.

    Returns
    -------
    pandas.DataFrame
        One row per sparsity and module: ``threshold`` (largest magnitude pruned, or the lower end
        of its bucket; null where nothing is, or where it is infinite), counts in elements,
        ``dense_bytes`` and ``csr_bytes`` of the module with its prunable matrices stored so,
        ``uncertainty`` in elements. The rest is as in ``study.layers``.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> frame = sr.sweep(sr.load(), [0.3, 0.6])
    >>> pruned = (frame["total"] - frame["nonzero"]).groupby(frame["sparsity"]).sum()
    >>> round(float(pruned[0.6] / pruned[0.3]), 1)
    2.0
    """
    wanted = np.arange(100) / 100 if sparsities is None else sparsities
    if not (asked := [check_sparsity(s) for s in wanted]):
        raise SparsityReportError("sweep needs at least one sparsity, such as [0.3]")
    counts = prunable_counts(weights, progress, executor, cache)
    distinct = list(dict.fromkeys(asked))
    kept = _kept(weights, counts, distinct, exact, executor)
    layers = layer_frame(weights, count_weights(weights), variant="")
    levels = Levels(layers, _table(weights, counts, distinct, kept))
    frames = [
        levels.frame(place).assign(threshold=kept.thresholds[place])
        for place in map(distinct.index, asked)
    ]
    return typed("sweep", pd.concat(frames, ignore_index=True))


def level_table(weights: Weights, bounds: Bounds | None = None) -> pd.DataFrame | None:
    """Return what is left of the prunable modules at each level, small enough to keep in a study.

    Parameters
    ----------
    weights : Weights
    bounds : mapping, optional
        See :func:`bounded_magnitude`; levels that they leave no room for are missing.

    Returns
    -------
    pandas.DataFrame or None
        The table ``levels`` of the schema, module by module, counts in elements; at 0, 1, … 99 %,
        or every 5 % where there are more than 10,000 modules. None where nothing is prunable,
        values are unknown, or one is NaN.
    """
    prunable = weights.prunable
    if not prunable or not all(p.known for p in prunable):
        return None
    counted = count_weights(weights)
    if any(counted[p.name].nan for p in prunable):
        return None
    counts = prunable_counts(weights)
    modules = sum(any(p.prunable for p in module.parameters) for module in weights.modules)
    levels = [percent / 100 for percent in range(0, 100, 1 if modules <= _FINE else 5)]
    if bounds:
        return _bounded_table(bounded(weights, bounds, counts), counts, levels)
    kept = _kept(weights, counts, levels, exact=False, executor=None)
    return _table(weights, counts, levels, kept)


def thresholds(weights: Weights, sparsities: Iterable[float]) -> list[float | None]:
    """Return the largest magnitude pruned at each level, or the lower end of its bucket."""
    levels = [check_sparsity(sparsity) for sparsity in sparsities]
    kept = _kept(weights, prunable_counts(weights), levels, exact=False, executor=None)
    return [None if np.isnan(threshold) else float(threshold) for threshold in kept.thresholds]


def layer_threshold(magnitudes: Magnitudes, sparsity: float) -> float | None:
    """Return the largest magnitude pruned of one tensor by itself, or its bucket's lower end."""
    target = round(check_sparsity(sparsity) * magnitudes.total)
    return next(iter(select({"": magnitudes}, [target]))).threshold if target else None


def _table(
    weights: Weights, counts: Mapping[str, Magnitudes], sparsities: Sequence[float], kept: _Kept
) -> pd.DataFrame:
    """Sum tensors over the modules that own them."""
    owners = {p.name: m.name for m in weights.modules for p in m.parameters if p.tied_to is None}
    codes, modules = pd.factorize(np.array([owners[name] for name in counts], dtype=object))
    sums = (added(numbers.T, codes, len(modules)) for numbers in (kept.left, kept.slack))
    return level_rows(list(modules), sparsities, dict(zip(LEVEL_COUNTS, sums, strict=True)))


def _bounded_table(
    parts: Bounded, counts: Mapping[str, Magnitudes], sparsities: Sequence[float]
) -> pd.DataFrame:
    total, (least, most) = int(parts.totals.sum()), parts.reach
    within = [level for level in sparsities if least <= round(level * total) <= most]
    if not within:
        parts.check(round(sparsities[0] * total))
        raise SparsityReportError("bounds= leave room for none of the levels a study keeps")
    targets = [round(level * total) for level in within]
    gone, slack = map(np.array, zip(*levels_within(counts, parts, targets), strict=True))
    # What was zero before is gone whatever the level.
    left = parts.totals - np.maximum(gone, parts.zeros)
    numbers = dict(zip(LEVEL_COUNTS, (left.T, slack.T), strict=True))
    return level_rows(parts.modules, within, numbers)


class _Kept(NamedTuple):
    """Per level and prunable tensor, in the order of the counts."""

    left: Integers  # nonzeros, of shape (levels, tensors)
    slack: Integers  # by how many they may be off
    thresholds: np.ndarray  # of shape (levels,), NaN where nothing is pruned


def _kept(
    weights: Weights,
    counts: Mapping[str, Magnitudes],
    sparsities: Sequence[float],
    exact: bool,
    executor: Executor | None,
) -> _Kept:
    sizes = np.array([tensor.total for tensor in counts.values()], dtype=np.int64)
    targets = [round(sparsity * int(sizes.sum())) for sparsity in sparsities]
    levels = {level.target: level for level in _levels(weights, counts, targets, exact, executor)}
    none = np.zeros(len(counts), dtype=np.int64)
    pruned = np.array([levels[t].below + levels[t].ties if t else none for t in targets])
    slack = np.array([levels[t].slack if t else none for t in targets])
    zeros = sizes - np.array([tensor.nonzero for tensor in counts.values()], dtype=np.int64)
    thresholds = [levels[t].threshold if t else None for t in targets]
    # What was zero before is pruned first, where its own tensor lost less than it held.
    return _Kept(sizes - np.maximum(pruned, zeros), slack, np.array(thresholds, dtype=float))


def _levels(
    weights: Weights,
    counts: Mapping[str, Magnitudes],
    targets: Iterable[int],
    exact: bool,
    executor: Executor | None,
) -> Iterator[Level]:
    levels = list(select(counts, sorted({target for target in targets if target})))
    rough = [level for level in levels if exact and not level.exact]
    yield from (level for level in levels if level not in rough)
    if not rough:
        return
    tally = np.zeros(BUCKETS, dtype=np.int64)
    for tensor in counts.values():
        np.add.at(tally, bucket_of(tensor.values), tensor.counts)
    while rough:
        # As many levels at a time as their buckets and those between hold few magnitudes.
        first = rough[0].bucket
        upto = np.cumsum(tally[first:])
        group = [level for level in rough if upto[level.bucket - first] <= _LOOK] or rough[:1]
        inside = look_into(counts, weights.slices, first, group[-1].bucket, executor)
        yield from (settle(level, inside) for level in group)
        rough = rough[len(group) :]
