"""Magnitudes of layers as histograms, with the threshold that cuts them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsity_report.counting.counts import count_weights
from sparsity_report.counting.histogram import Integers, Magnitudes, bucket_of, smallest_of
from sparsity_report.weights.weights import Weights
from sparsity_report.words.number_format import count, figures
from sparsity_report.words.sentences import say

Rows = list[dict[str, Any]]
_BARS = 56


def module_magnitudes(weights: Weights) -> dict[str, Magnitudes]:
    """Return the magnitudes of each module's prunable weights before pruning."""
    counted, modules = count_weights(weights), {}
    for module in weights.modules:
        parts = [counted[p.name] for p in module.parameters if p.prunable and p.known]
        if parts:
            modules[module.name] = sum(parts[1:], parts[0])
    return modules


def bars(
    magnitudes: Magnitudes, threshold: float | None = None
) -> tuple[npt.NDArray[np.float64], Integers]:
    """Return edges of bars of about equal width, and how many weights each bar holds.

    Bars end where buckets of the count do, so that no count is guessed, and where the threshold
    cuts; the outermost thousandth of the weights is left out, and what is infinite. Fewer than two
    edges where there is nothing to show.
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


def histogram_rows(
    magnitudes: Magnitudes, threshold: float | None, *, to_a_bucket: bool = False
) -> tuple[Rows, Rows]:
    """Return a layer's magnitudes as bars of equal area per weight, and where the threshold is.

    A threshold that is known to a bucket of the count only is said to be about so much.
    """
    edges, inside = bars(magnitudes, threshold)
    if edges.size < 2:
        return [], []
    at = [] if threshold is None or math.isinf(threshold) else [threshold]
    density = inside / np.diff(edges)
    peak = float(density.max()) or 1.0
    rows = [
        {
            "from": float(start),
            "to": float(stop),
            "height": float(height / peak),
            "pruned": threshold is not None and bool(start <= threshold),
            "label": say("format.count_weights", count=count(held)),
            "between": say("format.value_range", low=float(start), high=float(stop)),
        }
        for start, stop, height, held in zip(edges[:-1], edges[1:], density, inside, strict=True)
    ]
    said = [
        say("histogram.threshold_about", about=about(t))
        if to_a_bucket
        else say("histogram.threshold_value", value=t)
        for t in at
    ]
    marks = zip(at, said, strict=True)
    return rows, [{"at": t, "label": text, "left": bool(t > 0.55 * edges[-1])} for t, text in marks]


def about(threshold: float) -> str:
    """Write a magnitude that is known to a bucket of the count, by what is sure of two digits.

    Examples
    --------
    >>> about(0.06645), about(0.0673)
    ('0.066–0.067', '≈ 0.067')
    """
    end = smallest_of(bucket_of(np.array([threshold])) + 1)[0]
    low, high = (figures(value, ".2g") for value in (threshold, end))
    return say("format.approximate_number", number=low) if low == high else f"{low}–{high}"


def outline_rows(
    magnitudes: Magnitudes, threshold: float | None, other: Magnitudes
) -> tuple[float, Rows]:
    """Return another layer's magnitudes as steps over those of a layer, areas alike.

    Returns
    -------
    shrunk : float
        What the heights of :func:`histogram_rows` are to be multiplied by, so that the higher of
        both ends at 1.
    rows : list of dict
        ``from`` and ``height`` of each step, the last of them 0.
    """
    parts = bars(magnitudes, threshold), bars(other)
    if any(edges.size < 2 for edges, _ in parts):
        return 1.0, []
    one, two = (inside / inside.sum() / np.diff(edges) for edges, inside in parts)
    peak = max(one.max(), two.max())
    edges = parts[1][0]
    steps = zip(edges, [*two / peak, 0.0], strict=True)
    return float(one.max() / peak), [{"from": float(at), "height": float(h)} for at, h in steps]


def spread(magnitudes: Magnitudes) -> float:
    """Return the root mean square of a layer's weights, from the middle of each bucket."""
    wide = 1.0 if magnitudes.exact else 1 + 2.0**-8
    weights = int(magnitudes.counts.sum())
    return math.sqrt(float((magnitudes.counts * (magnitudes.values * wide) ** 2).sum()) / weights)
