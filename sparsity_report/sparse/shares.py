"""Shares of zeros, ratios, and the sparsity at which a layout becomes smaller than dense."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def zero_share(total: float | None, nonzero: float | None) -> float | None:
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
    kept = ratio(nonzero, total)
    return None if kept is None else 1 - kept


def _is_known(number: object) -> TypeGuard[float]:
    """Return True if a number is not null: neither None, NaN nor pandas' NA."""
    return isinstance(number, Real) and number == number


def zero_shares(totals: pd.Series, nonzeros: pd.Series) -> pd.Series:
    """Return :func:`zero_share` of each row, with NaN for None.

    Examples
    --------
    >>> import pandas as pd
    >>> zero_shares(pd.Series([8, 0]), pd.Series([6, 0])).tolist()
    [0.25, nan]
    """
    known = totals.where(totals > 0).astype("Float64").astype(float)
    return 1 - nonzeros.astype("Float64").astype(float) / known


def ratio(part: float | None, total: float | None) -> float | None:
    """Return ``part ÷ total``; None if one is unknown or the total is 0.

    Examples
    --------
    >>> ratio(3, 2), ratio(3, 0), ratio(None, 2)
    (1.5, None, None)
    """
    return float(part / total) if _is_known(part) and _is_known(total) and total else None


def bits_per_weight(file_bytes: float | None, weights: float | None) -> float | None:
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
