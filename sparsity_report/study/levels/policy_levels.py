"""Levels of further ways to prune by magnitude, as far as counts say them exactly."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd

from sparsity_report.counting.histogram import Integers
from sparsity_report.counting.n_m_patterns import pattern_at
from sparsity_report.counting.policies import (
    global_magnitude,
    layerwise_magnitude,
    n_m,
    prunable_counts,
)
from sparsity_report.counting.pruning import Pruning
from sparsity_report.study.layers import added
from sparsity_report.study.levels.levels import LEVEL_COUNTS, level_matrices, level_rows
from sparsity_report.weights.weights import Weights

GLOBAL, LAYERWISE = "global_magnitude", "layerwise_magnitude"
# Sizes of the groups that N:M patterns keep the largest of.
_GROUPS = (4, 8)
_SAME = 1e-4


def policy_levels(
    layers: pd.DataFrame, levels: pd.DataFrame, weights: Weights | None
) -> dict[str, pd.DataFrame]:
    """Return tables as ``study.levels`` of every policy whose counts follow from it.

    Parameters
    ----------
    layers : pandas.DataFrame
        Rows of the variant whose weights `levels` speaks of.
    levels : pandas.DataFrame
        From :func:`sparsity_report.study.levels.sweep.level_table`.
    weights : Weights or None
        For the sizes of tensors where modules hold several.

    Returns
    -------
    dict of str to pandas.DataFrame
        ``"global_magnitude"``; ``"layerwise_magnitude"`` where the size of every tensor is known;
        ``"N:4"`` and ``"N:8"`` at n of m weights pruned, where no weight is zero before, for then
        a pattern takes as many of every group, and all rows are whole groups.
    """
    names, sparsities, counts = level_matrices(levels)
    rows = layers.set_index("module_name").loc[names]
    before = counts["weight_nonzero"][:, sparsities.index(0.0)] if 0.0 in sparsities else None
    tables = {GLOBAL: levels}
    if before is None:
        return tables
    totals = rows["weight_total"].to_numpy(dtype=np.int64)
    tensors = _tensors(rows, totals, before, weights)
    if tensors is not None:
        sizes, nonzero, codes = tensors
        pruned = np.rint(np.outer(sizes, np.array(sparsities))).astype(np.int64)
        left = sizes[:, None] - np.maximum(pruned, (sizes - nonzero)[:, None])
        tables[LAYERWISE] = _table(names, sparsities, added(left, codes, len(names)))
    if (before != totals).any():
        return tables
    for group in _GROUPS:
        if (rows["columns"] % group == 0).all():
            kept = np.arange(group, 0, -1)
            left = totals[:, None] // group * kept
            tables[f"N:{group}"] = _table(names, [float(1 - k / group) for k in kept], left)
    return tables


def is_of(method: str | None, policy: str) -> bool:
    """Whether a variant that was pruned by a method stands at a level of a policy.

    The model as it comes, of no method, does at that of the zeros it has.

    Examples
    --------
    >>> is_of("2:4", "N:4"), is_of("2:8", "N:4"), is_of(None, "N:4")
    (True, False, True)
    """
    pattern = policy.replace("N:", r"\d+:") if policy.startswith("N:") else re.escape(policy)
    return method is None or re.fullmatch(pattern, method) is not None


def same_level(share: float, other: float) -> bool:
    """Whether two shares of zeros are one level: apart by less than rounding to whole weights."""
    return abs(share - other) < _SAME


def pruned_at(weights: Weights, policy: str, sparsity: float) -> Pruning:
    """Return the pruning that a level of a policy stands for."""
    if policy == LAYERWISE:
        return layerwise_magnitude(weights, sparsity)
    if pattern := pattern_at(policy, sparsity):
        return n_m(weights, *pattern)
    return global_magnitude(weights, sparsity)


def _tensors(
    rows: pd.DataFrame, totals: Integers, before: Integers, weights: Weights | None
) -> tuple[Integers, Integers, np.ndarray] | None:
    """Return size and nonzeros of every prunable tensor, and the place of its module."""
    whole = np.array([math.prod(shape) for shape in rows["shape"]], dtype=np.int64)
    if (whole == totals).all():
        return totals, before, np.arange(len(totals))
    if weights is None:
        return None
    counts = prunable_counts(weights)
    owners = {p.name: m.name for m in weights.modules for p in m.parameters if p.tied_to is None}
    codes = rows.index.get_indexer(pd.Index([owners[name] for name in counts]))
    sizes = np.array([tensor.total for tensor in counts.values()], dtype=np.int64)
    return sizes, np.array([tensor.nonzero for tensor in counts.values()], dtype=np.int64), codes


def _table(names: list[str], sparsities: list[float], left: Integers) -> pd.DataFrame:
    exact = dict(zip(LEVEL_COUNTS, (left, np.zeros_like(left)), strict=True))
    return level_rows(names, sparsities, exact)
