"""Rows of the histogram of a layer: bars, the threshold, and the outline of another layer."""

import math

import numpy as np

from sparsity_report.counting.histogram import Magnitudes, bucket_of, smallest_of
from sparsity_report.draw.marks import Rows
from sparsity_report.study.derived.histograms import bars
from sparsity_report.words.number_format import count, figures
from sparsity_report.words.sentences import say


def histogram_rows(
    magnitudes: Magnitudes, threshold: float | None, *, to_a_bucket: bool = False
) -> tuple[Rows, Rows]:
    """Return a layer's magnitudes as bars of equal area per weight, and the mark of a threshold.

    Parameters
    ----------
    magnitudes : Magnitudes
    threshold : float or None
        Largest pruned magnitude.
    to_a_bucket : bool
        True if the threshold is known to a bucket of magnitudes only, and is labeled as a range.
    """
    edges, inside = bars(magnitudes, threshold)
    if edges.size < 2:
        return [], []
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
    if threshold is None or math.isinf(threshold):
        return rows, []
    label = say("histogram.threshold_value", value=threshold)
    if to_a_bucket:
        label = say("histogram.threshold_about", about=about(threshold))
    left = bool(threshold > 0.55 * edges[-1])
    return rows, [{"at": threshold, "label": label, "left": left}]


def about(threshold: float) -> str:
    """Return a magnitude known to a bucket of the count, as a range of two digits.

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
    """Return another layer's magnitudes as steps over those of a layer, scaled to equal areas.

    Returns
    -------
    shrunk : float
        Factor for the heights of :func:`histogram_rows`, so that the higher of both ends at 1.
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
