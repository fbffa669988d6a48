"""How unevenly zeros lie over layers, and whether that is more than chance."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from sparsity_report.sparse.shares import zero_share

# Shares that differ by less are said to be the same.
_POINT = 0.01
# Standard deviations: at random one in a billion pairs lies so far apart.
_FAR = 6


class Spread(NamedTuple):
    """How unevenly one variant's zeros lie over its prunable layers; shares of each layer."""

    layers: int
    low: float
    high: float
    least: str
    most: str


def spread_of(layers: pd.DataFrame) -> Spread | None:
    """Return the least and the most sparse of layers with their ``share``; None of fewer than two.

    Parameters
    ----------
    layers : pandas.DataFrame
        ``module_name, share, weight_total, weight_nonzero``, as of ``facts.prunable``.
    """
    if len(layers) < 2:
        return None
    shares, names = layers["share"].to_numpy(), layers["module_name"]
    low, high = int(shares.argmin()), int(shares.argmax())
    return Spread(
        len(layers), float(shares[low]), float(shares[high]), names.iloc[low], names.iloc[high]
    )


def uneven(layers: pd.DataFrame) -> bool:
    """Whether the most and the least sparse layer differ by more than chance, and by a point.

    Taken at random, shares of zeros of two layers of n and m weights differ by a standard
    deviation of ``√(p·(1 − p)·(1/n + 1/m))``.

    Examples
    --------
    >>> layers = pd.DataFrame({"share": [0.25, 0.5], "weight_total": [8, 8]})
    >>> uneven(layers.assign(weight_nonzero=[6, 4]))
    False
    >>> uneven(layers.assign(weight_total=8000, weight_nonzero=[6000, 4000]))
    True
    """
    if len(layers) < 2:
        return False
    ends = layers.loc[[layers["share"].idxmin(), layers["share"].idxmax()]]
    share = zero_share(layers["weight_total"].sum(), layers["weight_nonzero"].sum()) or 0.0
    parts = (1 / ends["weight_total"].astype(float)).sum()
    chance = _FAR * np.sqrt(share * (1 - share) * parts)
    low, high = ends["share"]
    return bool(high - low > max(_POINT, chance))
