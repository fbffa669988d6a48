"""Weights that magnitude pruning leaves in every layer at many levels, from one pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from sparsity_report.counting.count_cache import CacheFolder
from sparsity_report.counting.counts import count_weights
from sparsity_report.counting.histogram import Integers, Magnitudes
from sparsity_report.counting.policies.magnitude_policies import prunable_counts
from sparsity_report.counting.policies.policy_registry import ladder, prune
from sparsity_report.counting.progress import Progress
from sparsity_report.counting.pruning import Inputs, Ladder, ModuleCounts, Pruning
from sparsity_report.counting.pruning_policies import check_sparsity, families
from sparsity_report.counting.ranks import Level, find_levels
from sparsity_report.errors import SparsityReportError
from sparsity_report.study.layers import LayerTable
from sparsity_report.study.levels import Levels, level_matrices, level_rows
from sparsity_report.study.policy_names import GLOBAL
from sparsity_report.study.schema import typed
from sparsity_report.weights.weights import Weights

# Modules up to which a study keeps a level at every percent.
_FINE = 10_000
_THRESHOLDS: WeakKeyDictionary[Weights, dict[float, float | None]] = WeakKeyDictionary()


def sweep(
    weights: Weights,
    sparsities: Iterable[float] | None = None,
    *,
    progress: Progress | None = None,
    executor: Executor | None = None,
    cache: CacheFolder | None = None,
) -> pd.DataFrame:
    """Return every layer after global magnitude pruning at many sparsities.

    One pass over the weights serves all levels. The number of pruned weights of the model is exact
    at every level, see :func:`global_magnitude`. Its distribution over layers is exact for weights
    of 8 or 16 bits. For wider weights the threshold is known to a bucket of magnitudes that is
    0.8 % wide, and a layer's share of that bucket is interpolated. The column ``uncertainty``
    bounds the error of ``nonzero``; for Gaussian weights it is some thousandths of the layer. The
    exact layers of one level are those of a variant that is pruned there.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`.
    sparsities : iterable of float, optional
        Shares of the prunable weights, each from 0 to 1. By default 0, 0.01, … 0.99.
    progress : callable, optional
        Called with bytes read, bytes in all and the name of the tensor.
    executor : concurrent.futures.Executor, optional
        Counts tensors in parallel.
    cache : CacheFolder, optional
        Keeps counts on disk.

    Returns
    -------
    pandas.DataFrame
        One row per sparsity and module. ``threshold`` is the largest pruned magnitude, or the lower
        end of its bucket; null where nothing is pruned or it is infinite. ``dense_bytes`` and
        ``csr_bytes`` are bytes of the module with its prunable matrices stored so. ``uncertainty``
        is in elements. The other columns are those of ``study.layers``.

    Raises
    ------
    SparsityReportError
        A sparsity is not a number from 0 to 1, none is given, nothing is prunable, or a weight is
        NaN.

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
        raise SparsityReportError("sparsities: sweep needs at least one sparsity; give [0.3]")
    counts = prunable_counts(weights, progress, executor, cache)
    distinct = list(dict.fromkeys(asked))
    levels = _levels(counts, distinct)
    layers = LayerTable(weights, count_weights(weights)).frame("")
    places = [distinct.index(sparsity) for sparsity in asked]
    frame = Levels(layers, _table(weights, counts, distinct, levels)).frame(places)
    cuts = [level.threshold if (level := levels[place]) else None for place in places]
    return typed("sweep", frame.assign(threshold=np.repeat(np.array(cuts, float), len(layers))))


def level_table(weights: Weights, counted: Mapping[str, Magnitudes]) -> pd.DataFrame | None:
    """Return the weights that global magnitude pruning leaves in prunable modules at each level.

    Parameters
    ----------
    weights : Weights
    counted : mapping of str to Magnitudes
        From :func:`count_weights`.

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
    counts = {p.name: counted[p.name] for p in prunable}
    if any(tensor.nan for tensor in counts.values()):
        return None
    modules = sum(any(p.prunable for p in module.parameters) for module in weights.modules)
    sparsities = [percent / 100 for percent in range(0, 100, 1 if modules <= _FINE else 5)]
    return _table(weights, counts, sparsities, _remembered(weights, counts, sparsities))


def ladders(
    layers: pd.DataFrame, levels: pd.DataFrame | None, weights: Weights | None
) -> dict[str, Ladder | str]:
    """Return the levels of every policy whose counts follow exactly from `levels`.

    Parameters
    ----------
    layers : pandas.DataFrame
        Rows of the variant that `levels` describes.
    levels : pandas.DataFrame or None
        From :func:`level_table`.
    weights : Weights or None
        Needed for the sizes of tensors where a module holds several.

    Returns
    -------
    dict of str to Ladder or str
        By the key of the policy; for other policies, the reason why they do not follow.
    """
    counts = None
    if levels is not None:
        names, sparsities, matrices = level_matrices(levels)
        left, slack = matrices.values()
        rows = layers.set_index("module_name").loc[names]
        totals, columns = (
            rows[name].to_numpy(dtype=np.int64, na_value=0) for name in ("weight_total", "columns")
        )
        tensors = _tensors(rows, totals, left[:, 0], weights)
        counts = ModuleCounts(Ladder(sparsities, left, slack), totals, columns, tensors)
    return {key: ladder(policy, counts) for key, policy in families().items()}


def with_level(levels: pd.DataFrame, weights: Weights, sparsity: float) -> pd.DataFrame:
    """Return a table of levels with one that is counted exactly, new or in place of its bounds."""
    pruning = pruned_at(weights, GLOBAL, sparsity)
    _THRESHOLDS.setdefault(weights, {})[sparsity] = pruning.threshold
    rows = LayerTable(weights, count_weights(weights)).frame("", pruning)
    exact = rows.assign(sparsity=sparsity, uncertainty=0)[list(levels)]
    others = levels[(levels["sparsity"] - sparsity).abs() > 1e-9]
    frame = pd.concat([others, exact[exact["module_name"].isin(levels["module_name"])]])
    order = np.lexsort((frame["sparsity"], pd.factorize(frame["module_name"])[0]))
    return frame.iloc[order].reset_index(drop=True).astype(levels.dtypes)


def pruned_at(weights: Weights, policy: str, sparsity: float) -> Pruning:
    """Return the pruning at a level of a policy, one of :func:`ladders`."""
    return prune(families()[policy].at(sparsity), weights, sparsity, Inputs())


def thresholds(weights: Weights, sparsities: Iterable[float]) -> list[float | None]:
    """Return the largest magnitude pruned at each level, or the lower end of its bucket."""
    asked = [check_sparsity(sparsity) for sparsity in sparsities]
    known = _THRESHOLDS.setdefault(weights, {})
    if missing := [sparsity for sparsity in asked if sparsity not in known]:
        _remembered(weights, prunable_counts(weights), missing)
    return [known[sparsity] for sparsity in asked]


def _remembered(
    weights: Weights, counts: Mapping[str, Magnitudes], sparsities: Sequence[float]
) -> list[Level | None]:
    """Return levels from :func:`_levels`, and remember their thresholds."""
    levels = _levels(counts, sparsities)
    cuts = (level.threshold if level else None for level in levels)
    _THRESHOLDS.setdefault(weights, {}).update(zip(sparsities, cuts, strict=True))
    return levels


def _table(
    weights: Weights,
    counts: Mapping[str, Magnitudes],
    sparsities: Sequence[float],
    levels: Sequence[Level | None],
) -> pd.DataFrame:
    """Return the nonzeros of tensors at levels, summed over the modules that own them."""
    owners, sizes, nonzeros = _owners(weights), *_sizes(counts)
    codes, modules = pd.factorize(np.array([owners[name] for name in counts], dtype=object))
    none = np.zeros_like(sizes)
    pruned = np.array([level.below + level.ties if level else none for level in levels])
    slack = np.array([level.slack if level else none for level in levels])
    # A tensor whose zeros outnumber its pruned weights keeps all its nonzeros.
    tensors = (pd.DataFrame(each.T) for each in (np.minimum(sizes - pruned, nonzeros), slack))
    left, slack = (numbers.groupby(codes).sum().to_numpy() for numbers in tensors)
    return level_rows(list(modules), sparsities, left, slack)


def _sizes(counts: Mapping[str, Magnitudes]) -> tuple[Integers, Integers]:
    """Return the weights and the nonzeros of each tensor."""
    pairs = [(tensor.total, tensor.nonzero) for tensor in counts.values()]
    sizes, nonzeros = np.array(pairs, dtype=np.int64).T
    return sizes, nonzeros


def _owners(weights: Weights) -> dict[str, str]:
    """Return the name of the module that owns each parameter."""
    return {p.name: m.name for m in weights.modules for p in m.parameters if p.tied_to is None}


def _tensors(
    rows: pd.DataFrame, totals: Integers, before: Integers, weights: Weights | None
) -> tuple[Integers, Integers, np.ndarray] | None:
    """Return size and nonzeros of every prunable tensor, and the position of its module."""
    sizes = np.array([math.prod(shape) for shape in rows["shape"]], dtype=np.int64)
    if (sizes == totals).all():
        return totals, before, np.arange(len(totals))
    if weights is None:
        return None
    counts, owners = prunable_counts(weights), _owners(weights)
    codes = rows.index.get_indexer(pd.Index([owners[name] for name in counts]))
    return *_sizes(counts), codes


def _levels(counts: Mapping[str, Magnitudes], sparsities: Sequence[float]) -> list[Level | None]:
    """Return the smallest magnitudes that each sparsity prunes; None where it prunes nothing."""
    total = sum(tensor.total for tensor in counts.values())
    targets = [round(sparsity * total) for sparsity in sparsities]
    levels = {level.target: level for level in find_levels(counts, sorted({*targets} - {0}))}
    return [levels.get(target) for target in targets]
