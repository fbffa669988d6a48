"""Findings about the zeros of packed models: made by rounding, or by pruning before."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from sparsity_report.phrases import Phrase, phrase
from sparsity_report.sparse.shares import ratio, zero_share
from sparsity_report.study.comparison import Comparison

# Trained weights have heavier tails than a Gaussian, so that more of them are small: in MiniLM and
# SmolLM2, rounding makes 1.06 to 1.13 times the expected zeros, in formats of 2 to 8 bits.
_ALIKE, _CLEARLY = 1.15, 1.5
# Differences of shares that are too small to conclude anything.
_SLACK, _FAR = 0.005, 0.02
# Share of zeros from which their origin is reported.
_REPORTED_FROM = 0.0005

_ZEROS = {
    "alike": "rounding.zeros_explained",
    "more": "rounding.zeros_before_packing",
    "undecided": "rounding.zeros_undecided",
}
_NEAR_ZEROS = {
    "alike": "rounding.near_zeros_explained",
    "more": "rounding.near_zeros_before_packing",
    "undecided": "rounding.near_zeros_undecided",
}


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


def zeros_explained(study: Comparison) -> Iterator[Phrase]:
    """Yield how many of the zeros of packed variants rounding explains."""
    for variant in study.variants["variant"]:
        for part in rounded(study.facts.layers(variant)):
            if part.has_zero and part.sparsity > _REPORTED_FROM:
                yield phrase(_ZEROS[_origin(part)], variant=variant, **part._asdict())


def zeros_hidden(study: Comparison, variant: str) -> Iterator[Phrase]:
    """Yield weights near zero in formats that may not represent zero exactly."""
    for part in rounded(study.facts.layers(variant)):
        if not part.has_zero:
            yield phrase(_NEAR_ZEROS[_origin(part)], variant=variant, **part._asdict())


def _origin(part: Rounded) -> str:
    """Compare the weights at zero with those that rounding of Gaussian weights would bring there.

    Examples
    --------
    >>> _origin(Rounded(True, ["nf4"], 100, 0.10, 0.10, 0.09))
    'alike'
    >>> _origin(Rounded(True, ["nf4"], 100, 0.50, 0.50, 0.09))
    'more'
    """
    if part.near_zero <= _ALIKE * part.expected + _SLACK:
        return "alike"
    return "more" if part.near_zero > _CLEARLY * part.expected + _FAR else "undecided"
