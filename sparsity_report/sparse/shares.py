"""Shares of zeros, ratios, and the sparsity at which a layout becomes smaller than dense."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def zero_share(total: Any, nonzero: Any) -> float | None:
    """Return the share of zeros, ``1 − nonzero ÷ total``.

    Parameters
    ----------
    total, nonzero : int or null
        Numbers of elements.

    Returns
    -------
    float or None
        Share from 0 to 1; None if a count is unknown or the total is 0.

    Examples
    --------
    >>> zero_share(8, 6), zero_share(0, 0), zero_share(8, None)
    (0.25, None, None)
    """
    return float(1 - nonzero / total) if _known(total, nonzero) and total else None


def _known(*numbers: Any) -> bool:
    """Return True if no number is null: neither None, NaN nor pandas' NA."""
    return all(isinstance(number, Real) and number == number for number in numbers)


def zero_shares(totals: Any, nonzeros: Any) -> Any:
    """Return :func:`zero_share` of each row, with NaN for None, in the type of `totals`.

    Examples
    --------
    >>> zero_shares(np.array([8, 0]), np.array([6, 0]))
    array([0.25,  nan])
    """
    import pandas as pd

    if not isinstance(totals, pd.Series):
        return zero_shares(pd.Series(totals), pd.Series(nonzeros)).to_numpy()
    known = totals.where(totals > 0).astype("Float64").astype(float)
    return 1 - nonzeros.astype("Float64").astype(float) / known


def ratio(part: Any, total: Any) -> float | None:
    """Return ``part ÷ total``; None if one is unknown or the total is 0.

    Examples
    --------
    >>> ratio(3, 2), ratio(3, 0), ratio(None, 2)
    (1.5, None, None)
    """
    return float(part / total) if _known(part, total) and total else None


def bits_per_weight(file_bytes: Any, weights: Any) -> float | None:
    """Return the bits per weight in a file, ``8 · bytes ÷ weights``.

    Examples
    --------
    4-bit codes with a 16-bit scale and a 4-bit zero point per 128 weights:

    >>> bits_per_weight(128 // 2 + 2 + 0.5, 128)
    4.15625
    """
    bits = ratio(file_bytes, weights)
    return None if bits is None else 8 * bits


def break_even(dense: pd.Series, full: pd.Series, empty: pd.Series) -> pd.Series:
    """Return the sparsity from which a layout is smaller than dense, row pointers included.

    The bytes of a layout fall linearly from `full` without zeros to `empty` with only zeros, and
    equal `dense` at ``(full − dense) ÷ (full − empty)``. For CSR with p row pointers that is
    ``1 − (n·v − p·i) ÷ (n·(v + i))``.

    Parameters
    ----------
    dense, full, empty : pandas.Series of int
        Bytes.

    Returns
    -------
    pandas.Series of float
        NaN if the layout is never smaller or does not depend on zeros.

    Examples
    --------
    A 3072 × 768 float32 matrix as CSR with int32 indices:

    >>> import pandas as pd
    >>> n, p = 3072 * 768, 3073
    >>> dense, full, empty = map(pd.Series, ([4 * n], [8 * n + 4 * p], [4 * p]))
    >>> break_even(dense, full, empty).round(4).tolist()
    [0.5007]
    """
    dense, full, empty = (side.astype("Float64").astype(float) for side in (dense, full, empty))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (full - dense) / (full - empty)
    return share.where((full > empty) & (empty < dense)).clip(lower=0.0)
