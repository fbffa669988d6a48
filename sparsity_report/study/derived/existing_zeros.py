"""The pattern of the zeros that a model had when it was opened, and what magnitude would take."""

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import pandas as pd

from sparsity_report.counting.n_m_patterns import COMPLIANCE, KNOWN
from sparsity_report.sparse.cost import TRACE
from sparsity_report.study.derived.heads_experts import dead, dead_heads
from sparsity_report.study.derived.layer_metrics import FAR, Spread
from sparsity_report.study.layers import records
from sparsity_report.study.schema import BLOCKS

# Largest difference between the sparsity of a matrix and that of its N:M pattern.
_N_M_SLACK = 0.02
# Smallest remaining magnitude ÷ the threshold of magnitude pruning, where it was one. Rounding to
# zero leaves the double: a weight within half a step becomes zero, and others at least a step.
_AT_THRESHOLD = (0.5, 1.5)
# Largest ratio of two smallest magnitudes that one global threshold explains.
_COMMON = 1.02
# Share of equal neighbors from which weights have too few magnitudes to tell a threshold.
_FEW_MAGNITUDES = 1 / 32


class Positions(NamedTuple):
    """A pattern of zeros, and its figures.

    Attributes
    ----------
    key : str
    figures : dict
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
        ``"n_m"``: N:M groups; ``"heads"``: whole attention heads; ``"rows"``: whole rows and
        columns; ``"blocks"``: whole square blocks; ``"even"`` and ``"uneven"``: none of these, or
        not searched, in layers that are equally sparse or not. None if there are neither patterns
        nor several layers.
    """
    if (n_m := n_m_positions(patterns)) is not None:
        return n_m
    rows = patterns[patterns["sparsity"].notna()]
    sizes = (rows["rows"] * rows["columns"]).astype(float)
    if most := COMPLIANCE * (sizes * rows["sparsity"]).sum():
        counts = {"heads": int(dead(rows).heads.sum())}
        heads = rows["head_sparsity"].map(lambda h: dead_heads(h) / len(h) if h else 0.0)
        left = (1 - rows["zero_rows"].fillna(0)) * (1 - rows["zero_columns"].fillna(0))
        shares: list[tuple[str, Any, dict[str, int]]] = [("heads", heads, counts)]
        shares.append(("rows", 1 - left, {}))
        for side in reversed(BLOCKS):
            fits = (rows["rows"] % side == 0) & (rows["columns"] % side == 0)
            shares.append(("blocks", fits * (1 - rows[f"fill_{side}"]), {"side": side}))
        for key, share, figures in shares:
            if (sizes * share).sum() >= most:
                return Positions(key, figures)
    if spread is None:
        return None
    key = "uneven" if spread.is_uneven else "even"
    return Positions(key, spread._asdict() | {"ends": (spread.low, spread.high)})


def uneven_lines(patterns: pd.DataFrame) -> Positions | None:
    """Return the rows or columns that are most unevenly filled; None if as by random zeros.

    With a share s of random zeros, the sparsities of m lines of n weights have a variance of about
    ``s·(1 − s) / n · χ² / (m − 1)``, where χ² has the far quantile of Wilson and Hilferty.

    Parameters
    ----------
    patterns : pandas.DataFrame
        Rows of one variant, of :func:`sparsity_report.weight_patterns`.

    Returns
    -------
    Positions or None
        ``"rows"`` or ``"columns"``, with the standard deviation of their sparsity in the ``module``
        where it is most times that of random zeros.
    """
    widest, most = None, 0.0
    for row in records(patterns[patterns["sparsity"].between(TRACE, 1 - TRACE)]):
        for key, size in (("row", row["columns"]), ("column", row["rows"])):
            random_std = math.sqrt(row["sparsity"] * (1 - row["sparsity"]) / size)
            times, width = row[f"{key}_std"] / random_std, 2 / (9 * max(row[f"{key}s"] - 1, 1))
            if times**2 > max((1 - width + FAR * math.sqrt(width)) ** 3, most**2):
                figures = {"module": row["module_name"], "std": row[f"{key}_std"]}
                widest = Positions(f"{key}s", figures | {"random_std": random_std})
                most = times
    return widest


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


def smallest_kept(patterns: pd.DataFrame) -> Positions | None:
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
    Positions or None
        ``"global"``: one smallest magnitude in all matrices; ``"layerwise"``: about the threshold
        of magnitude pruning in each matrix; ``"other"``: far below it. Figures are the number of
        ``matrices``, the ``ends`` of their smallest magnitudes, the median of these as ``least``,
        and as ``expected`` that of the thresholds of magnitude pruning to the same sparsity.
        None if matrices disagree, if none is partly zero, or if weights have few magnitudes.
    """
    normal = NormalDist()
    rows = patterns[patterns["sparsity"].between(TRACE, 1 - TRACE) & (patterns["std"] > 0)]
    if rows.empty:
        return None
    quantiles = rows["sparsity"].map(lambda share: normal.inv_cdf((1 + share) / 2))
    kept = 2 * quantiles * quantiles.map(normal.pdf) + 1 - rows["sparsity"]
    expected = rows["std"] * quantiles / kept.map(math.sqrt)
    least = rows["least_abs"].astype(float)
    if rows["equal_neighbors"].max() > _FEW_MAGNITUDES:
        return None
    low, high = float(least.min()), float(least.max())
    is_at_threshold = (least / expected).between(*_AT_THRESHOLD).mean() >= COMPLIANCE
    # A threshold of all matrices leaves them unequal shares, and one of a matrix its rows.
    if is_at_threshold and not (rows["row_std"] == 0).all():
        weight = 1 / (rows["rows"] * rows["columns"]).astype(float)
        shares = rows["sparsity"].astype(float)
        has_one_share = (shares - weight).max() <= (shares + weight).min()
        key = "layerwise" if has_one_share or high > _COMMON * low else "global"
    elif (least < _AT_THRESHOLD[0] * expected).mean() >= COMPLIANCE:
        key = "other"
    else:
        return None
    figures = {"ends": (low, high), "least": float(least.median())}
    figures |= {"matrices": len(rows), "expected": float(expected.median())}
    return Positions(key, figures)
