"""Histograms of the magnitudes of layers."""

import math

import numpy as np
import numpy.typing as npt

from sparsity_report.counting.counts import count_weights
from sparsity_report.counting.histogram import Integers, Magnitudes
from sparsity_report.weights.weights import Weights

_BARS = 56


def module_magnitudes(weights: Weights) -> dict[str, Magnitudes]:
    """Return the magnitudes of each module's prunable weights before pruning, by module."""
    counted, modules = count_weights(weights), {}
    for module in weights.modules:
        parts = [counted[p.name] for p in module.parameters if p.prunable and p.known]
        if parts:
            modules[module.name] = sum(parts[1:], parts[0])
    return modules


def bars(
    magnitudes: Magnitudes, threshold: float | None = None
) -> tuple[npt.NDArray[np.float64], Integers]:
    """Return edges of bars of about equal width, and the number of weights in each bar.

    Bars end at the edges of counted buckets, so that counts are exact, and at the threshold. The
    largest thousandth of the weights and infinite weights are left out. Without weights to show,
    there are fewer than two edges.
    """
    finite = np.isfinite(magnitudes.values)
    values, counts = magnitudes.values[finite], magnitudes.counts[finite]
    total = int(counts.sum())
    if not total or values[-1] <= 0:
        return np.empty(0), np.empty(0, dtype=np.int64)
    at = [] if threshold is None or math.isinf(threshold) else [threshold]
    top = max([float(values[np.searchsorted(np.cumsum(counts), 0.999 * total)]), *at])
    grid = np.linspace(0, top * 1.02, _BARS + 1)
    edges = np.unique(values[np.minimum(np.searchsorted(values, grid), values.size - 1)])
    if threshold is not None:
        above = int(np.searchsorted(values, threshold, side="right"))
        edges = np.unique([*edges, values[min(above, values.size - 1)]])
    edges = np.unique([0.0, *edges])
    before = np.concatenate([[0], np.cumsum(counts)])
    return edges, np.diff(before[np.searchsorted(values, edges)])
