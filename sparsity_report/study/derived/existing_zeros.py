"""The pattern of the zeros that a model had when it was opened, and what magnitude would take."""

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.counting.n_m_patterns import COMPLIANCE, KNOWN
from sparsity_report.sparse.cost import TRACE
from sparsity_report.sparse.shares import ratio
from sparsity_report.study.derived.heads_experts import dead, dead_heads
from sparsity_report.study.derived.layer_metrics import Spread

# Largest difference between the sparsity of a matrix and that of its N:M pattern.
_N_M_SLACK = 0.02
# Smallest remaining magnitude ÷ the threshold of magnitude pruning, from which it was one; and
# largest ratio of two smallest magnitudes that one global threshold explains.
_AT_THRESHOLD, _COMMON = 0.5, 1.02


class Positions(NamedTuple):
    """The pattern that zeros form.

    Attributes
    ----------
    key : {"n_m", "heads", "rows", "even", "uneven", "even_unsearched", "uneven_unsearched"}
        N:M groups; whole attention heads; whole rows and columns; no structure, with layers that
        are equally sparse or not; the same without a search for patterns.
    figures : dict
        Figures of the pattern.
    """

    key: str
    figures: dict[str, Any]


def positions(patterns: pd.DataFrame, spread: Spread | None) -> Positions | None:
    """Return the pattern that the zeros of a variant form.

    A structure explains at least 99 % of the zeros.

    Parameters
    ----------
    patterns : pandas.DataFrame
        Rows of one variant, of :func:`sparsity_report.weight_patterns`; may be empty.
    spread : Spread or None
        The least and the most sparse layer.

    Returns
    -------
    Positions or None
        None if there are neither patterns nor several layers.
    """
    if (n_m := n_m_positions(patterns)) is not None:
        return n_m
    rows = patterns[patterns["sparsity"].notna()]
    sizes = (rows["rows"] * rows["columns"]).astype(float)
    if most := COMPLIANCE * (sizes * rows["sparsity"]).sum():
        zero_parts, heads = dead(rows), rows["head_sparsity"]
        shares = heads.map(lambda each: dead_heads(each) / len(each) if each else 0.0)
        if (sizes * shares).sum() >= most:
            return Positions("heads", {"heads": int(zero_parts.heads.sum())})
        left = (1 - rows["zero_rows"].fillna(0)) * (1 - rows["zero_columns"].fillna(0))
        if (sizes * (1 - left)).sum() >= most:
            counts = {"rows": int(zero_parts.rows.sum()), "columns": int(zero_parts.columns.sum())}
            return Positions("rows", counts)
    if spread is None:
        return None
    key = "uneven" if spread.is_uneven else "even"
    # Without patterns, the zeros may have any structure.
    key += "_unsearched" if rows.empty else ""
    return Positions(key, spread._asdict() | {"ends": (spread.low, spread.high)})


def n_m_positions(patterns: pd.DataFrame) -> Positions | None:
    """Return the N:M pattern that the zeros of a variant form; None without one.

    Parameters
    ----------
    patterns : pandas.DataFrame
        Rows of one variant, of :func:`sparsity_report.weight_patterns`; may be empty.
    """
    rows = patterns[patterns["sparsity"].notna()]
    share = rows["n_m"].map({str(each): 1 - each.n / each.m for each in KNOWN}).astype(float)
    fits = (rows["n_m_share"] >= COMPLIANCE) & ((rows["sparsity"] - share).abs() <= _N_M_SLACK)
    if not fits.any():
        return None
    zeros = rows["rows"] * rows["columns"] * rows["sparsity"]
    by_pattern = zeros[fits].groupby(rows["n_m"]).sum()
    if not 0 < COMPLIANCE * zeros.sum() <= by_pattern.max():
        return None
    pattern = str(by_pattern.idxmax())
    inside = fits & (rows["n_m"] == pattern)
    matrices = {"matrices": int(inside.sum()), "among": len(rows)}
    return Positions("n_m", {"pattern": pattern, **matrices})


class SmallestKept(NamedTuple):
    """The smallest remaining magnitudes beside those that magnitude pruning would leave.

    Attributes
    ----------
    key : {"global", "layerwise", "other"}
        One magnitude in all matrices; about the threshold of magnitude pruning in each matrix;
        or far below it.
    matrices : int
    ends : tuple of float
        The lowest and the highest of the smallest magnitudes of the matrices.
    least : float
        Their median.
    expected : float
        Median threshold of magnitude pruning at the sparsity of each matrix.
    """

    key: str
    matrices: int
    ends: tuple[float, float]
    least: float
    expected: float


def smallest_kept(patterns: pd.DataFrame) -> SmallestKept | None:
    """Compare the smallest remaining magnitudes with those that magnitude pruning would leave.

    Magnitude pruning to a share of zeros s leaves no weight below σ·q of a Gaussian with standard
    deviation σ, where q is its quantile at (1 + s) / 2. The mean square of all weights after
    pruning is then ``σ²·(2·q·φ(q) + 1 − s)``.

    Parameters
    ----------
    patterns : pandas.DataFrame
        Rows of one variant with zeros as opened.

    Returns
    -------
    SmallestKept or None
        None if matrices disagree, or none is partly zero.
    """
    normal = NormalDist()
    rows = patterns[patterns["sparsity"].between(TRACE, 1 - TRACE) & (patterns["std"] > 0)]
    if rows.empty:
        return None
    quantiles = rows["sparsity"].map(lambda share: normal.inv_cdf((1 + share) / 2))
    kept = 2 * quantiles * quantiles.map(normal.pdf) + 1 - rows["sparsity"]
    expected = rows["std"] * quantiles / kept.map(math.sqrt)
    least = rows["least_abs"].astype(float)
    share = ratio((least >= _AT_THRESHOLD * expected).sum(), len(rows)) or 0.0
    low, high = float(least.min()), float(least.max())
    if share >= COMPLIANCE:
        key = "global" if high <= _COMMON * low and len(rows) > 1 else "layerwise"
    elif share <= 1 - COMPLIANCE:
        key = "other"
    else:
        return None
    return SmallestKept(
        key, len(rows), (low, high), float(least.median()), float(expected.median())
    )
