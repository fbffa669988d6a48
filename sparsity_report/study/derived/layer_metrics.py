"""Figures of layers besides counts: sensitivity and spread.

Each figure is an amount ÷ a size, so that several layers have one, too. Sensitivity is a mean over
layers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.counting.counts import count_weights
from sparsity_report.counting.histogram import Magnitudes
from sparsity_report.sparse.shares import zero_share
from sparsity_report.weights.weights import Weights

Floats = npt.NDArray[np.float64]
# Kinds of parts of a model, the finest last.
_CUTS = ("group", "block", "layer")
# Smallest difference of two sparsities that counts.
_POINT = 0.01
#: Standard deviations that chance exceeds for one in a billion matrices, or pairs of layers.
FAR = 6


class LayerFigure(NamedTuple):
    """A figure by module; the figure of several layers is Σ amounts ÷ Σ sizes.

    Attributes
    ----------
    names : pandas.Index
        Names of modules.
    amounts : numpy.ndarray
        Shape (modules,); NaN where unknown.
    sizes : numpy.ndarray
        Shape (modules,); NaN where unknown.
    """

    names: pd.Index
    amounts: Floats
    sizes: Floats


def measured_sensitivity(frame: pd.DataFrame, layers: pd.DataFrame) -> LayerFigure:
    """Return the loss in nats per token of pruning a part alone, for every layer of the part.

    Single layers take precedence over blocks, and blocks over groups.

    Parameters
    ----------
    frame : pandas.DataFrame
        ``study.sensitivity``.
    layers : pandas.DataFrame
        Rows of one variant.
    """
    cut = finest(frame)
    first = frame[frame["by"] == cut].drop_duplicates("part").set_index("part")["nll_increase"]
    rows = layers[layers["prunable"]]
    blocks = ["outside blocks" if pd.isna(b) else f"block {int(b)}" for b in rows["block"]]
    named = {"block": blocks, "group": list(rows["group"]), "layer": list(rows["module_name"])}
    known = first.reindex(named[cut]).to_numpy(dtype=float)
    sizes = np.where(np.isnan(known), np.nan, 1.0)
    return LayerFigure(pd.Index(rows["module_name"]), known, sizes)


def finest(frame: pd.DataFrame) -> str:
    """Return the finest kind of part in a table of sensitivity: layer, block or group."""
    return str(max(frame["by"].unique(), key=_CUTS.index))


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
    is_uneven : bool
        True if the two differ by more than chance and by more than a percentage point.
    """

    layers: int
    low: float
    high: float
    least: str
    most: str
    is_uneven: bool


def spread_of(layers: pd.DataFrame) -> Spread | None:
    """Return the least and the most sparse of several layers; None of fewer than two.

    If zeros fell at random, the sparsities of two layers of n and m weights would differ with a
    standard deviation of ``√(p·(1 − p)·(1/n + 1/m))``.

    Parameters
    ----------
    layers : pandas.DataFrame
        ``module_name, share, weight_total, weight_nonzero``, as of ``facts.prunable``.

    Examples
    --------
    >>> layers = pd.DataFrame({"module_name": ["q", "k"], "share": [0.25, 0.5]})
    >>> spread_of(layers.assign(weight_total=8, weight_nonzero=[6, 4])).is_uneven
    False
    >>> spread_of(layers.assign(weight_total=8000, weight_nonzero=[6000, 4000])).is_uneven
    True
    """
    if len(layers) < 2:
        return None
    ends = layers.loc[[layers["share"].idxmin(), layers["share"].idxmax()]]
    share = zero_share(layers["weight_total"].sum(), layers["weight_nonzero"].sum()) or 0.0
    chance = FAR * np.sqrt(share * (1 - share) * (1 / ends["weight_total"].astype(float)).sum())
    (low, high), (least, most) = map(float, ends["share"]), ends["module_name"]
    is_uneven = bool(high - low > max(_POINT, chance))
    return Spread(len(layers), low, high, least, most, is_uneven)


def module_magnitudes(weights: Weights) -> dict[str, Magnitudes]:
    """Return the magnitudes of each module's prunable weights before pruning, by module."""
    counted, modules = count_weights(weights), {}
    for module in weights.modules:
        parts = [counted[p.name] for p in module.parameters if p.prunable and p.known]
        if parts:
            modules[module.name] = sum(parts[1:], parts[0])
    return modules
