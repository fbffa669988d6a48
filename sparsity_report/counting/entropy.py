"""Bits of an ideal code for the weights of a tensor, from its histogram of magnitudes.

The code is of first order, with one code table per tensor: each weight is coded alone, and the
tables themselves take no space. A weight is either zero, or has a sign, an exponent and a mantissa:

``n·H(zero?) + nonzeros·(1 + H(exponent) + H(mantissa given the exponent) + rest)``

The parts add up to the entropy of the weights. The histogram knows no signs: a sign counts as one
bit, which is an upper bound. For float16 and bfloat16 the histogram is lossless. For float32 it
holds the first 7 bits of the mantissa, and the other 16 (`rest`) are taken as incompressible.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sparsity_report.counting.histogram import Magnitudes

# Exponent in NumPy's frexp of all subnormal numbers, and bits that a bucket lacks, by dtype.
_FORMATS = {"float16": (-14, 0), "bfloat16": (-126, 0), "float32": (-126, 16)}


class CodeBits(NamedTuple):
    """Bits of an ideal code for all weights of a tensor, or of several."""

    zero_bits: float
    sign_bits: float
    exponent_bits: float
    mantissa_bits: float


def code_bits(counted: Magnitudes, dtype: str, nonzero: int) -> CodeBits | None:
    """Return the bits of an ideal code after the smallest magnitudes became zeros.

    Parameters
    ----------
    counted : Magnitudes
        Counts before pruning.
    dtype : str
        Name of the dtype of the tensor.
    nonzero : int
        Nonzeros left.

    Returns
    -------
    CodeBits or None
        None for other dtypes, and for weights that are NaN or infinite.

    Examples
    --------
    >>> tally = Magnitudes(8, 4, 0, np.array([0.0, 0.5, 2.0]), np.array([4, 2, 2]))
    >>> code_bits(tally, "bfloat16", 4)
    CodeBits(zero_bits=8.0, sign_bits=4.0, exponent_bits=4.0, mantissa_bits=0.0)
    """
    if dtype not in _FORMATS or counted.nan or counted.infinite or nonzero > counted.nonzero:
        return None
    least, rest = _FORMATS[dtype]
    gone = counted.total - nonzero
    kept = counted.counts - np.diff(np.minimum(np.cumsum(counted.counts), gone), prepend=0)
    exponents = np.maximum(np.frexp(counted.values)[1], least)
    groups = np.bincount(exponents - least, kept).astype(np.int64) if kept.size else kept
    exponent = information(groups)
    return CodeBits(
        information(np.array([gone, nonzero])),
        float(nonzero),
        exponent,
        max(information(kept) - exponent, 0.0) + rest * nonzero,
    )


def information(counts: npt.NDArray[np.int64]) -> float:
    """Return the bits of an ideal code for symbols with these counts, n times their entropy."""
    known = counts[counts > 0].astype(float)
    return float(np.sum(known * np.log2(known.sum() / known)))
