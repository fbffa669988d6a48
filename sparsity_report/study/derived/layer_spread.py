"""Differences of sparsity between layers, and a test against chance."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from sparsity_report.sparse.shares import zero_share

# Smallest difference of two sparsities that counts.
_POINT = 0.01
# Standard deviations that chance exceeds for one in a billion pairs of layers.
_FAR = 6


class Spread(NamedTuple):
    """The least and the most sparse prunable layer of a variant.

    Attributes
    ----------
    layers : int
        Number of layers.
    low, high : float
        Their sparsities.
    least, most : str
        Their names.
    """

    layers: int
    low: float
    high: float
    least: str
    most: str


def spread_of(layers: pd.DataFrame) -> Spread | None:
    """Return the least and the most sparse of several layers; None of fewer than two.

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
    """Return true if the extreme layers differ by more than chance and by a percentage point.

    If zeros fell at random, the sparsities of two layers of n and m weights would differ with a
    standard deviation of ``√(p·(1 − p)·(1/n + 1/m))``.

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
    chance = _FAR * np.sqrt(share * (1 - share) * (1 / ends["weight_total"].astype(float)).sum())
    low, high = ends["share"]
    return bool(high - low > max(_POINT, chance))
