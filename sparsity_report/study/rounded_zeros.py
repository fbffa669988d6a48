"""Zeros of packed weights that rounding explains, and models pruned before they were opened."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from sparsity_report.sparse.cost import TRACE
from sparsity_report.sparse.shares import ratio, zero_share

# Trained weights have heavier tails than a Gaussian, so that more of them are small: in MiniLM and
# SmolLM2, rounding makes 1.06 to 1.13 times the expected zeros, in formats of 2 to 8 bits.
_ALIKE, _CLEARLY = 1.15, 1.5
# Differences of shares that are too small to conclude anything.
_SLACK, _FAR = 0.005, 0.02


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
            near_zero = share if has_zero else ratio(near, weights)
            shares = (share, near_zero, ratio(expected, weights))
            packings = sorted(set(rows["packing"]))
            yield Rounded(has_zero, packings, weights, *(known or 0.0 for known in shares))


def origin(part: Rounded) -> str:
    """Compare the weights at zero with those that rounding of Gaussian weights would bring there.

    Examples
    --------
    >>> origin(Rounded(True, ["nf4"], 100, 0.10, 0.10, 0.09))
    'alike'
    >>> origin(Rounded(True, ["nf4"], 100, 0.50, 0.50, 0.09))
    'more'
    """
    if part.near_zero <= _ALIKE * part.expected + _SLACK:
        return "alike"
    return "more" if part.near_zero > _CLEARLY * part.expected + _FAR else "undecided"


def is_pruned(layers: pd.DataFrame) -> bool:
    """Return whether a model has more zeros than a trace, and more than rounding explains.

    Parameters
    ----------
    layers : pandas.DataFrame
        Rows of ``study.layers`` of one variant, unpruned since it was opened.
    """
    rows = layers[layers["prunable"]]
    if rows["weight_nonzero"].isna().any():
        return False
    share = zero_share(int(rows["weight_total"].sum()), int(rows["weight_nonzero"].sum()))
    if not share or share <= TRACE:
        return False
    # Zeros of packed weights without an expectation may all come from rounding.
    plain = rows[rows["packing"].fillna("") == ""]
    zeros = int((plain["weight_total"] - plain["weight_nonzero"]).sum())
    return zeros > TRACE * int(rows["weight_total"].sum()) or any(
        origin(part) == "more" and part.sparsity > TRACE for part in rounded(rows)
    )
