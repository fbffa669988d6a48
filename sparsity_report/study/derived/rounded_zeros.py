"""Zeros that rounding to the levels of a packed file made, summed over layers."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from sparsity_report.sparse.shares import ratio, zero_share


class Rounded(NamedTuple):
    """Packed prunable weights of a variant, in formats with or without a level at zero.

    Attributes
    ----------
    has_zero : bool
        True if zero is a level of the formats.
    packings : list of str
    weights : int
        Number of weights.
    sparsity : float
        Share of the weights that is zero.
    near_zero : float
        The same, or the share within half a step of zero if zero is not a level.
    expected : float
        Share of Gaussian weights that rounding brings there.
    """

    has_zero: bool
    packings: list[str]
    weights: int
    sparsity: float
    near_zero: float
    expected: float


def rounded(layers: pd.DataFrame) -> Iterator[Rounded]:
    """Yield sums over a variant's layers with known expectations, by kind of format."""
    known = layers[layers["expected_rounding_sparsity"].notna()]
    without = known["near_zero_share"].notna()
    for has_zero, rows in ((True, known[~without]), (False, known[without])):
        if weights := int(rows["weight_total"].sum()):
            share = zero_share(weights, int(rows["weight_nonzero"].sum()))
            columns = rows[["near_zero_share", "expected_rounding_sparsity"]]
            near, expected = columns.mul(rows["weight_total"], axis=0).sum()
            yield Rounded(
                has_zero,
                sorted(set(rows["packing"])),
                weights,
                share or 0.0,
                (share if has_zero else ratio(near, weights)) or 0.0,
                ratio(expected, weights) or 0.0,
            )
